import csv
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data.archive import Meta, Record, write_archive
from deploy import ImageError
from deploy.extract import main
from deploy.listing import list_images
from deploy.sealed import COLUMNS
from tests.deploy.inputs import NAMES


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


def test_a_csv_has_names_of_another_encoding_as_they_are_on_the_disk(run, photos):
    (photos / "0.jpg").rename(photos / "0\udce9.jpg")
    code, path = run(photos, output="features.csv")
    assert code == 0
    assert path.read_bytes().splitlines()[1].startswith(b"0\xe9.jpg,")


def test_a_list_names_images_relative_to_itself(run, photos, expected):
    names = ["more/3.JPG", str(photos / "0.jpg")]
    (photos / "list.txt").write_text("\n".join(["", *names, ""]))
    _, path = run(photos / "list.txt")
    with np.load(path) as features:
        assert features["paths"].tolist() == names
        np.testing.assert_allclose(features["embeddings"], expected["embeddings"][[3, 0]], atol=2e-5)


@pytest.fixture
def archive(tmp_path, encoded):
    """The seven images, packed in reverse."""
    path = tmp_path / "query.lmdb"
    records = [Record(image, 0, -1, -1, f"id/{i}é.jpg") for i, image in enumerate(encoded)]
    write_archive(path, reversed(records), Meta("folder", "query", ["one"]))
    return path


def test_an_archive_is_read_in_its_own_order(run, archive, expected):
    code, path = run(archive)
    assert code == 0
    with np.load(path) as features:
        assert features["paths"].tolist() == [f"id/{i}é.jpg" for i in reversed(range(7))]
        np.testing.assert_allclose(features["embeddings"], expected["embeddings"][::-1], atol=2e-5)


@pytest.fixture
def damage(archive, encoded):
    """What is said of record 3, in whose image a byte has changed."""
    whole, image = archive.read_bytes(), encoded[3]
    assert image in whole
    archive.write_bytes(whole.replace(image, image[:-9] + b"?" + image[-8:]))
    return (f"id/3é.jpg: {archive}: key 000000003 is damaged: its bytes are not those that were packed; "
            "pack it again with data.pack")


def test_a_damaged_record_is_refused_by_archive_and_key(run, archive, damage, capsys):
    assert run(archive)[0] == 3
    assert capsys.readouterr().err == f"{damage}; leave such images out with --skip_bad\n"


def test_a_damaged_record_is_left_out_when_asked(run, archive, damage, expected, capsys):
    code, path = run(archive, "--skip_bad")
    assert (code, capsys.readouterr().err) == (0, f"left out: {damage}\n")
    with np.load(path) as features:
        kept = np.delete(expected["embeddings"][::-1], 3, axis=0)
        np.testing.assert_allclose(features["embeddings"], kept, atol=2e-5)


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.95])
def test_a_truncated_archive_is_refused_by_name(run, archive, capsys, fraction):
    whole = archive.read_bytes()
    archive.write_bytes(whole[:int(fraction * len(whole))])
    assert run(archive)[0] == 3
    error = capsys.readouterr().err
    assert error.startswith(f"{archive}: ") and "cut short" in error and error.count("\n") == 1


def test_an_archive_is_listed_as_often_as_wanted_under_any_name(archive, encoded, tmp_path):
    os.link(archive, tmp_path / "other_name.lmdb")
    listings = [list_images(path) for path in (archive, archive, tmp_path / "other_name.lmdb")]
    assert [listing.images[0]() for listing in listings] == [encoded[6]] * 3
    os.truncate(archive, 0)
    with pytest.raises(ImageError, match=r"other_name\.lmdb: cut short, 0 of [0-9]+ bytes; pack it again"):
        listings[2].images[0]()


def test_an_archive_that_is_packed_again_while_it_is_listed_is_read_on(archive, encoded):
    images = list_images(archive).images
    write_archive(archive, [Record(encoded[0], 0, -1, -1, "new")], Meta("folder", "query", ["one"]))
    assert [image() for image in images] == encoded[::-1]
    assert [image() for image in list_images(archive).images] == encoded[:1]


def test_an_archive_that_is_removed_while_it_is_listed_is_told_by_name(archive):
    images = list_images(archive).images
    archive.unlink()
    with pytest.raises(ImageError, match=r"query\.lmdb: No such file or directory; pack it again"):
        images[2]()


def test_an_archive_that_is_cut_short_while_it_is_read_is_refused_by_name(archive):
    images = list_images(archive).images
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(ImageError, match=r"query\.lmdb: cut short, [0-9]+ of [0-9]+ bytes; pack it again"):
        images[2]()


def sealed(index):
    return {b"index": index, b"seal": zlib.crc32(index).to_bytes(4)}


@pytest.mark.parametrize(("values", "said"), [
    ({b"other": b"1"}, "key seal is missing"),
    ({b"index": b"1"}, "key seal is missing"),
    ({b"seal": b"1234"}, "key index is missing"),
    ({b"index": b"1", b"seal": b"1234"}, "key index is damaged: its bytes are not those that were packed"),
    (sealed(b"no JSON"), "the index of an earlier version, or of something else, expected kiln-archive version 2"),
    (sealed(b"PK\x03\x04"), "the index of an earlier version, or of something else"),  # as version 1 begins
    (sealed(b"[]"), "the index of an earlier version, or of something else"),
    (sealed(b'{"format": "kiln-archive", "version": 2}'), "the index of an earlier version, or of something else"),
    (sealed(b'{"format": "kiln-archive", "version": 3}'), "kiln-archive version 3, expected kiln-archive version 2"),
    (sealed(json.dumps({"format": "kiln-archive", "version": 2, "source": "", "split": "", "class_names": [],
                        "columns": dict.fromkeys(COLUMNS, 0)}).encode()), "key index.paths is missing"),
])
def test_a_foreign_index_is_refused_by_name(run, tmp_path, capsys, values, said):
    archive = tmp_path / "query.lmdb"
    with lmdb.open(str(archive), subdir=False, lock=False) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key, value)
    assert run(archive)[0] == 3
    error = capsys.readouterr().err
    assert error.startswith(f"{archive}: {said}") and error.count("\n") == 1


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
    ({"batch_size": "0"}, "argument --batch_size: a whole number from 1 expected, got 0"),
    ({"batch_size": "many"}, "argument --batch_size: a whole number from 1 expected, got many"),
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
