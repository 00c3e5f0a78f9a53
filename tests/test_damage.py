"""Damaged archives and full disks: the exit code, and what is still there."""

import os
import shutil
import subprocess

import lmdb
import pytest

from deploy.sealed import INDEX
from trainer.snapshot import load_snapshot


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def remove_the_index(path):
    with lmdb.open(str(path), subdir=False, map_size=1 << 30) as environment, environment.begin(write=True) as change:
        change.delete(INDEX)


def test_a_flipped_byte_is_exit_3_and_names_file_and_record(params, train, damaged_archives):
    failed = train("train", params(batches_dir=str(damaged_archives)), "--sub_working_dir", "exp1")
    assert failed.returncode == 3, failed.stderr
    assert f"{damaged_archives}/train.lmdb: record 000000000" in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout


@pytest.mark.parametrize(("damage", "named"), [(cut_in_half, "train.lmdb"), (remove_the_index, "index")])
def test_a_damaged_archive_is_exit_3_and_names_file_and_key(params, train, archives, damage, named):
    damage(archives / "train.lmdb")
    failed = train("train", params(batches_dir=str(archives)), "--sub_working_dir", "exp1")
    assert failed.returncode == 3, failed.stderr
    assert str(archives / "train.lmdb") in failed.stderr
    assert named in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout


@pytest.fixture
def small_disk(tmp_path):
    """A disk that holds three snapshots and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_snapshots_and_says_what_is_full(params, train, small_disk):
    path = params(working_dir=str(small_disk), epoch=1)
    assert train("train", path, "--sub_working_dir", "exp1").returncode == 0
    snapshots = small_disk / "exp1" / "snapshots"
    before = {file.name: load_snapshot(file)["step"] for file in snapshots.glob("*.pth")}
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - 200_000))
    failed = train("resume_train", path, "--set", "epoch=2")
    assert failed.returncode == 5, failed.stdout
    assert f"the disk that holds {small_disk}" in failed.stderr
    assert "is full; free some space" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {file.name: load_snapshot(file)["step"] for file in snapshots.glob("*.pth")} == before
    (small_disk / "ballast").unlink()
    assert train("resume_train", path).returncode == 0
    assert load_snapshot(snapshots / "last.pth")["epoch"] == 2
