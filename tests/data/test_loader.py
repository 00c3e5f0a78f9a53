"""data.loader with real worker processes: the same batches however many, resumes, signals and the end."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.archive import Meta, Record, open_archive, write_archive
from data.augment import Augment
from data.loader import TrainLoader, evaluation_batches
from data.records import DataError
from data.samplers.pk import PK
from data.samplers.shuffled import Shuffled
from deploy.preprocess import Preprocessing

ROOT = Path(__file__).parents[2]
SIZE = Preprocessing(16, 8)
DAMAGE = r"^[^\n]*damaged\.lmdb: record 000000009 \(9\.jpg\): image bytes: [^\n]*$"
AUGMENT = Augment(SIZE, mirror=True, padding=2, rotation=5.0, random_erasing=True, gaussian_noise=1.0)


@pytest.fixture
def archive(make_archive):
    """23 images of 6 identities."""
    return open_archive(make_archive([number % 6 for number in range(23)]))


@pytest.fixture
def open_loader(archive):
    """Options -> a TrainLoader of batches of 4, closed at the test's end."""
    loaders = []

    def open_loader(workers, archive=archive, sampler=None, start_method=None):
        sampler = sampler or Shuffled(archive.labels, 1, 4)
        loaders.append(TrainLoader(
            archive, sampler, AUGMENT, seed=1, workers=workers, start_method=start_method))
        return loaders[-1]

    yield open_loader
    for loader in loaders:
        loader.close()


def worker_pids():
    return {child.pid for child in multiprocessing.active_children()}


def assert_equal_batches(ours, expected):
    ours, expected = list(ours), list(expected)
    assert len(ours) == len(expected)
    for batch, other in zip(ours, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 3 workers on fewer cores
@pytest.mark.parametrize("workers, start_method", [(1, None), (3, "fork"), (1, "spawn")])
def test_workers_and_how_they_start_change_no_pixel(open_loader, workers, start_method):
    alone, helped = open_loader(0), open_loader(workers, start_method=start_method)
    for epoch in (0, 1):
        assert_equal_batches(helped.epoch(epoch), alone.epoch(epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_goes_on_with_the_same_batches(open_loader, workers):
    unbroken = list(open_loader(0).epoch(5))
    for first in (0, 1, 4, len(unbroken)):
        assert_equal_batches(open_loader(workers).epoch(5, first=first), unbroken[first:])


def test_batches_are_the_samplers_and_the_length_is_theirs(open_loader, archive):
    sampler = PK(archive.labels, 3, P=2, K=3)
    loader = open_loader(0, sampler=sampler)
    batches = list(loader.epoch(2))
    assert len(loader) == len(batches) == 3
    for batch, indices in zip(batches, sampler.batches(2), strict=True):
        assert torch.equal(batch.labels, torch.from_numpy(archive.labels[indices]))


def test_an_image_drawn_twice_in_an_epoch_has_two_variants(open_loader):
    loader = open_loader(0, sampler=PK(np.array([0]), 1, P=1, K=2))
    first, second = next(loader.epoch(0)).images
    assert not torch.equal(first, second)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_are_left_alone(open_loader, workers):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(open_loader(workers).epoch(0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_workers_live_from_epoch_to_epoch_and_end_with_close(open_loader):
    loader = open_loader(2)
    list(loader.epoch(0))
    pids = worker_pids()
    assert len(pids) == 2
    list(loader.epoch(1))
    assert worker_pids() == pids
    loader.close()
    assert not worker_pids()


def test_close_ends_the_workers_of_an_epoch_that_is_still_being_read(open_loader):
    loader = open_loader(1)
    reading = loader.epoch(0)
    next(reading)
    loader.close()
    assert not worker_pids()
    assert list(reading) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_left_does_not_leak_into_the_next(open_loader, workers):
    loader = open_loader(workers)
    left = loader.epoch(0)
    next(left)
    assert_equal_batches(loader.epoch(1), open_loader(0).epoch(1))
    assert list(left) == []


@pytest.fixture
def damaged(encoded_image, tmp_path):
    """23 images, of which number 9 is whole but no image."""
    records = [Record(b"no image" if i == 9 else encoded_image(i), 0, -1, -1, f"{i}.jpg") for i in range(23)]
    write_archive(tmp_path / "damaged.lmdb", records, Meta("folder", "train", ["only"]))
    return open_archive(tmp_path / "damaged.lmdb")


def turn_of(image, archive):
    """The number of the batch of epoch 0 that holds an image."""
    batches = Shuffled(archive.labels, 1, 4).batches(0)
    return next(number for number, batch in enumerate(batches) if image in batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_undecodable_image_ends_its_epoch_in_its_turn_with_one_line(open_loader, damaged, workers):
    loader = open_loader(workers, archive=damaged)
    reading = loader.epoch(0)
    for _ in range(turn_of(9, damaged)):
        next(reading)
    with pytest.raises(DataError, match=DAMAGE):
        next(reading)
    loader.close()
    assert not worker_pids()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resume_does_not_decode_what_it_skips(open_loader, damaged, workers):
    loader = open_loader(workers, archive=damaged)
    first = turn_of(9, damaged) + 1
    assert len(list(loader.epoch(0, first=first))) == len(loader) - first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_leave_the_workers_at_work(open_loader, number):
    loader = open_loader(1)
    reading = loader.epoch(0)
    batches = [next(reading)]
    for pid in worker_pids():
        os.kill(pid, number)
    assert_equal_batches([*batches, *reading], open_loader(0).epoch(0))


MAIN = """
import multiprocessing, sys
from data.archive import open_archive
from data.augment import Augment
from data.loader import TrainLoader
from data.samplers.shuffled import Shuffled
from deploy.preprocess import Preprocessing

archive = open_archive(sys.argv[1])
loader = TrainLoader(
    archive, Shuffled(archive.labels, 1, 4), Augment(Preprocessing(16, 8)), seed=1, workers=2)
next(loader.epoch(0))
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watching another's child needs Linux")
def test_workers_end_when_the_main_process_is_killed(archive):
    command = [sys.executable, "-c", MAIN, str(archive.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as main:
        watched = [os.pidfd_open(int(pid)) for pid in main.stdout.readline().split()]
        main.kill()
    assert len(watched) == 2
    for worker in watched:
        ended, _, _ = select.select([worker], [], [], 60)
        os.close(worker)
        assert ended


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 11, 23, 50])
def test_evaluation_gives_every_image_once_and_in_order(archive, workers, batch_size):
    batches = list(evaluation_batches(archive, SIZE, batch_size=batch_size, workers=workers))
    assert [len(batch.labels) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(torch.cat([batch.labels for batch in batches]), archive.labels)
    expected = np.stack([SIZE(archive.read(number)) for number in range(len(archive))])
    images = torch.cat([batch.images for batch in batches])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), expected)
    assert not worker_pids()


def test_evaluation_names_an_image_that_does_not_decode(damaged):
    with pytest.raises(DataError, match=DAMAGE):
        list(evaluation_batches(damaged, SIZE, batch_size=4, workers=1))
