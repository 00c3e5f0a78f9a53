"""A run's directory: one owner, a state that tells the truth."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from params.errors import ParamsError
from trainer.run import RunDirectory, RunError, all_runs, run_directory

ROOT = Path(__file__).parent.parent.parent
OWNER = """
import sys
from pathlib import Path
from trainer.run import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.own()
run.update_status(state="running")
print("owned", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """A real process that owns a run."""
    run = RunDirectory(tmp_path / "exp1")
    run.create({"epoch": 1})
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(run.path)], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"owned\n"
    yield run, process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_the_owner(owner):
    run, process = owner
    with pytest.raises(RunError, match=f"already running as process {process.pid}; stop it with --operation"):
        run.own()


def test_a_run_whose_process_is_killed_reads_as_dead_and_can_be_owned(owner):
    run, process = owner
    assert run.read_status()["state"] == "running"
    process.kill()
    process.wait()
    assert run.read_status()["state"] == "dead"
    run.own()
    run.release()


def test_a_run_is_not_made_twice(tmp_path):
    RunDirectory(tmp_path / "exp1").create({})
    with pytest.raises(RunError, match="exp1: exists already; resume it"):
        RunDirectory(tmp_path / "exp1").create({})


def test_a_finished_run_stays_finished(tmp_path):
    run = RunDirectory(tmp_path / "exp1")
    run.create({})
    run.update_status(state="finished", best={"metric": "mAP"})
    status = run.read_status()
    assert (status["state"], status["pid"], status["best"]) == ("finished", os.getpid(), {"metric": "mAP"})


def test_a_run_of_another_host_is_judged_by_its_heartbeat(tmp_path):
    run = RunDirectory(tmp_path / "exp1")
    run.create({})
    status = {**run.read_status(), "host": "elsewhere", "state": "running"}
    (run.path / "status.json").write_text(json.dumps(status))
    assert run.read_status()["state"] == "running"
    (run.path / "status.json").write_text(json.dumps({**status, "heartbeat": status["heartbeat"] - 3600}))
    assert run.read_status()["state"] == "dead"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/tmp/x", "a\\b"])
def test_a_name_that_is_no_single_folder_is_refused(tmp_path, name):
    with pytest.raises(ParamsError, match="expected one folder name"):
        run_directory(tmp_path, name)


def test_runs_are_listed_by_name_and_other_folders_are_not(tmp_path):
    for name in ("b", "a"):
        RunDirectory(tmp_path / name).create({})
    (tmp_path / "notes").mkdir()
    assert [run.name for run in all_runs(tmp_path)] == ["a", "b"]


def test_a_run_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunError, match="no such run; --operation list shows the runs there are"):
        RunDirectory(tmp_path / "gone").read_status()


def test_a_line_that_was_cut_short_costs_no_other(tmp_path):
    run = RunDirectory(tmp_path / "exp1")
    run.create({})
    run.append_metrics({"epoch": 1, "step": 1, "loss": 0.25})
    with run.metrics.open("a") as file:
        file.write('{"epoch": 1, "st')
    run.append_metrics({"epoch": 1, "step": 3, "loss": float("nan")})
    assert [line["step"] for line in run.read_metrics()] == [1, 3]
    assert run.metrics.read_text().splitlines()[1] == '{"epoch": 1, "st'
