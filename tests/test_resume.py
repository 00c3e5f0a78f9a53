"""A run that was killed and resumed ends as the unbroken one: weights to the bit, and the ledger."""

import json
import random
import signal

import torch

from trainer.snapshot import load_snapshot


def states(tmp_path, name, best=True):
    snapshots = tmp_path / "runs" / name / "snapshots"
    last = load_snapshot(snapshots / "last.pth")
    return (last, load_snapshot(snapshots / "best.pth"), (snapshots / "ledger.json").read_text()) if best else (last,)


def identical(left, right):
    """Two snapshot states, equal to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(identical, left, right))
    return left == right


EXTRAS = {"snapshot_every": 2, "ema_decay": 0.9, "gradient_accumulation": 2, "gradient_clip": 5.0, "epoch": 8,
          "evaluation_params": {"type": "market_evaluate", "every": 2},
          "stages": [{"freeze": ["^backbone"], "epochs": 2}],
          "parameter_rules": [{"match": "bias$", "weight_decay": 0.0, "lr_factor": 2.0}]}


def test_a_run_killed_at_ten_random_steps_ends_as_the_unbroken_one(params, train, train_until, tmp_path):
    path = params(**EXTRAS)
    assert train("train", path, "--sub_working_dir", "whole").returncode == 0
    last, best, ledger = states(tmp_path, "whole")
    draw = random.Random(1)
    for attempt, step in enumerate(sorted(draw.sample(range(1, last["step"]), 10))):
        operation = "resume_train" if attempt else "train"
        code, _ = train_until(f"step {step}/", signal.SIGKILL, operation, path, "broken")
        assert code == -signal.SIGKILL
        assert '"state": "dead"' in train("status", path, "--sub_working_dir", "broken", "--json").stdout
    resumed = train("resume_train", path, "--sub_working_dir", "broken")
    assert resumed.returncode == 0, resumed.stderr
    again = states(tmp_path, "broken")
    assert identical(last, again[0])
    assert identical(best, again[1])
    assert ledger == again[2]


def test_a_run_killed_before_its_first_snapshot_starts_again(params, train, train_until, tmp_path):
    path = params(epoch=1)
    assert train("train", path, "--sub_working_dir", "whole").returncode == 0
    train_until("step 1/", signal.SIGKILL, "train", path, "broken")
    assert train("resume_train", path, "--sub_working_dir", "broken").returncode == 0
    assert identical(states(tmp_path, "whole")[0], states(tmp_path, "broken")[0])


def test_a_stopped_run_goes_on_at_the_very_step(params, train, train_until, tmp_path):
    path = params()
    assert train("train", path, "--sub_working_dir", "whole").returncode == 0
    train_until("step 4/", signal.SIGTERM, "train", path, "broken")
    assert train("resume_train", path, "--sub_working_dir", "broken").returncode == 0
    assert identical(states(tmp_path, "whole")[0], states(tmp_path, "broken")[0])
    lines = (tmp_path / "runs" / "broken" / "metrics.jsonl").read_text()
    assert lines.count('"step": 4,') == 1  # no step is recorded twice


def test_the_number_of_workers_does_not_change_the_weights(params, train, tmp_path):
    weights = {}
    for name, workers in {"none": {}, "one": {"num_preprocess_workers": 1}, "three": {"num_preprocess_workers": 3},
                          "spawned": {"num_preprocess_workers": 1, "worker_start": "spawn"}}.items():
        path = params(epoch=1, evaluation_params=None, **workers)
        assert train("train", path, "--sub_working_dir", name).returncode == 0
        weights[name] = states(tmp_path, name, best=False)[0]["network"]
    for name in ("one", "three", "spawned"):
        assert identical(weights["none"], weights[name]), name


def test_a_longer_run_is_trained_on_from_its_end(params, train, tmp_path):
    path = params(epoch=1)
    assert train("train", path, "--sub_working_dir", "exp1").returncode == 0
    assert train("resume_train", path, "--sub_working_dir", "exp1", "--set", "epoch=2").returncode == 0
    assert states(tmp_path, "exp1")[0]["epoch"] == 2


def test_a_resumed_run_takes_new_rates_and_goes_on_in_the_background(params, train, train_until, tmp_path):
    path = params(epoch=10_000, evaluation_params=None, snapshot_every=1, lr={"base_lr": 1e-3})
    train_until("step 3/", signal.SIGKILL, "train", path, "exp1")
    resumed = train("resume_train", path, "--detach", "--set", "lr.base_lr=0.0005", "--set", "weight_decay=0.01")
    assert (resumed.returncode, "running" in resumed.stdout) == (0, True), resumed.stderr
    assert train("resume_train", path).returncode == 4
    assert train("stop_train", path).returncode == 0
    (group, *_) = states(tmp_path, "exp1", best=False)[0]["optimizer"]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (0.0005, 0.01)
    assert json.loads((tmp_path / "runs" / "exp1" / "params.json").read_text())["lr"]["base_lr"] == 0.0005


def test_what_a_snapshot_rests_on_cannot_change_and_the_run_stays_as_it_was(params, train, tmp_path):
    path = params(epoch=1)
    assert train("train", path, "--sub_working_dir", "exp1").returncode == 0
    before = (tmp_path / "runs" / "exp1" / "params.json").read_text()
    refused = train("resume_train", path, "--set", "epoch=2", "--set", "model_params.backbone=resnet18", "--set",
                    "optimizer=sgd")
    assert refused.returncode == 2
    assert [line.split(" cannot change when")[0] for line in refused.stderr.splitlines()] == [
        "--set: model_params:", "--set: optimizer:"]
    assert (tmp_path / "runs" / "exp1" / "params.json").read_text() == before
