"""The archive: what is written is read again, whole or not at all, in every kind of process."""

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import zlib

import lmdb
import numpy as np
import pytest

from data.archive import Meta, Record, open_archive, write_archive
from data.records import DataError
from deploy.archive import records as records_of
from deploy.files import DiskError
from deploy.preprocess import ImageError
from deploy.sealed import COLUMNS, INDEX, SEAL, column_key, record_key

REMEDY = "python -m data.pack folder ROOT"
OPEN_EACH = """
import sys
from data.archive import open_archive
for path in sys.argv[1:]:
    try:
        open_archive(path)
    except ValueError as error:
        print(error)
"""


@pytest.fixture
def written(tmp_path):
    """A path with an archive of twelve records, and those records."""
    rng = np.random.default_rng(0)
    records = [Record(rng.bytes(100 + 900 * i), i % 4 - 1, i % 3, i, f"a/é{i}.jpg") for i in range(12)]
    path = tmp_path / "train.lmdb"
    write_archive(path, iter(records), Meta("folder", "train", ["x", "y", "z"]))
    return path, records


def rewrite(path, key, change):
    """Alter the value under a key, as a user with lmdb at hand could."""
    environment = lmdb.open(str(path), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        value = change(transaction.get(key))
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    environment.close()


def test_an_archive_gives_back_every_record(written):
    path, records = written
    archive = open_archive(path)
    assert (archive.path, archive.source, archive.split, archive.class_names) == (
        path, "folder", "train", ["x", "y", "z"])
    assert len(archive) == 12
    for i, record in enumerate(records):
        assert Record(archive.read(i), archive.labels[i], archive.cameras[i], archive.sequences[i],
                      archive.original_path(i)) == record
    assert {a.dtype for a in (archive.labels, archive.cameras, archive.sequences)} == {np.dtype(np.int64)}


def test_a_number_outside_the_archive_is_an_index_error(written):
    archive = open_archive(written[0])
    for i in (-1, 12):
        with pytest.raises(IndexError, match=f"record {i} of 12"):
            archive.read(i)


def test_an_archive_outgrows_its_first_map(tmp_path):
    image = np.random.default_rng(0).bytes(1 << 20)
    records = (Record(image, 0, -1, -1, f"{i}") for i in range(40))
    assert write_archive(tmp_path / "big.lmdb", records, Meta("folder", "train", ["x"])) == 40
    assert all(open_archive(tmp_path / "big.lmdb").read(i) == image for i in range(40))


def test_two_archives_on_one_file_read_at_once(written, tmp_path):
    path, records = written
    os.link(path, tmp_path / "other_name.lmdb")
    for archive in (open_archive(path), open_archive(path), open_archive(tmp_path / "other_name.lmdb")):
        assert archive.read(3) == records[3].image


def test_an_archive_that_is_packed_again_is_read_on_as_it_was(written):
    path, records = written
    archive = open_archive(path)
    pickled = pickle.dumps(archive)
    write_archive(path, [records[0], records[5], records[6]], Meta("folder", "train", ["x", "y", "z"]))
    assert [archive.read(i) for i in range(12)] == [record.image for record in records]
    assert archive.original_path(11) == records[11].path
    assert open_archive(path).read(1) == records[5].image
    with pytest.raises(DataError, match=r"train\.lmdb: was packed again since it was opened; start again$"):
        pickle.loads(pickled)


def test_an_archive_packed_again_from_the_same_records_is_the_same(written):
    path, records = written
    archive = open_archive(path)
    write_archive(path, records, Meta("folder", "train", ["x", "y", "z"]))
    again = pickle.loads(pickle.dumps(archive))
    assert (again.read(3), archive.original_path(3)) == (records[3].image, records[3].path)


def test_one_file_is_read_by_data_and_by_deploy_in_one_process(written):
    path, records = written
    archive, listed = open_archive(path), records_of(path)
    assert [archive.read(i) for i in range(12)] == [image() for image in listed.images]
    assert [archive.original_path(i) for i in range(12)] == listed.names == [record.path for record in records]
    del archive
    assert listed.images[3]() == open_archive(path).read(3) == records[3].image


def test_an_archive_that_other_code_holds_open_is_told_from_a_damaged_one(written):
    path, _ = written
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False):
        for read, error in ((open_archive, DataError), (records_of, ImageError)):
            with pytest.raises(error, match=r"train\.lmdb: held open by other code of this process; close it there"):
                read(path)
    assert len(open_archive(path)) == 12


