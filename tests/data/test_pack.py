"""Pack: a set becomes archives, whole or not at all, and what is wrong with it is named."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from data.archive import open_archive
from data.pack import main


@pytest.fixture
def market(tmp_path, encoded_image):
    """A Market-1501 of nine images, one of them junk among the training images."""
    names = ("bounding_box_train/0002_c1s1_000001_00.jpg", "bounding_box_train/0002_c2s1_000001_00.jpg",
             "bounding_box_train/0007_c1s1_000001_00.jpg", "bounding_box_train/-1_c1s1_000001_00.jpg",
             "query/0005_c1s1_000001_00.jpg", "bounding_box_test/0005_c2s1_000001_00.jpg",
             "bounding_box_test/0000_c2s1_000001_00.jpg", "bounding_box_test/-1_c6s1_000001_00.jpg",
             "bounding_box_test/0009_c2s4_000001_00.jpg")
    for seed, name in enumerate(names):
        path = tmp_path / "market" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(seed))
    return tmp_path / "market"


@pytest.fixture
def pack(tmp_path, capsys):
    """Run the program with one worker -> (exit code, stdout, stderr)."""

    def run(source, root, *options):
        try:
            code = main([source, str(root), str(tmp_path / "out"), "--workers", "1", *options])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def test_market_becomes_three_archives(market, pack, tmp_path):
    code, table, _ = pack("market1501", market)
    assert code == 0
    assert [line.split() for line in table.splitlines()] == [
        ["split", "images", "identities", "cameras"], ["train", "3", "2", "2"], ["query", "1", "1", "1"],
        ["gallery", "4", "3", "2"], "train: 1 junk images left out".split()]
    train, query, gallery = (open_archive(tmp_path / "out" / f"{split}.lmdb")
                             for split in ("train", "query", "gallery"))
    assert train.class_names == ["0002", "0007"] and train.labels.tolist() == [0, 0, 1]
    assert gallery.class_names == query.class_names == ["0000", "0005", "0009"]
    assert query.labels.tolist() == [1] and gallery.labels.tolist() == [-1, 0, 1, 2]
    assert gallery.cameras.tolist() == [6, 2, 2, 2] and gallery.sequences.tolist() == [1, 1, 1, 4]


def test_images_are_stored_as_they_are(market, pack, tmp_path):
    pack("market1501", market)
    train = open_archive(tmp_path / "out" / "train.lmdb")
    for i in range(len(train)):
        assert train.read(i) == (market / train.original_path(i)).read_bytes()


def test_two_workers_pack_what_one_does(market, pack, tmp_path):
    pack("market1501", market)
    alone = (tmp_path / "out" / "gallery.lmdb").read_bytes()
    assert pack("market1501", market, "--overwrite", "--workers", "2")[0] == 0
    assert (tmp_path / "out" / "gallery.lmdb").read_bytes() == alone


CORRUPT = {
    "cut": lambda image: image[:len(image) // 2],
    "empty": lambda image: b"",
    "text": lambda image: b"<html>404 not found</html>",
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_image_is_named_and_leaves_nothing(market, pack, tmp_path, kind):
    victim = market / "bounding_box_test" / "0005_c2s1_000001_00.jpg"
    victim.write_bytes(CORRUPT[kind](victim.read_bytes()))
    code, table, errors = pack("market1501", market)
    assert (code, table) == (3, "")
    assert errors.splitlines()[-1].startswith(f"{victim}: ") and "--skip_corrupt" in errors
    assert not list((tmp_path / "out").iterdir())


def test_corrupt_images_can_be_left_out_and_are_listed(market, pack, tmp_path):
    victim = market / "bounding_box_train" / "0002_c1s1_000001_00.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    code, table, errors = pack("market1501", market, "--skip_corrupt")
    assert code == 0 and f"  {victim}: " in errors
    report = json.loads((tmp_path / "out" / "pack.json").read_text())
    assert [entry["file"] for entry in report["skipped"]] == [str(victim)]
    assert report["splits"]["train"] == {
        "images": 2, "identities": 2, "cameras": 2, "junk": 0, "junk_left_out": 1}
    assert open_archive(tmp_path / "out" / "train.lmdb").labels.tolist() == [0, 1]


def test_a_set_of_which_nothing_is_left_is_refused(market, pack):
    victim = market / "query" / "0005_c1s1_000001_00.jpg"
    victim.write_bytes(b"")
    code, _, errors = pack("market1501", market, "--skip_corrupt")
    assert code == 3 and "split query of market1501 has no image" in errors


def test_archives_that_are_there_are_kept_unless_told(market, pack, tmp_path):
    pack("market1501", market)
    before = (tmp_path / "out" / "train.lmdb").stat().st_ino
    code, _, errors = pack("market1501", market)
    assert code == 2 and f"{tmp_path / 'out'}: holds train.lmdb, query.lmdb, gallery.lmdb already" in errors
    assert (tmp_path / "out" / "train.lmdb").stat().st_ino == before


def test_overwriting_leaves_no_split_of_the_old_set(market, pack, tmp_path, encoded_image):
    pack("market1501", market)
    for i in range(4):
        path = tmp_path / "classes" / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(i, kind="PNG"))
    code, _, _ = pack("folder", tmp_path / "classes", "--overwrite", "--holdout", "0.25")
    assert code == 0
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["pack.json", "train.lmdb", "val.lmdb"]
    assert json.loads((tmp_path / "out" / "pack.json").read_text())["options"] == {"holdout": 0.25}


@pytest.mark.parametrize("arguments, message", [
    (["nowhere", "in", "out"], "invalid choice: 'nowhere'"),
    (["folder", "in", "out", "--holdout", "1.5"], "--holdout: input should be less than 1, got 1.5"),
    (["cub200", "in", "out", "--split", "a"], "--split: input should be 'classes' or 'official', got a"),
    (["market1501", "in", "out", "--holdout", "0.1"], "unrecognized arguments: --holdout"),
    (["folder", "in", "out", "--workers", "0"], "a whole number from 1 expected, got 0"),
])
def test_a_mistake_of_usage_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def opened_by_reader(process, pipe):
    """The writing end of a pipe, once the process has opened the other."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    raise AssertionError(process.communicate())


