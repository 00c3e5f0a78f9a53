"""Several who save a gallery at the same time, are killed, or wait for each other."""

import fcntl
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from deploy import Gallery, GalleryError
from deploy.gallery.folder import check_place
from tests.deploy.inputs import drawn

SCRIPT = Path(__file__).with_name("numbered_galleries.py")
numbered, number_of, files_of = map(runpy.run_path(SCRIPT).get, ("numbered", "number_of", "files_of"))
KILLED = f"ended by {signal.SIGKILL:d}\n"


@pytest.fixture
def process():
    """Start the script of numbered galleries, with pipes to it."""
    started = []

    def start(*arguments):
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([sys.executable, SCRIPT, *arguments], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                                        start_new_session=True))
        return started[-1]

    yield start
    for each in started:
        with suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)  # and what it has started
        each.communicate()


def tell(process, *words):
    print(*words, file=process.stdin, flush=True)


def test_a_save_killed_before_any_of_its_steps_leaves_the_old_gallery_or_the_new_one(folder, process):
    host = process()
    step, seen, ended = 0, [], KILLED
    while ended == KILLED:
        tell(host, "save_until", folder, 2, step)
        ended = host.stdout.readline()
        seen.append(number_of(Gallery.load(folder, verify=True)))
        step += 1
    assert ended == f"ended by {signal.SIGTERM:d}\n"
    assert seen == sorted(seen) and set(seen) == {1, 2} and len(seen) > 25
    assert len(files_of(folder)) == 7  # what the killed ones left is gone


@pytest.mark.parametrize("step", [2, 6])
def test_a_first_save_that_is_killed_leaves_no_gallery_and_the_next_one_succeeds(tmp_path, process, step):
    host = process()
    tell(host, "save_until", tmp_path / "new", 1, step)
    assert host.stdout.readline() == KILLED
    with pytest.raises(GalleryError, match=r"new: no gallery there$"):
        Gallery.load(tmp_path / "new")
    numbered(2).save(tmp_path / "new")
    assert number_of(Gallery.load(tmp_path / "new", verify=True)) == 2
    assert len(files_of(tmp_path / "new")) == 7


def test_readers_see_whole_galleries_while_writers_are_killed_at_random_moments(folder, process):
    host, readers = process(), [process(folder), process(folder)]
    assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 2
    draw, number = random.Random(0), 1
    for _ in range(8):
        tell(host, "save_on", folder, number + 1)
        writer = int(host.stdout.readline())
        for _ in range(draw.randrange(4)):
            number = int(host.stdout.readline())  # it is saved
        for _ in range(draw.randrange(4)):
            number_of(Gallery.load(folder))  # let it come some way with the next
        os.kill(writer, signal.SIGKILL)
        told = [number, *map(int, iter(host.stdout.readline, KILLED))]
        number = number_of(Gallery.load(folder, verify=True))
        assert number in (told[-1], told[-1] + 1)  # what was told to be saved is there
    for reader in readers:
        tell(reader, "stop")
        printed, error = reader.communicate()
        assert reader.returncode == 0, error
        loads, versions = map(int, printed.split())
        assert loads >= versions > 1
    numbered(number).save(folder)
    assert len(files_of(folder)) == 7


def in_threads(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_several_that_save_the_last_one_s_gallery_stays_whole(folder):
    def save(numbers):
        return lambda: [numbered(number).save(folder) for number in numbers]

    in_threads(save(range(10, 20)), save(range(20, 30)), save(range(30, 40)))
    assert number_of(Gallery.load(folder, verify=True)) in (19, 29, 39)
    assert len(files_of(folder)) == 7


def test_no_edit_is_lost_among_several(folder):
    def edit(name):
        def each():
            for i in range(8):
                with Gallery.edit(folder) as gallery:
                    gallery.add(drawn(1), [f"{name}{i}"])
        return each

    in_threads(edit("a"), edit("b"), edit("c"))
    assert len(Gallery.load(folder)) == 21 + 3 * 8


def test_an_edit_that_fails_saves_nothing(folder):
    with pytest.raises(OSError, match="^of the block$"), Gallery.edit(folder) as gallery:
        gallery.remove(["1.1"])
        raise OSError("of the block")
    assert number_of(Gallery.load(folder)) == 1


def test_a_thread_that_edits_a_folder_twice_is_told_so_and_can_go_on(folder):
    (folder.parent / "link").symlink_to(folder)
    told = f"^{folder.parent}/(people|link): this thread is editing it; let it be saved by the end of that block$"
    with Gallery.edit(folder) as gallery:
        gallery.add(drawn(1), ["new"])
        for again in (folder, folder.parent / "link"):
            with pytest.raises(GalleryError, match=told):
                gallery.save(again)
            with pytest.raises(GalleryError, match=told), Gallery.edit(again):
                pytest.fail("this would wait for itself")
        gallery.save(folder.parent / "copy")
    gallery.save(folder)
    for place in (folder, folder.parent / "copy"):
        assert "new" in Gallery.load(place)


def test_a_child_forked_in_an_edit_does_not_keep_others_out_after_it(folder):
    stop, tell_stop = os.pipe()
    with Gallery.edit(folder):
        child = os.fork()
        if not child:
            os.close(tell_stop)
            os.read(stop, 1)  # until the other end is closed
            os._exit(0)
    try:
        with (folder / "gallery.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(tell_stop)
        os.waitpid(child, 0)
        os.close(stop)


def test_two_may_make_the_first_gallery_of_a_folder_at_the_same_time(tmp_path):
    made = set()
    for line in count():  # of the look at the folder, before which the other one saves
        folder, lines = tmp_path / str(line), iter(range(line))

        def watch(frame, event, _, folder=folder, lines=lines):
            if frame.f_code is not check_place.__code__:
                return None
            if event == "line" and next(lines, None) is None and folder not in made:
                made.add(folder)
                numbered(1).save(folder)
            return watch

        sys.settrace(watch)
        try:
            numbered(2).save(folder)
        finally:
            sys.settrace(None)
        assert number_of(Gallery.load(folder)) == 2
        if folder not in made:
            break
    assert len(made) > 2
