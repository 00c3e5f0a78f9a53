import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.archive import Meta, Record, write_archive
from deploy.extract import main

NAMES = ["0.jpg", "1.jpg", "more/2.JPG", "more/3.JPG", "more/4.JPG", "more/5.JPG", "more/6.JPG"]


@pytest.fixture
def run(model, tmp_path):
    """Run the command on an input: (input, *options) -> (exit code, output path)."""
    def run(source, *options, output="features.npz"):
        path = tmp_path / output
        arguments = [model, source, "--output", path, "--providers", "CPUExecutionProvider", *options]
        return main([str(argument) for argument in arguments]), path
    return run


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_folder_becomes_an_npz_of_all_outputs_in_sorted_order(run, photos, expected):
    code, path = run(photos, "--batch_size", "3")
    assert code == 0
    with np.load(path) as features:
        assert features["paths"].tolist() == NAMES
        assert set(features.files) == {"paths", *expected}
        for name, value in expected.items():
            np.testing.assert_allclose(features[name], value, atol=2e-5)
    assert left_in(path.parent) == ["features.npz"]


def test_a_csv_has_a_row_per_image_and_every_bit_of_the_floats(run, photos):
    _, npz = run(photos)
    code, path = run(photos, output="features.csv")
    assert code == 0
    header, *rows = csv.reader(path.read_text().splitlines())
    assert header == ["path", "e0", "e1", "e2", "e3", "e4", "e5"]
    assert [row[0] for row in rows] == NAMES
    with np.load(npz) as features:
        written = np.array([row[1:] for row in rows]).astype(np.float32)
        np.testing.assert_array_equal(written, features["embeddings"])


def test_a_list_names_images_relative_to_itself(run, photos, expected):
    names = ["more/3.JPG", str(photos / "0.jpg")]
    (photos / "list.txt").write_text("\n".join(["", *names, ""]))
    _, path = run(photos / "list.txt")
    with np.load(path) as features:
        assert features["paths"].tolist() == names
        np.testing.assert_allclose(features["embeddings"], expected["embeddings"][[3, 0]], atol=2e-5)


def test_an_archive_is_read_in_its_own_order(run, tmp_path, encoded, expected):
    archive = tmp_path / "query.lmdb"
    records = [Record(image, 0, -1, -1, f"id/{i}é.jpg") for i, image in enumerate(encoded)]
    write_archive(archive, reversed(records), Meta("folder", "query", ["one"]))
    code, path = run(archive)
    assert code == 0
    with np.load(path) as features:
        assert features["paths"].tolist() == [record.path for record in reversed(records)]
        np.testing.assert_allclose(features["embeddings"], expected["embeddings"][::-1], atol=2e-5)


def test_a_truncated_archive_is_refused_by_name(run, tmp_path, encoded, capsys):
    archive = tmp_path / "query.lmdb"
    records = [Record(image, 0, -1, -1, "x.jpg") for image in encoded]
    write_archive(archive, records, Meta("folder", "query", ["one"]))
    whole = archive.read_bytes()
    archive.write_bytes(whole[:len(whole) // 2])
    assert run(archive)[0] == 2
    assert "query.lmdb: the archive is cut short" in capsys.readouterr().err
    archive.write_bytes(b"no archive at all")
    assert run(archive)[0] == 2
    assert "query.lmdb: not an archive that data.pack wrote" in capsys.readouterr().err


def test_one_image_is_a_listing_of_one(run, photos):
    _, path = run(photos / "0.jpg")
    with np.load(path) as features:
        assert features["paths"].tolist() == ["0.jpg"]


def test_a_bad_image_ends_with_3_and_no_file(run, photos, capsys):
    (photos / "more" / "2.JPG").write_bytes(b"?")
    code, path = run(photos)
    assert code == 3
    error = capsys.readouterr().err.strip()
    assert "more/2.JPG: not an image" in error and error.endswith("--skip_bad") and "\n" not in error
    assert left_in(path.parent) == []


def test_bad_images_are_left_out_when_asked(run, photos, expected, capsys):
    (photos / "more" / "2.JPG").write_bytes(b"?")
    code, path = run(photos, "--skip_bad")
    assert code == 0
    assert "left out: " in capsys.readouterr().err
    with np.load(path) as features:
        assert features["paths"].tolist() == NAMES[:2] + NAMES[3:]
        kept = np.delete(expected["embeddings"], 2, axis=0)
        np.testing.assert_allclose(features["embeddings"], kept, atol=2e-5)


def test_bad_images_alone_are_an_error_also_when_skipped(run, photos, capsys):
    (photos / "bad.txt").write_text("notes.txt")
    assert run(photos / "bad.txt", "--skip_bad")[0] == 3
    assert "every image is bad" in capsys.readouterr().err


def test_a_failing_run_leaves_the_old_file(run, photos):
    code, path = run(photos)
    before = path.read_bytes()
    (photos / "0.jpg").write_bytes(b"?")
    assert run(photos) == (3, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("source", "said"), [
    ("absent", "absent: no such folder or file"),
    ("empty", "empty: no image in it"),
    ("binary", "binary: folder, image, .lmdb archive or text of paths expected"),
])
def test_an_input_without_images_is_refused_by_name(run, tmp_path, capsys, source, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfd")
    code, path = run(tmp_path / source)
    assert code == 2 and not path.exists()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("options", "said"), [
    ({"output": "features.txt"}, ".npz or .csv expected"),
    ({"output": "absent/features.npz"}, "no such folder"),
    ({"batch_size": "0"}, "at least 1 expected"),
])
def test_usage_mistakes_end_with_2(run, photos, capsys, options, said):
    extra = ["--batch_size", options["batch_size"]] if "batch_size" in options else []
    with pytest.raises(SystemExit) as ended:
        run(photos, *extra, output=options.get("output", "features.npz"))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_runs_as_a_module(model, photos, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "deploy.extract", model, photos, "--output", tmp_path / "features.csv"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'features.csv'}: 7 embeddings of 6\n"
    assert "running on" in run.stderr
