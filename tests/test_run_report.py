"""A real run's report.html, what is done when it cannot be written, and two runs compared."""

import html
import json
import os
import re
import shutil
import signal

import pytest

import train
from trainer.run import RunDirectory


@pytest.fixture(scope="module")
def runs(figures, tmp_path_factory):
    """The folder of one small finished run, exp1."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "params.json"
    path.write_text(json.dumps({
        "batches_dir": str(figures), "working_dir": str(folder), "img_h": 64, "img_w": 32, "epoch": 2, "log_every": 1,
        "num_preprocess_workers": 0, "model_params": {"backbone": "mobilenet_v3_small", "feature_dim": 32},
        "losses": [{"type": "softmax"}, {"type": "triplet"}], "batch_size": 16,
        "evaluation_params": {"type": "market_evaluate", "initial": True}}))
    assert train.main(["--operation", "train", "--config_path", str(path), "--sub_working_dir", "exp1"]) == 0
    return folder


@pytest.fixture
def operate(runs):
    """Run an operation of train.py on the runs."""
    def run(operation, *arguments):
        return train.main(["--operation", operation, "--config_path", str(runs / "params.json"), *map(str, arguments)])
    return run


@pytest.fixture
def elsewhere(runs, tmp_path):
    """A copy of the run whose set was changed by a function of its folder."""
    def made(change):
        run = RunDirectory(shutil.copytree(runs / "exp1", tmp_path / "exp2"))
        resolved = json.loads(run.params.read_text())
        packed = shutil.copytree(resolved["batches_dir"], tmp_path / "packed")
        change(packed)
        run.write_params({**resolved, "batches_dir": str(packed)})
        return run.path
    return made


def words(path):
    """What stands on a page, without its elements."""
    text = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_a_finished_run_has_a_report_with_its_numbers(runs):
    run = RunDirectory(runs / "exp1")
    told, best = words(run.report), run.read_status()["best"]
    evaluations = [row for row in run.read_metrics() if "evaluation" in row]
    assert len(evaluations) == 3
    for row in evaluations:
        line = " ".join(f"{row['evaluation'][name]:.4f}" for name in ("mAP", "mAP_trapezoid", "rank1", "rank5"))
        assert f"{'★ best ' if row['epoch'] == best['epoch'] else ''}{row['epoch']} {line}" in told
    assert f"best mAP {best['value']:.4f}" in told
    # the best snapshot, measured again: its mean is the one that was recorded, its interval around it
    mean, low, high = map(float, re.search(r"mAP ([0-9.]+) ([0-9.]+) ([0-9.]+) mAP_trapezoid", told).groups())
    assert mean == pytest.approx(best["value"], abs=1e-4) and low < mean < high
    assert "Worst queries by mAP" in told and "genuine pairs" in told and "query \\ gallery" in told
    assert '● batches_dir "' in told and "● img_h 64" in told and "kiln 0." in told and "torch 2." in told
    assert "device, when last started cpu, " in told
    assert run.report.stat().st_size < 5e6


def test_the_report_is_written_again_when_asked_for(runs, operate, capsys):
    report = runs / "exp1" / "report.html"
    before = words(report)
    report.unlink()
    assert operate("report") == 0
    assert capsys.readouterr().out == f"{report}\n"
    assert words(report) == before


@pytest.fixture
def ended_again(runs, operate, tmp_path, caplog):
    """Let a copy of the finished run, which a function changes, end once more; it and the warnings that it logs."""
    def end(change):
        run = RunDirectory(shutil.copytree(runs / "exp1", tmp_path / "exp2"))
        run.report.unlink()
        change(run)
        assert operate("resume_train", "--sub_working_dir", run.path, "--set", "epoch=2") == 0
        assert (run.read_status()["state"], run.read_status()["epoch"]) == ("finished", 2)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert all(line in run.log.read_text() for line in said)
        return run, said
    return end


def test_a_report_that_cannot_be_written_leaves_the_run_finished(ended_again):
    run, (said,) = ended_again(lambda run: run.report.mkdir())
    assert re.fullmatch(rf"warning: no report: {run.report}: cannot be written: .*directory.*; to write it: "
                        rf"cd {os.getcwd()} && .*train\.py --operation report --sub_working_dir {run.path}", said)
    assert not (run.path / ".report.html.part").exists()


SIGNALLING = """
import json, os, signal
from pathlib import Path
from evaluate.protocol import Scored, evaluator

