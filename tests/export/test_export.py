"""export.py on real, if briefly trained, runs."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import export
from data.archive import Meta, Record, open_archive, write_archive
from deploy import FeatureExtractor, __version__
from deploy.selftest import replay
from trainer.proof import TOLERANCES
from trainer.snapshot import load_snapshot

pytestmark = pytest.mark.usefixtures("one_registry")
CPU = ["CPUExecutionProvider"]
PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def example(heading, language):
    """The one example in a language below a heading of the page about deployment."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (text,) = [text for name, text in re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL) if name == language]
    return text


@pytest.fixture
def follow(reid_run, tmp_path, monkeypatch):
    """Run a command line of the page, where runs/exp1 is the run; its exit code."""
    def follow(line):
        (tmp_path / "runs").mkdir(exist_ok=True)
        if not (tmp_path / "runs" / "exp1").exists():
            (tmp_path / "runs" / "exp1").symlink_to(reid_run)
        monkeypatch.chdir(tmp_path)
        python, script, *arguments = shlex.split(line)
        assert (python, script) == ("python", "export.py")
        return export.main(arguments)
    return follow


def test_an_exported_file_replays_its_golden_vectors(exported):
    path, _ = exported
    extractor = FeatureExtractor(path, providers=CPU)
    result = replay(extractor)
    assert result.passed and result.images == result.same_pixels == 4
    assert (extractor.dim, extractor.height, extractor.width) == (16, 32, 16)


def test_the_file_says_where_it_comes_from(exported):
    path, _ = exported
    said = FeatureExtractor(path, providers=CPU).metadata
    state = load_snapshot(path.parent / "snapshots" / "best.pth")
    assert said["kiln_version"] == __version__
    assert (said["epoch"], said["step"], said["metrics"]) == (1, state["step"], state["metrics"])
    assert len(said["params_digest"]) == len(said["fingerprint"]) == 64
    assert said["precision"] == "fp32"
    assert "class_names" not in said


def test_the_proof_is_printed(exported):
    path, printed = exported
    lines = printed.splitlines()
    assert lines[0] == f"{path}: best snapshot of epoch 1, fp32"
    assert lines[1] == "outputs: embeddings 16"
    assert [line.split()[0] for line in lines[2:]] == [
        "batch", "1", "2", "3", "7", "16", "metric", "mAP", "level", "far=1e-2", "far=1e-3", "far=1e-4", "pairs:"]
    assert all(float(line.split()[1]) >= 0.9999 for line in lines[3:8])
    _, snapshot, file = lines[9].split()
    assert abs(float(snapshot) - float(file)) <= 1e-3


def test_nothing_but_the_file_is_left(exported, files_of):
    path, _ = exported
    left = [name for name in files_of(path.parent) if "onnx" in name]
    assert left == ["model.onnx"]


def test_a_classifier_ships_logits_and_the_names_of_its_classes(make_run, archives, tmp_path):
    run = make_run(evaluation_params={"type": "classification_evaluate"}, ema_decay=0.5)
    output = tmp_path / "classifier.onnx"
    options = ["--output", str(output), "--input_format", "float_nchw", "--snapshot", "last"]
    assert export.main(["--run_dir", str(run), *options]) == 0
    extractor = FeatureExtractor(output, providers=CPU)
    assert extractor.metadata["class_names"] == [f"person {i}" for i in range(6)]
    val = open_archive(archives / "val.lmdb")
    logits = extractor.outputs(val.read(i) for i in range(len(val))).logits
    top1 = float(np.mean(logits.argmax(axis=1) == val.labels))
    assert top1 == pytest.approx(load_snapshot(run / "snapshots" / "last.pth")["metrics"]["top1"])
    assert replay(extractor).passed
    assert "thresholds" not in extractor.metadata
    assert export.main(["--run_dir", str(run), *options, "--precision", "int8", "--max_metric_drop", "0.3"]) == 0
    lower = FeatureExtractor(output, providers=CPU)
    assert (lower.metadata["precision"], lower.metadata["class_names"]) == ("int8", extractor.metadata["class_names"])
    said = lower.outputs(val.read(i) for i in range(len(val)))
    assert 0 < np.abs(said.logits - logits).max() < 0.25 * np.abs(logits).max()


def test_thresholds_say_what_they_need_where_the_pairs_are_too_few(exported):
    path, printed = exported
    assert FeatureExtractor(path, providers=CPU).metadata["thresholds"] == {
        "far=1e-2": {"needs": 3000, "has": 60}, "far=1e-3": {"needs": 30000, "has": 60},
        "far=1e-4": {"needs": 300000, "has": 60},
        "genuine": 6, "impostors": 60, "split": "query against gallery"}
    assert "far=1e-3    needs 30,000 impostor pairs, has 60" in printed


