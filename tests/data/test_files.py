"""Files that appear whole or not at all."""

import pytest

from data.files import DiskError, write_whole


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
