"""What export.py refuses, and what it leaves then: the old file, and no part of a new one."""

import re
import resource
import signal

import pytest

import export
from data.archive import Meta, Record, write_archive
from tests.forked import forked
from trainer.snapshot import load_snapshot, save_snapshot

pytestmark = pytest.mark.usefixtures("one_registry")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_metric_that_the_file_does_not_reach_leaves_no_file(run, capsys, precision, files_of):
    state = load_snapshot(run / "snapshots" / "best.pth")
    state["metrics"]["mAP"] += 0.002
    save_snapshot(run / "snapshots" / "best.pth", state)
    (run / "model.onnx").write_bytes(b"old")
    before = files_of(run)
    assert export.main(["--run_dir", str(run), "--precision", precision]) == 5
    error = capsys.readouterr().err
    assert error.startswith("mAP: ") and "at most 0.001 apart expected" in error and error.count("\n") == 1
    assert (run / "model.onnx").read_bytes() == b"old" and files_of(run) == before


def test_a_network_that_has_died_is_not_proven_and_the_old_file_stays(run, capsys, files_of):
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


def test_a_run_without_the_snapshot_ends_with_4(run, capsys):
    (run / "snapshots" / "last.pth").unlink()
    assert export.main(["--run_dir", str(run), "--snapshot", "last"]) == 4
    assert "the run has no last snapshot yet" in capsys.readouterr().err


def test_a_run_whose_data_are_gone_ends_with_3(run, edit, capsys, tmp_path):
    edit("best", batches_dir=str(tmp_path / "gone"))
    assert export.main(["--run_dir", str(run)]) == 3
    assert "gone" in capsys.readouterr().err


def test_a_record_that_is_no_image_ends_with_3_and_its_name(run, edit, capsys, tmp_path, drawn):
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_file_is_proven_leaves_the_old_one_alone(run, own, tmp_path, number, code, files_of):
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
def test_what_fails_after_the_proof_leaves_no_part_of_the_file(run, own, capsys, spoil, said, files_of):
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