def test_thresholds_hold_for_what_the_file_says_of_the_images(run, edit, tmp_path, capsys, drawn):
    views = {"query": range(5), "gallery": range(5, 26)}
    for split, seen in views.items():
        records = [Record(drawn(identity, view), identity, -1, -1, f"{identity}/{view}.jpg")
                   for identity in range(6) for view in seen]
        write_archive(tmp_path / f"{split}.lmdb", records, Meta("folder", split, ["one"] * 6))
    edit("last", batches_dir=str(tmp_path))
    assert export.main(["--run_dir", str(run), "--snapshot", "last"]) == 0
    extractor = FeatureExtractor(run / "model.onnx", providers=CPU)
    query, gallery = (extractor.extract(drawn(identity, view) for identity in range(6) for view in seen)
                      for seen in views.values())
    said = extractor.metadata["thresholds"]
    assert (said["genuine"], said["impostors"]) == (6 * 5 * 21, 30 * 5 * 21)
    assert said["far=1e-3"] == {"needs": 30000, "has": 3150}
    level = said["far=1e-2"]
    same = np.arange(30)[:, None] // 5 == np.arange(126) // 21
    accepted = query @ gallery.T >= level["threshold"]
    assert level["far"] == pytest.approx(accepted[~same].mean(), abs=2 / 3150)  # cosines are float32 here
    assert level["tar"] == pytest.approx(accepted[same].mean(), abs=2 / 630)
    assert 0 < level["far"] <= 0.01 < level["tar"]
    assert f"far=1e-2    {level['threshold']:>12.6f}" in capsys.readouterr().out
    exec(example("Operating threshold", "python"), seen := {"extractor": extractor, "embeddings": query})
    assert seen["same"].shape == (30, 30) and seen["same"].diagonal().all()


def test_triton_gets_the_next_version_of_a_model_as_the_page_says(follow, reid_run, tmp_path, capsys, files_of):
    (tmp_path / "repository").mkdir()
    before = files_of(reid_run)
    files = set(example("NVIDIA Triton", "").split())
    for version in ("1", "2"):
        assert follow(example("NVIDIA Triton", "bash")) == 0
        path = Path("repository", "reid", version, "model.onnx")
        assert capsys.readouterr().out.startswith(f"{path}: best snapshot")
        assert replay(FeatureExtractor(path, providers=CPU)).passed
        files.add(str(path))
        assert {str(path) for path in Path("repository").rglob("*") if path.is_file()} == files
    assert files_of(reid_run) == before
    lines = (reid_run / "metrics.jsonl").read_text().splitlines()[-2:]
    assert [json.loads(line)["export"] for line in lines] == ["reid/1/model.onnx", "reid/2/model.onnx"]


@pytest.mark.parametrize(("precision", "size"), [("fp16", 0.5), ("int8", 0.25)])
def test_a_file_of_lower_precision_says_so_and_what_it_costs(follow, reid_run, exported, capsys, precision, size):
    (line,) = [line for line in example("Lower precision", "bash").splitlines() if precision in line]
    path = Path(f"{precision}.onnx")
    line = line.replace(" --max_metric_drop 0.01", "") + " --max_metric_drop 0.2"  # a rank is much on six queries
    assert follow(line) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.startswith(f"{path}: best snapshot of epoch 1, {precision}\n")
    assert sorted(name.name for name in Path().iterdir()) == [path.name, "runs"]
    exact = FeatureExtractor(exported[0], providers=CPU)
    extractor = FeatureExtractor(path, providers=CPU)
    said = extractor.metadata
    assert said["precision"] == precision and said["fingerprint"] != exact.metadata["fingerprint"]
    assert said["golden"]["least_cosine"] == TOLERANCES[precision].replayed and replay(extractor).passed
    assert said["thresholds"]["genuine"] == 6 and said["kept"] == {}
    labels = [line[:12] for line in example("Lower precision", "").splitlines()]
    head, megabytes, *_, kept = [line for line in printed.out.splitlines() if line[:12] in labels]
    assert labels == [head[:12], "megabytes   ", "ms, batch 1 ", "ms, batch 32", kept[:12]]
    assert kept == "layers left in float32: 0 of 21"
    assert float(megabytes.split()[3]) == pytest.approx(path.stat().st_size / exported[0].stat().st_size, abs=0.01)
    assert float(megabytes.split()[3]) == pytest.approx(size, abs=0.01)
    line = json.loads((reid_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert (line["export"], line["precision"], line["metrics"]) == (path.name, precision, said["file_metrics"])
    assert f"{line['cosine']:.7f}" in printed.out
    cost = line["cost"]
    assert (cost["kept"], cost["layers"], list(cost["seconds"])) == ({}, 21, ["1", "32"])
    assert f"{cost['bytes'][0] / 1e6:.2f} {cost['bytes'][1] / 1e6:.2f}".split() == megabytes.split()[1:3]


def test_an_evaluator_of_the_users_may_give_numpys_numbers_and_a_search(run, own):
    own("last", """
from evaluate.market_evaluate import run_eval as market
from evaluate.protocol import evaluator, scored_of

@evaluator(logits=False)
def run_eval(config, predict):
    mean = abs(predict("val").embeddings).mean()
    return scored_of(market)({}, predict)._replace(values={}, others={"mean": mean})
""")
    assert export.main(["--run_dir", str(run), "--snapshot", "last"]) == 0
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["export"] == "model.onnx" and 0 < line["metrics"]["mean"] < 1
    thresholds = FeatureExtractor(run / "model.onnx", providers=CPU).metadata["thresholds"]
    assert (thresholds["genuine"], thresholds["impostors"]) == (6, 60)
