"""Real processes that begin where the imports of train.py end, which else take three seconds of every process.

Those that start_train, a launcher and test_recipes_end_to_end begin are interpreters of their own from the first.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "train", "trainer.rehearsal", "trainer.session", "trainer.check", "trainer.launch", "trainer.evaluation",
    "evaluate.market_evaluate", "evaluate.report.page"])


def forked(command, environment, errors=None):
    """Start `python *command` in the project's folder; the process, and its output as a file of text.

    What it says on stderr goes to the file `errors`, or else is part of its output.
    """
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_be, args=([str(word) for word in command], environment, writer, errors))
    process.start()
    writer.close()
    output = open(os.dup(reader.fileno()))
    reader.close()
    return process, output


def _be(command, environment, output, errors):
    os.chdir(ROOT)
    os.environ.update(environment)
    sys.path.append(environment.get("PYTHONPATH", ""))
    os.dup2(output.fileno(), 1)
    os.dup2(1 if errors is None else os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    output.close()
    sys.stdout.reconfigure(line_buffering=True)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
