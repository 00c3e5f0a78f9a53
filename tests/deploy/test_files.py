"""Files that appear whole or not at all."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL

import pytest

from deploy import files
from deploy.files import DiskError, replacing, write_whole


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda file: file.write(b"first"))
    write_whole(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=f"{path}: cannot be written: the disk that holds {tmp_path} is full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_another_failure_is_told_with_its_reason(tmp_path):
    with pytest.raises(DiskError, match="cannot be written: .*No such file or directory"):
        write_whole(tmp_path / "no" / "folder" / "file", lambda file: file.write(b""))


def test_many_who_write_one_file_at_once_each_write_it_whole(tmp_path):
    path = tmp_path / "file"

    def fill(byte):
        for _ in range(20):
            write_whole(path, lambda file: [file.write(bytes([byte]) * 10_000) for _ in range(2)], durable=False)
            found = path.read_bytes()
            assert (len(found), len(set(found))) == (20_000, 1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fill, range(8)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_of_killed_writers_one_file_is_left_until_the_next_has_written(tmp_path):
    path = tmp_path / "file"
    killed = ("import os, sys; from pathlib import Path; from deploy.files import write_whole\n"
              "write_whole(Path(sys.argv[1]), lambda file: [file.write(b'half'), os.kill(os.getpid(), 9)])")
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed, path]).returncode == -SIGKILL
        assert [entry.name for entry in tmp_path.iterdir()] == [".file.part"]
    write_whole(path, lambda file: file.write(b"whole"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"whole"


def test_a_file_is_replaced_by_one_that_others_write_by_its_name(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / ".file.part").write_bytes(b"what a killed writer left")
    with pytest.raises(ValueError, match="changed my mind"), replacing(path) as part:
        assert part.read_bytes() == b""
        raise ValueError("changed my mind")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_written_to(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    write_whole(tmp_path / "file", lambda file: file.write(b"whole"))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"whole")]


def test_a_system_without_locks_is_written_to_and_its_files_are_closed_before_they_move(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with replacing(tmp_path / "file") as part:
        part.write_bytes(b"whole")
    write_whole(tmp_path / "other", lambda file: file.write(b"whole too"))
    with pytest.raises(DiskError, match="disk .* is full"):
        write_whole(tmp_path / "file", failing(errno.ENOSPC))
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"whole", "other": b"whole too"}


def test_an_error_after_the_file_is_in_its_place_leaves_the_next_writer_alone(tmp_path, monkeypatch):
    path, part = tmp_path / "file", tmp_path / ".file.part"
    replace = os.replace

    def replace_then_fail(*places):
        replace(*places)
        part.write_bytes(b"of the next writer")
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))

    monkeypatch.setattr(os, "replace", replace_then_fail)
    with pytest.raises(DiskError, match="Interrupted"):
        write_whole(path, lambda file: file.write(b"whole"))
    assert (path.read_bytes(), part.read_bytes()) == (b"whole", b"of the next writer")


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))
    return fail
