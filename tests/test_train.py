"""train.py as its users run it: operations, files, states, exit codes."""

import json
import re
import signal

import pytest

from trainer.snapshot import load_snapshot


def status_of(train, path, name="exp1"):
    return json.loads(train("status", path, "--sub_working_dir", name, "--json").stdout)


def test_a_run_leaves_every_file_and_says_how_it_went(params, train, tmp_path):
    path = params(evaluation_params={"type": "market_evaluate", "initial": True})
    done = train("train", path, "--sub_working_dir", "exp1")
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "runs" / "exp1"
    assert done.stdout.endswith(f"\nreport: {run / 'report.html'}\n")
    files = [str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()]
    names = {re.sub(r"tfevents\..*", "tfevents", name) for name in files}
    assert names == {"params.json", "train_log", "metrics.jsonl", "status.json", "lock", "events.out.tfevents",
                     "report.html", "snapshots/last.pth", "snapshots/best.pth", "snapshots/ledger.json"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "evaluation" in line]
    assert [line["epoch"] for line in evaluations] == [0, 1, 2]
    steps = [line for line in lines if "evaluation" not in line]
    assert {"loss", "loss/softmax", "loss/triplet", "lr/backbone", "lr/neck", "images_per_second", "data_wait",
            "embedding_spread", "seconds"} <= set(steps[0])
    status = status_of(train, path)
    best = max(evaluations[1:], key=lambda line: line["evaluation"]["mAP"])
    assert (status["state"], status["epoch"], status["step"]) == ("finished", 2, status["steps"])
    assert status["best"] == {"metric": "mAP", "value": best["evaluation"]["mAP"], "epoch": best["epoch"]}
    assert load_snapshot(run / "snapshots" / "best.pth")["metrics"] == best["evaluation"]
    assert json.loads((run / "params.json").read_text())["losses"][0]["label_smoothing"] == 0.1

    evaluated = train("evaluate", path, "--json", "--rank_lists", "2")
    assert json.loads(evaluated.stdout.splitlines()[-1]) == pytest.approx(best["evaluation"])
    pictures = sorted(file.name for file in (run / "rank_lists").iterdir())
    assert pictures == ["best.png", "median.png", "worst.png"]
    assert f"rank lists: {run / 'rank_lists'}" in evaluated.stderr
    classification = 'evaluation_params={"type": "classification_evaluate"}'
    other = train("evaluate", path, "--rank_lists", "2", "--set", classification)
    assert (other.returncode, "evaluation_params.type: this evaluator ranks no gallery" in other.stderr) == (2, True)
    assert train("resume_train", path).returncode == 4
    assert "finished, nothing to resume" in train("resume_train", path).stderr
    again = train("train", path, "--sub_working_dir", "exp1")
    assert (again.returncode, "exists already" in again.stderr) == (4, True)


def test_a_background_run_is_started_watched_and_stopped(params, train, tmp_path):
    path = params(epoch=10_000, evaluation_params=None)
    started = train("start_train", path, "--sub_working_dir", "exp1")
    assert started.returncode == 0, started.stderr
    assert "running" in started.stdout
    status = status_of(train, path)
    assert (status["state"], status["step"] >= 1) == ("running", True)
    assert "exp1" in train("list", path).stdout
    second = train("resume_train", path, "--sub_working_dir", "exp1")
    assert (second.returncode, f"already running as process {status['pid']}" in second.stderr) == (4, True)
    stopped = train("stop_train", path, "--sub_working_dir", "exp1")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    snapshot = load_snapshot(tmp_path / "runs" / "exp1" / "snapshots" / "last.pth")
    assert snapshot["step"] == status_of(train, path)["step"]
    again = train("stop_train", path, "--sub_working_dir", "exp1")
    assert (again.returncode, "not running (it is stopped)" in again.stderr) == (4, True)


