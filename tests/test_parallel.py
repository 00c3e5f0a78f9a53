"""A run in two processes, as its users start, kill, stop and resume it."""

import json
import os
import select
import signal
from pathlib import Path

import pytest
import torch

from params.errors import ParamsError
from trainer.resume import same_run
from trainer.snapshot import load_snapshot

TWO = {"device": "cpu", "parallels": [0, 1], "snapshot_every": 2,
       "evaluation_params": {"type": "market_evaluate", "every": 2}}


def ranks_of(parent):
    """The processes that train for `parent`, by rank."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()
            variables = (Path("/proc") / pid / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is another user's
        if int(status[1]) == parent:
            found |= {int(variable[5:]): int(pid) for variable in variables if variable.startswith(b"RANK=")}
    return found


def state_of(train, path, name="broken"):
    return json.loads(train("status", path, "--sub_working_dir", name, "--json").stdout)["state"]


def weights(path, name):
    state = load_snapshot(path.parent / "runs" / name / "snapshots" / "last.pth")
    return state["network"], state["optimizer"]["state"]


def kill_rank(launcher):
    os.kill(ranks_of(launcher.pid)[1], signal.SIGKILL)


def terminate(launcher):
    launcher.terminate()


def test_a_killed_rank_a_stop_and_a_killed_launcher_change_no_weight(params, train, disturbed):
    path = params(**TWO)
    whole = train("train", path, "--sub_working_dir", "whole")
    assert (whole.returncode, whole.stderr) == (0, "")

    code, said = disturbed("train", path, "broken", ("step 2/", kill_rank), ("resumed at", lambda launcher: None),
                           ("step 4/", terminate))
    assert code == 143, said
    assert "rank 1 was killed by SIGKILL; all start again from the last snapshot, 2 more times at most" in said
    assert state_of(train, path) == "stopped"

    ended = []

    def kill_launcher(launcher):
        ended.extend(map(os.pidfd_open, ranks_of(launcher.pid).values()))
        launcher.kill()

    code, said = disturbed("resume_train", path, "broken", ("step 5/", kill_launcher))
    assert (code, len(ended)) == (-signal.SIGKILL, 2), said
    for rank in ended:
        assert select.select([rank], [], [], 60)[0]  # can be read once the process has ended
        os.close(rank)
    assert state_of(train, path) == "dead"
    assert train("resume_train", path, "--sub_working_dir", "broken").returncode == 0

    network, optimizer = weights(path, "whole")
    network_again, optimizer_again = weights(path, "broken")
    assert all(torch.equal(network_again[name], weight) for name, weight in network.items())
    for i, kept in optimizer.items():
        assert all(torch.equal(optimizer_again[i][key], value) for key, value in kept.items())


def test_a_damaged_image_of_one_rank_ends_the_run_with_its_line_and_no_second_try(params, train, damaged_archives):
    path = params(batches_dir=str(damaged_archives), batch_size=66, batch_sampling_params={}, **TWO)
    failed = train("start_train", path, "--sub_working_dir", "exp1")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert f"runs/exp1: {damaged_archives}/train.lmdb: record 000000000" in failed.stderr
    log = (path.parent / "runs" / "exp1" / "train_log").read_text()
    assert "start again" not in log and "Traceback" not in log
    assert log.count("record 000000000") == 1
    assert state_of(train, path, "exp1") == "failed"


def test_metrics_are_those_of_the_saved_statistics_where_batch_norms_are_not_synchronised(params, train):
    path = params(**{**TWO, "epoch": 1, "sync_batch_norm": False, "ema_decay": 0.5})
    trained = train("train", path, "--sub_working_dir", "exp1")
    assert trained.returncode == 0, trained.stderr
    evaluated = json.loads(train("evaluate", path, "--json").stdout)
    assert evaluated == load_snapshot(path.parent / "runs" / "exp1" / "snapshots" / "best.pth")["metrics"]


OWN_EVALUATOR = '''
def run_eval(config, predict):
    """Fails where embeddings are the network's own, not made up."""
    return {"images": 1 / (16 - predict("query").embeddings.shape[1] // 2)}
'''


def test_an_evaluator_that_fails_is_told_with_its_traceback(params, train, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(OWN_EVALUATOR)
    monkeypatch.setitem(train.environment, "PYTHONPATH", str(tmp_path))
    path = params(**{**TWO, "epoch": 1, "evaluation_params": {"type": "own.failing"}})
    failed = train("train", path, "--sub_working_dir", "exp1")
    assert (failed.returncode, failed.stderr) == (5, f"{tmp_path}/runs/exp1: division by zero\n")
    log = (tmp_path / "runs" / "exp1" / "train_log").read_text()
    assert log.count("Traceback") == 1 and "failing.py" in log and "start again" not in log


RESOLVED = {
    "batch_size": 8, "parallels": [0, 1], "batch_sampling_params": {"type": "random"}, "optimizer": {"type": "sgd"}}


def test_a_run_is_resumed_by_another_number_of_processes_with_the_same_whole_batch():
    same_run(RESOLVED, {**RESOLVED, "parallels": [], "batch_size": 16})
    balanced = {**RESOLVED, "batch_sampling_params": {"type": "pk", "P": 2, "K": 4}}
    same_run(balanced, {**balanced, "parallels": []})
    with pytest.raises(ParamsError, match="batch_size: a step of this run has 16 images .* would now have 8"):
        same_run(RESOLVED, {**RESOLVED, "parallels": []})