@evaluator(logits=False)
def run_eval(config, predict, *, run: str, number: int):
    if json.loads((Path(run) / "status.json").read_text())["state"] == "finished":
        os.kill(os.getpid(), number)
    return Scored("images", {"norm": (predict("query").embeddings ** 2).sum(axis=1)}, ranked_by="norm")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_report_leaves_the_run_finished(ended_again, tmp_path, monkeypatch, number):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "signalling.py").write_text(SIGNALLING)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(number)

    def change(run):
        run.update_status(state="stopped")
        section = {"type": "own.signalling", "run": str(run.path), "number": int(number)}
        run.write_params({**json.loads(run.params.read_text()), "evaluation_params": section})

    run, (said,) = ended_again(change)
    assert said.startswith(f"warning: no report: {number.name}; to write it: cd ")
    assert signal.getsignal(number) == before and not run.report.exists()


def test_a_run_that_has_moved_and_lost_its_data_has_a_report(runs, operate, tmp_path, capsys):
    run = RunDirectory(shutil.copytree(runs / "exp1", tmp_path / "moved"))
    assert operate("report", "--sub_working_dir", run.path, "--set", f"batches_dir={tmp_path}/gone") == 0
    assert capsys.readouterr().out == f"{run.report}\n"
    told = words(run.report)
    assert f"No intervals: {tmp_path}/gone/query.lmdb: no such split" in told and "Curves Loss" in told
    assert f"Data {tmp_path}/gone: no archive; make one with" in told and "Rank lists" not in told
    run.best.write_bytes(run.best.read_bytes()[:2000])
    assert operate("report", "--sub_working_dir", run.path) == 0
    assert f"No intervals: {run.best}: not a readable snapshot: " in words(run.report)
    run.best.unlink()
    assert operate("report", "--sub_working_dir", run.path) == 0
    assert f"No intervals: {run.best}: the run has no best snapshot" in words(run.report)


SILENT = """
from evaluate.market_evaluate import search
from evaluate.protocol import Scored, ranking_evaluator

@ranking_evaluator(search)
def run_eval(found):
    return Scored("", {}, {"half": 0.5})
"""


def test_rank_lists_of_an_evaluator_that_scores_no_query_are_refused(operate, tmp_path, monkeypatch, capsys):
    (tmp_path / "unscored").mkdir()
    (tmp_path / "unscored" / "silent.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    own = 'evaluation_params={"type": "unscored.silent"}'
    assert operate("evaluate", "--sub_working_dir", "exp1", "--rank_lists", 1, "--set", own) == 2
    assert re.fullmatch(r".*evaluation_params\.type: this evaluator ranks no gallery .*\n", capsys.readouterr().err)


def test_a_run_compared_with_itself_does_not_differ(runs, operate, capsys):
    assert operate("compare", "--runs", "exp1", runs / "exp1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"] == ["exp1", str(runs / "exp1")] and said["params"] == {}
    best = RunDirectory(runs / "exp1").read_status()["best"]
    assert said["metrics"]["mAP"]["first"] == pytest.approx(best["value"])
    for metric in said["metrics"].values():
        assert (metric["difference"], metric["low"], metric["high"], metric["p"]) == (0, 0, 0, 1)


def test_runs_on_other_queries_are_not_compared(operate, elsewhere, capsys):
    other = elsewhere(lambda packed: shutil.copy(packed / "gallery.lmdb", packed / "query.lmdb"))
    assert operate("compare", "--runs", "exp1", other) == 3
    assert re.fullmatch(r"query: .*query\.lmdb has \d+ images, .*query\.lmdb \d+; compare runs on one set\n",
                        capsys.readouterr().err)


def test_runs_that_were_asked_other_things_are_not_compared(operate, elsewhere, capsys):
    other = RunDirectory(elsewhere(lambda packed: None))
    resolved = json.loads(other.params.read_text())
    other.write_params({**resolved, "evaluation_params": {**resolved["evaluation_params"], "ap": "trapezoid"}})
    assert operate("compare", "--runs", "exp1", other.path) == 3
    assert "--set evaluation_params.ap=..." in capsys.readouterr().err
    assert operate("compare", "--runs", "exp1", other.path, "--set", "evaluation_params.ap=standard") == 0


@pytest.mark.parametrize(("names", "said"), [
    (("exp1", "gone"), "gone: no such run"), (("./gone", "exp1"), "gone: no such run"),
])
def test_a_run_that_is_not_there_is_not_compared(operate, capsys, names, said):
    assert operate("compare", "--runs", *names) == 4
    assert said in capsys.readouterr().err