def digests(archive, queue):
    queue.put([zlib.crc32(archive.read(i)) for i in range(len(archive))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_what_the_parent_reads(written, method):
    path, records = written
    archive = open_archive(path)
    assert archive.read(1) == records[1].image  # the parent has read before it forks
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    children = [context.Process(target=digests, args=(archive, queue)) for _ in range(2)]
    for child in children:
        child.start()
    found = [queue.get() for _ in children]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert found == [[zlib.crc32(record.image) for record in records]] * 2
    assert archive.read(2) == records[2].image


def test_a_pickled_archive_carries_no_index(written):
    assert len(pickle.dumps(open_archive(written[0]))) < 300


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_writer_that_fails_leaves_nothing(tmp_path, failure):
    def records():
        yield Record(b"x" * (1 << 25), 0, -1, -1, "a.jpg")  # more than is committed at once
        raise failure

    with pytest.raises(failure):
        write_archive(tmp_path / "train.lmdb", records(), Meta("folder", "train", ["x"]))
    assert not list(tmp_path.iterdir())


def test_a_writer_that_fails_leaves_the_old_archive(written):
    path, records = written
    with pytest.raises(DataError, match=r"a\.jpg: label 9, expected -1 \(junk\) or one of 1 classes"):
        write_archive(path, [Record(b"x", 9, -1, -1, "a.jpg")], Meta("folder", "train", ["x"]))
    assert open_archive(path).read(4) == records[4].image
    assert list(path.parent.iterdir()) == [path]


def test_an_archive_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="split train of folder has no image"):
        write_archive(tmp_path / "train.lmdb", [], Meta("folder", "train", []))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "absent" / "train.lmdb"
    with pytest.raises(DiskError, match=rf"{path}: cannot be written: .*No such file"):
        write_archive(path, [Record(b"x", 0, -1, -1, "x")], Meta("folder", "train", ["x"]))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    image = bytes(1 << 20)
    records = [Record(image, 0, -1, -1, f"{i}") for i in range(40)]
    script = ("import pickle, resource, signal, sys\n"
              "from data.archive import Meta, write_archive\n"
              "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 25, 1 << 25))\n"
              "write_archive(sys.argv[1], pickle.load(sys.stdin.buffer), Meta('folder', 'train', ['x']))\n")
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "train.lmdb"], input=pickle.dumps(records),
                          capture_output=True)
    assert b"train.lmdb: cannot be written (" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_is_found_and_named(written):
    path, records = written
    damaged = bytearray(path.read_bytes())
    at = damaged.find(records[7].image[50:80])
    damaged[at] ^= 1
    path.write_bytes(damaged)
    archive = open_archive(path)
    name = r"train\.lmdb: record 000000007 \(a/é7\.jpg\)"
    with pytest.raises(DataError, match=f"{name} is damaged: .*{REMEDY}"):
        archive.read(7)
    assert archive.read(6) == records[6].image


def test_a_record_of_another_length_is_found(written):
    path, _ = written
    rewrite(path, record_key(2), lambda image: image + b"\0")
    with pytest.raises(DataError, match="record 000000002 .*is damaged: its bytes are not those"):
        open_archive(path).read(2)


def test_a_missing_record_is_named(written):
    path, _ = written
    rewrite(path, record_key(2), lambda image: None)
    with pytest.raises(DataError, match=f"record 000000002 .*is missing; .*{REMEDY}"):
        open_archive(path).read(2)


def test_a_truncated_archive_is_refused_by_name(written):
    path, _ = written
    cut = [path.with_name(f"cut{size}.lmdb") for size in (0, 10, 4096, 6000, 8192, 20000)]
    for short in cut:
        short.write_bytes(path.read_bytes()[:int(short.stem[3:])])
    # In a process of its own: the failure guarded against is a SIGBUS.
    done = subprocess.run([sys.executable, "-c", OPEN_EACH, *cut], capture_output=True, text=True, check=True)
    for short, line in zip(cut, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{short}: cut short") and "python -m data.pack" in line


def test_an_archive_truncated_while_in_use_is_refused_by_name(written):
    path, _ = written
    archive = open_archive(path)
    os.truncate(path, 20000)
    with pytest.raises(DataError, match=r"train\.lmdb: cut short, 20000 of \d+ bytes"):
        archive.read(11)


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "notes.lmdb"
    path.write_text("no LMDB at all\n" * 1000)
    with pytest.raises(DataError, match=r"notes\.lmdb: .*no archive.*data\.pack"):
        open_archive(path)
    with pytest.raises(DataError, match=r"absent\.lmdb: No such file.*data\.pack"):
        open_archive(tmp_path / "absent.lmdb")


@pytest.mark.parametrize("key", [INDEX, SEAL, column_key("labels")])
def test_an_index_that_is_missing_is_named(written, key):
    path, _ = written
    rewrite(path, key, lambda value: None)
    with pytest.raises(DataError, match=rf"train\.lmdb: key {key.decode()} is missing; pack it again"):
        open_archive(path)


@pytest.mark.parametrize("name", ["", *COLUMNS])
def test_any_flipped_byte_of_the_index_is_named(written, name):
    path, _ = written
    whole = path.read_bytes()
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as view:
        value = view.get(column_key(name) if name else INDEX)
    for at in range(0, len(value), 7):
        flipped = value[:at] + bytes([value[at] ^ 1]) + value[at + 1:]
        path.write_bytes(whole.replace(value, flipped))  # wherever: lmdb leaves old pages of small values behind
        with pytest.raises(DataError, match=r"train\.lmdb: key index[.a-z_]* is damaged.*data\.pack"):
            open_archive(path).original_path(3)


def test_opening_reads_no_path(written):
    path, records = written
    rewrite(path, column_key("paths"), lambda paths: None)
    archive = open_archive(path)
    assert archive.read(3) == records[3].image
    with pytest.raises(DataError, match=r"train\.lmdb: key index\.paths is missing; pack it again"):
        archive.where(3)


def test_another_version_is_refused_with_both_numbers(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr("data.archive.VERSION", 3)
        write_archive(tmp_path / "a.lmdb", [Record(b"x", 0, -1, -1, "x")], Meta("folder", "train", ["x"]))
    with pytest.raises(DataError, match="version 3, expected kiln-archive version 2; pack it again"):
        open_archive(tmp_path / "a.lmdb")


def test_the_arrays_of_version_1_are_refused_with_the_remedy(written):
    path, _ = written
    arrays = io.BytesIO()
    np.savez(arrays, labels=np.zeros(12, np.int64))
    rewrite(path, INDEX, lambda index: arrays.getvalue())
    rewrite(path, SEAL, lambda seal: zlib.crc32(arrays.getvalue()).to_bytes(4))
    with pytest.raises(DataError, match="index of an earlier version.*, expected kiln-archive version 2; pack it"):
        open_archive(path)