@pytest.fixture
def blocked(market, tmp_path):
    """A pack that waits for its query image, which is a pipe; and the end that the image should come from."""
    pipe = market / "query" / "0005_c1s1_000001_00.jpg"
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "data.pack", "market1501", market, tmp_path / "out", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield process, opened_by_reader(process, pipe)
    process.kill()
    process.communicate()


def test_a_killed_pack_leaves_only_what_the_next_one_removes(blocked, market, pack, tmp_path, encoded_image):
    process, writer = blocked
    process.kill()
    process.communicate()  # until the workers, who hold its pipes too, have ended as well
    os.close(writer)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".packing"]
    query = market / "query" / "0005_c1s1_000001_00.jpg"
    query.unlink()
    query.write_bytes(encoded_image(0))
    assert pack("market1501", market)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "gallery.lmdb", "pack.json", "query.lmdb", "train.lmdb"]


def test_an_interrupted_pack_leaves_nothing(blocked, tmp_path, encoded_image):
    process, writer = blocked
    process.send_signal(signal.SIGINT)
    os.write(writer, encoded_image(0))  # an empty image would be told as corrupt, were it read before the signal
    os.close(writer)
    assert process.wait() == 130
    assert process.stderr.read().decode().splitlines()[-1].startswith("query: ")
    assert not list((tmp_path / "out").iterdir())


def test_two_packs_into_one_folder_are_refused(blocked, market, pack, tmp_path):
    code, _, errors = pack("market1501", market)
    os.close(blocked[1])
    assert code == 2 and f"{tmp_path / 'out'}: another process packs into it" in errors
    assert (tmp_path / "out" / ".packing" / "train.lmdb").exists()