def test_a_background_run_that_fails_says_why_and_with_its_exit_code(params, train, damaged_archives, tmp_path):
    failed = train("start_train", params(batches_dir=str(damaged_archives), batch_size=999, batch_sampling_params={}),
                   "--sub_working_dir", "exp1")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert failed.stderr.startswith(f"{tmp_path}/runs/exp1: {damaged_archives}/train.lmdb: record 000000000")
    assert failed.stderr.endswith(f"; see {tmp_path}/runs/exp1/train_log\n")
    assert status_of(train, params())["state"] == "failed"


def test_a_working_dir_that_cannot_be_made_is_exit_2(params, train, tmp_path):
    (tmp_path / "runs").write_text("a file where the runs should go")
    refused = train("start_train", params(), "--sub_working_dir", "exp1")
    assert refused.returncode == 2
    assert refused.stderr == f"params.json: working_dir: {tmp_path}/runs/exp1 cannot be made: File exists\n"


def test_a_loss_that_is_not_finite_stops_the_run_with_epoch_step_and_name(params, train):
    failed = train("train", params(lr={"base_lr": 1e30}, optimizer="sgd"), "--sub_working_dir", "exp1")
    assert failed.returncode == 5
    assert re.search(r"epoch 1 step \d+: .*loss/(softmax|triplet) is -?(nan|inf).*; lower lr\.base_lr", failed.stderr)
    assert "Traceback" not in failed.stderr
    assert status_of(train, params())["state"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_takes_a_snapshot_and_ends_the_run(params, train, train_until, number, code):
    path = params(epoch=50)
    returncode, rest = train_until("step 3/", number, "train", path, "exp1")
    assert returncode == code, rest
    assert "resume with --operation resume_train" in rest
    status = status_of(train, path)
    snapshot = load_snapshot(path.parent / "runs" / "exp1" / "snapshots" / "last.pth")
    assert (status["state"], snapshot["step"]) == ("stopped", status["step"])


def test_check_tells_values_origins_and_sizes_and_writes_nothing(params, train, tmp_path):
    checked = train("check", params(), "--set", "lr.base_lr=0.002")
    assert checked.returncode == 0, checked.stderr
    told = checked.stdout
    assert re.search(r"^lr\.base_lr +0\.002 +override$", told, re.M)
    assert re.search(r"^img_h +64 +file$", told, re.M)
    assert re.search(r"^batch_size +8 +sugar$", told, re.M)
    assert re.search(r"^weight_decay +0\.0005 +default$", told, re.M)
    assert re.search(r"^steps +\d+ per epoch, \d+ in all$", told, re.M)
    assert "training images" in told and "learning rate" in told and "parameters" in told and "GiB" in told
    assert sorted(file.name for file in tmp_path.iterdir()) == ["params.json"]


@pytest.mark.parametrize(("keys", "line"), [
    ({"parallels": [0] * 5, "device": "cpu"}, "batch_size: expected at least 2 images in each of 5 processes"),
    ({"batch_size": 7}, "batch_size: expected P x K = 2 x 4 = 8, found 7"),
    ({"batch_sampling_params": {"class_balanced": True, "P": 500, "K": 4}}, "batch_sampling_params.P: 500 "),
    ({"evaluation_params": {"type": "market_evaluate", "monitor": "map"}},
     'evaluation_params.monitor: the evaluator gives no "map"; did you mean "mAP"?'),
    ({"model_params": {"backbone": "resnet18", "feature_dim": 64, "pcb_n_parts": 5}}, "model_params"),
    ({"model_params": {"backbone": "resnet18", "neck": "linear"}}, "model_params"),
])
def test_contradictions_are_told_before_anything_is_written(params, train, tmp_path, keys, line):
    refused = train("start_train", params(**keys))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("params.json: ")
    assert line in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_exit_3(params, train, tmp_path):
    refused = train("train", params(batches_dir=str(tmp_path / "nowhere")))
    assert refused.returncode == 3
    assert "train.lmdb: no such split" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_usage_is_exit_2_and_a_run_that_is_not_there_exit_4(params, train):
    assert train("trian", params()).returncode == 2
    assert train("status", params(), "--sub_working_dir", "gone").returncode == 4
    assert train("evaluate", params(), "--sub_working_dir", "../x").returncode == 4
    assert "compare needs --runs A B" in train("compare", params()).stderr
    assert "--detach belongs to resume_train, not to train" in train("train", params(), "--detach").stderr
    assert "--rank_lists belongs to evaluate, not to train" in train("train", params(), "--rank_lists", "1").stderr
    assert "a whole number from 1 expected, got 0" in train("evaluate", params(), "--rank_lists", "0").stderr


def test_a_run_starts_from_the_weights_of_another(params, train, tmp_path):
    assert train("train", params(), "--sub_working_dir", "first").returncode == 0
    best = tmp_path / "runs" / "first" / "snapshots" / "best.pth"
    path = params(pretrain_snapshot=str(best), fine_tune=True, epoch=1,
                  evaluation_params={"type": "market_evaluate", "initial": True})
    assert "pretrain_snapshot: " in train("check", path).stdout
    second = train("train", path, "--sub_working_dir", "second")
    assert (second.returncode, "100.0% of the weights" in second.stdout) == (0, True)
    initial = json.loads((tmp_path / "runs" / "second" / "metrics.jsonl").read_text().splitlines()[0])
    assert initial["evaluation"] == load_snapshot(best)["metrics"]


@pytest.mark.parametrize(("keys", "line"), [
    ({"pretrain_snapshot": "gone.pth"}, r"params\.json: pretrain_snapshot: .*gone\.pth: no such file"),
    ({"imagenet_pretrain": "gone.pth"}, r"params\.json: imagenet_pretrain: .*gone\.pth: no such file"),
])
def test_weights_that_are_not_there_are_told_before_anything_is_written(params, train, tmp_path, keys, line):
    refused = train("train", params(**keys))
    assert refused.returncode == 2
    assert re.match(line, refused.stderr)
    assert not (tmp_path / "runs").exists()


OWN_EVALUATOR = '''
def run_eval(config, predict):
    """Share of gallery images that are nearer to the first query than the second."""
    query, gallery = predict("query").embeddings, predict("gallery").embeddings
    assert config["evaluation_params"]["note"] == "mine"
    return {"nearer": (gallery @ query[0] > gallery @ query[1]).mean()}  # a numpy float, which users return
'''


def test_an_evaluator_of_the_user_s_own_chooses_the_best_snapshot(params, train, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "nearer.py").write_text(OWN_EVALUATOR)
    monkeypatch.setitem(train.environment, "PYTHONPATH", str(tmp_path))
    path = params(epoch=1, evaluation_params={"type": "own.nearer", "note": "mine"})
    assert train("train", path, "--sub_working_dir", "exp1").returncode == 0
    best = status_of(train, path)["best"]
    assert (best["metric"], best["epoch"], 0 <= best["value"] <= 1) == ("nearer", 1, True)
    assert load_snapshot(tmp_path / "runs" / "exp1" / "snapshots" / "best.pth")["metrics"] == {"nearer": best["value"]}


def test_a_run_without_evaluator_keeps_its_last_snapshot(params, train, tmp_path):
    path = params(epoch=1, evaluation_params=None)
    assert train("train", path, "--sub_working_dir", "exp1").returncode == 0
    run = tmp_path / "runs" / "exp1"
    assert [file.name for file in (run / "snapshots").iterdir()] == ["last.pth"]
    assert "best metric</dt><dd class=\"value\">none" in (run / "report.html").read_text()
    assert "names no evaluator" in train("evaluate", path).stderr
    asked = ("--snapshot", "last", "--set", "evaluation_params.type=market_evaluate")
    assert train("evaluate", path, *asked).returncode == 0
