"""export.py on real, if briefly trained, runs."""

import io
import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import export
import train
from data.archive import Meta, Record, open_archive, write_archive
from deploy import FeatureExtractor, __version__
from deploy.selftest import replay
from tests.forked import forked
from trainer.proof import TOLERANCES
from trainer.snapshot import load_snapshot, save_snapshot

CPU = ["CPUExecutionProvider"]
PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"
PARAMS = {
    "img_h": 32, "img_w": 16, "epoch": 1, "batch_size": 8, "num_preprocess_workers": 0,
    "model_params": {"backbone": "resnet18", "feature_dim": 16},
    "evaluation_params": {"type": "market_evaluate"},
}


def drawn(identity, view):
    """An image of an identity: its own smooth colours, seen in other noise."""
    colours = np.random.default_rng(identity).integers(40, 216, (4, 2, 3)).astype(np.int16)
    noise = np.random.default_rng([identity, view]).integers(-40, 41, colours.shape)
    encoded = io.BytesIO()
    image = Image.fromarray((colours + noise).astype(np.uint8))
    image.resize((20, 40), Image.Resampling.BICUBIC).save(encoded, "JPEG")
    return encoded.getvalue()


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


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Six identities: train, query, gallery and val."""
    folder = tmp_path_factory.mktemp("archives")
    names = [f"person {i}" for i in range(6)]
    for split, views in {"train": range(4), "query": [4], "gallery": [5, 6], "val": [7, 8]}.items():
        records = [Record(drawn(identity, view), identity, view % 2, -1, f"{identity}/{view}.jpg")
                   for identity in range(6) for view in views]
        write_archive(folder / f"{split}.lmdb", records, Meta("folder", split, names))
    return folder


@pytest.fixture(scope="module")
def make_run(archives, tmp_path_factory):
    """Train a run: keys of params.json -> its folder."""
    def make(**keys):
        folder = tmp_path_factory.mktemp("run")
        (folder / "params.json").write_text(json.dumps(
            PARAMS | {"batches_dir": str(archives), "working_dir": str(folder)} | keys))
        code = train.main(["--operation", "train", "--config_path", str(folder / "params.json"),
                           "--sub_working_dir", "exp1"])
        assert code == 0
        return folder / "exp1"
    return make


@pytest.fixture(scope="module")
def reid_run(make_run):
    return make_run()


@pytest.fixture(scope="module")
def exported(reid_run):
    """The model.onnx of a re-identification run, made by a real process, and what was printed."""
    done = subprocess.run([sys.executable, "export.py", "--run_dir", reid_run],
                          capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    return reid_run / "model.onnx", done.stdout


@pytest.fixture
def run(reid_run, tmp_path):
    """A copy of the run, which a test may spoil."""
    return shutil.copytree(reid_run, tmp_path / "copy", ignore=shutil.ignore_patterns("model.onnx"))


def files_of(run):
    return sorted(path.name for path in run.iterdir())


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


def test_nothing_but_the_file_is_left(exported):
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
    assert "far=1e-3    needs 30000 impostors, has 60" in printed


def test_thresholds_hold_for_what_the_file_says_of_the_images(run, edit, tmp_path, capsys):
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_metric_that_the_file_does_not_reach_leaves_no_file(run, capsys, precision):
    state = load_snapshot(run / "snapshots" / "best.pth")
    state["metrics"]["mAP"] += 0.002
    save_snapshot(run / "snapshots" / "best.pth", state)
    (run / "model.onnx").write_bytes(b"old")
    before = files_of(run)
    assert export.main(["--run_dir", str(run), "--precision", precision]) == 5
    error = capsys.readouterr().err
    assert error.startswith("mAP: ") and "at most 0.001 apart expected" in error and error.count("\n") == 1
    assert (run / "model.onnx").read_bytes() == b"old" and files_of(run) == before


def test_triton_gets_the_next_version_of_a_model_as_the_page_says(follow, reid_run, tmp_path, capsys):
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


def test_a_network_that_has_died_is_not_proven_and_the_old_file_stays(run, capsys):
    state = load_snapshot(run / "snapshots" / "best.pth")
    for name, weight in state["network"].items():
        if ".neck." in name:
            weight.zero_()
    save_snapshot(run / "snapshots" / "best.pth", state)
    (run / "model.onnx").write_bytes(b"old")
    before = files_of(run)
    assert export.main(["--run_dir", str(run)]) == 5
    assert capsys.readouterr().err.startswith("batch of 1: cosine 0.000000")
    assert (run / "model.onnx").read_bytes() == b"old" and files_of(run) == before


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


def test_a_run_without_the_snapshot_ends_with_4(run, capsys):
    (run / "snapshots" / "last.pth").unlink()
    assert export.main(["--run_dir", str(run), "--snapshot", "last"]) == 4
    assert "the run has no last snapshot yet" in capsys.readouterr().err


@pytest.fixture
def edit(run):
    """Change the params that a snapshot of the run holds: edit(which, **keys)."""
    def edit(which, **keys):
        path = run / "snapshots" / f"{which}.pth"
        state = load_snapshot(path)
        state["params"] |= keys
        save_snapshot(path, state)
    return edit


def test_a_run_whose_data_are_gone_ends_with_3(run, edit, capsys, tmp_path):
    edit("best", batches_dir=str(tmp_path / "gone"))
    assert export.main(["--run_dir", str(run)]) == 3
    assert "gone" in capsys.readouterr().err


def test_a_record_that_is_no_image_ends_with_3_and_its_name(run, edit, capsys, tmp_path):
    records = [Record(image, 0, 0, -1, f"{i}.jpg") for i, image in enumerate([drawn(0, 0), b"no image"])]
    write_archive(tmp_path / "query.lmdb", records, Meta("folder", "query", ["one"]))
    edit("best", batches_dir=str(tmp_path))
    assert export.main(["--run_dir", str(run)]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"{tmp_path / 'query.lmdb'}: record 000000001 (1.jpg): ") and error.count("\n") == 1


@pytest.mark.parametrize(("keys", "said"), [
    ({"weight_decay": "much", "momentum": "none"}, "; export it with the Kiln that trained it"),
    ({"preprocess": {"mode": "centre_crop", "resize": 9999}}, "preprocess.resize: "),
    ({"evaluation_params": {"type": "gone.score"}}, 'evaluator "gone.score" cannot be imported'),
])
def test_params_that_hold_elsewhere_only_end_with_2(run, edit, capsys, keys, said):
    edit("best", **keys)
    assert export.main(["--run_dir", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{run}: best snapshot: ") and said in error and error.count("\n") == 1


@pytest.fixture
def own(edit, monkeypatch, tmp_path):
    """Let a snapshot of the run be scored by an evaluator of the user's: own(which, its text)."""
    def own(which, text):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / f"score_{tmp_path.name}.py").write_text(text)  # modules stay imported
        monkeypatch.syspath_prepend(tmp_path)
        edit(which, evaluation_params={"type": f"mine.score_{tmp_path.name}"})
    return own


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_file_is_proven_leaves_the_old_one_alone(run, own, tmp_path, number, code):
    own("best", f"import os\n\n\ndef run_eval(config, predict):\n    os.kill(os.getpid(), {int(number)})\n")
    (run / "model.onnx").write_bytes(b"old")
    before = files_of(run)
    process, output = forked(["export.py", "--run_dir", run], {"PYTHONPATH": str(tmp_path)})
    with output:
        assert output.read() == ""
    process.join()
    assert process.exitcode == code
    assert (run / "model.onnx").read_bytes() == b"old" and files_of(run) == before


@pytest.mark.parametrize(("spoil", "said"), [
    ("resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, -1))", r"\S*onnx: cannot be written: .*File too large\n"),
    ("(run / 'metrics.jsonl').unlink(), (run / 'metrics.jsonl').mkdir()", r"\S*jsonl: .*Is a directory: .*\n"),
], ids=["the disk is full", "the line cannot be written"])
def test_what_fails_after_the_proof_leaves_no_part_of_the_file(run, own, capsys, spoil, said):
    own("best", f"""
import resource
from pathlib import Path
from evaluate.market_evaluate import run_eval as market

def run_eval(config, predict):
    run = Path({str(run)!r})
    {spoil}
    return market({{}}, predict)
""")
    (run / "model.onnx").write_bytes(b"old")
    before, limits = files_of(run), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        assert export.main(["--run_dir", str(run), "--input_format", "float_nchw"]) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.fullmatch(said, capsys.readouterr().err)
    assert (run / "model.onnx").read_bytes() == b"old" and files_of(run) == before


@pytest.mark.parametrize(("arguments", "said"), [
    (["--run_dir", "absent"], "--run_dir absent: no such folder"),
    (["--run_dir", ".", "--output", "absent/model.onnx"], "no such folder absent"),
    (["--run_dir", ".", "--output", "."], "a file expected"),
    (["--run_dir", ".", "--precision", "int4"], "invalid choice: 'int4'"),
    (["--run_dir", ".", "--max_metric_drop", "0.01"], "--max_metric_drop: goes with --precision fp16 or int8"),
    (["--run_dir", ".", "--precision", "int8", "--max_metric_drop", "nan"], "--max_metric_drop nan: a number from 0"),
    (["--run_dir", ".", "--triton_repository", "absent"], "--triton_repository absent: no such folder"),
    (["--run_dir", ".", "--triton_repository", ".", "--output", "a.onnx"], "not allowed with argument"),
    (["--run_dir", ".", "--triton_repository", ".", "--model_name", "a/b"], "--model_name a/b: letters from a to z"),
    (["--run_dir", ".", "--triton_repository", ".", "--model_name", "réid"], "--model_name réid: letters from a to z"),
    (["--run_dir", ".", "--model_name", "reid"], "--model_name: goes with --triton_repository"),
    (["--run_dir", ".", "--input_format", "nchw"], "invalid choice: 'nchw'"),
])
def test_usage_mistakes_end_with_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        export.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
