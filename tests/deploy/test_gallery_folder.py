import errno
import fcntl
import json
import os
import random
import resource
import runpy
import signal
import subprocess
import sys
import threading
import tracemalloc
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from deploy import Gallery, GalleryError
from deploy.gallery.folder import check_place

SCRIPT = Path(__file__).with_name("numbered_galleries.py")
numbered, number_of = map(runpy.run_path(SCRIPT).get, ("numbered", "number_of"))
DIM = 6
KILLED = f"ended by {signal.SIGKILL:d}\n"


def drawn(count, dim=DIM):
    """So many random unit vectors."""
    vectors = np.random.default_rng(0).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def files_of(folder):
    """The files of the only generation there: column -> path."""
    [generation] = folder.glob("generation-*")
    return {path.stem: path for path in generation.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """Gallery number 1, saved."""
    numbered(1).save(tmp_path / "people")
    return tmp_path / "people"


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


def test_what_is_loaded_is_what_was_saved(tmp_path):
    gallery = Gallery("5eed" * 16, DIM, {"far=1e-2": {"threshold": 0.25, "tar": 0.9}, "split": "query"})
    names = ["plain", "with\nlines", "é/中", "of another encoding \udce9", ""]
    gallery.add(drawn(5), names, cameras=[3, -1, 2**40, 0, 3], tags=["red", "", "rötlich", "red", "-"])
    gallery.remove(["plain"])
    gallery.save(tmp_path / "a")
    loaded = Gallery.load(tmp_path / "a", verify=True)
    loaded.save(str(tmp_path / "b"))
    for again in (loaded, Gallery.load(str(tmp_path / "b"))):
        assert (again.fingerprint, again.dim, again.thresholds) == (gallery.fingerprint, DIM, gallery.thresholds)
        assert (again.names, again.tags) == (names[1:], gallery.tags)
        assert again.cameras.tolist() == [-1, 2**40, 0, 3]
        assert again.search(drawn(5), tags=["red", ""]) == gallery.search(drawn(5), tags=["red", ""])


def test_an_empty_gallery_can_be_saved_and_filled_later(tmp_path):
    Gallery("5eed" * 16, DIM).save(tmp_path)
    with Gallery.edit(tmp_path) as gallery:
        assert (len(gallery), gallery.search(drawn(1)), gallery.remove(["a"])) == (0, [[]], 0)
        gallery.add(drawn(1), ["a"])
    assert Gallery.load(tmp_path, verify=True).names == ["a"]


def test_a_loaded_gallery_is_changed_in_memory_and_never_in_its_files(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    gallery = Gallery.load(folder)
    gallery.add(drawn(2), ["1.3", "new"])
    gallery.remove(["1.0", "new"])
    assert gallery.names == [f"1.{i}" for i in (1, 2, *range(4, 21), 3)]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    gallery.save(folder)
    assert Gallery.load(folder, verify=True).names == gallery.names


def test_a_large_gallery_is_loaded_changed_searched_and_saved_without_a_copy_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.gallery.entries.MERGED", 1000)
    rows = drawn(4000, dim=2048)
    gallery = Gallery("5eed" * 16, 2048)
    gallery.add(rows, [str(i) for i in range(4000)])
    expected = gallery.search(rows[:2])
    gallery.save(tmp_path)
    tracemalloc.start()
    loaded = Gallery.load(tmp_path, verify=True)
    loaded.add(rows[:1], ["again"])
    loaded.remove(["3999", "again"])
    assert loaded.search(rows[:2]) == expected
    monkeypatch.setattr("deploy.gallery.entries.BLOCK", 64)
    loaded.save(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 2


def test_numpy_reads_the_columns(folder):
    files = files_of(folder)
    np.testing.assert_array_equal(np.load(files["embeddings"]), np.eye(DIM, dtype=np.float32)[[1] * 21])
    np.testing.assert_array_equal(np.load(files["cameras"], mmap_mode="r"), [1] * 21)


def test_who_loaded_the_old_gallery_goes_on_with_it_when_it_is_replaced(folder):
    old = Gallery.load(folder)
    numbered(2).save(folder)
    assert (number_of(old), number_of(Gallery.load(folder))) == (1, 2)
    assert len(files_of(folder)) == 7


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


def test_a_gallery_replaced_while_it_is_opened_is_loaded_from_its_successor(folder, monkeypatch):
    from deploy.gallery import folder as module
    header = module.read_header(folder)
    numbered(2).save(folder)
    headers = iter([header, module.read_header(folder)])  # as if the save had come between header and columns
    monkeypatch.setattr(module, "read_header", lambda _: next(headers))
    assert number_of(Gallery.load(folder)) == 2


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


def test_a_gallery_in_a_folder_that_cannot_be_opened_is_saved(folder, monkeypatch):
    usual = os.open

    def refuse(path, *arguments):
        if Path(path) == folder.parent:  # as the kernel does for others than root, where it is rwx--x--x
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    numbered(2).save(folder)
    assert number_of(Gallery.load(folder)) == 2


def test_a_disk_that_fails_once_the_gallery_is_replaced_is_told_as_it_is(folder, monkeypatch):
    usual = os.replace

    def replace_and_fail(*paths):
        def fail(_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        usual(*paths)
        monkeypatch.setattr(os, "fsync", fail)

    monkeypatch.setattr(os, "replace", replace_and_fail)
    with pytest.raises(GalleryError, match="Input/output error; a gallery in it is whole, the one before or this one$"):
        numbered(2).save(folder)
    assert number_of(Gallery.load(folder, verify=True)) == 2
    assert len(files_of(folder)) == 7


def test_a_full_disk_keeps_the_old_gallery_and_leaves_nothing_else(folder):
    large = Gallery("5eed" * 16, DIM)
    large.add(drawn(5000), [str(i) for i in range(5000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(GalleryError, match=f"^{folder}: cannot be written: .*File too large; a gallery in it"):
            large.save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert number_of(Gallery.load(folder, verify=True)) == 1
    assert sorted(path.name for path in folder.iterdir())[:2] == ["gallery.json", "gallery.lock"]
    assert len(files_of(folder)) == 7


def test_directories_of_the_user_s_beside_generations_are_left_alone(folder):
    for name in ("generation-2024", "generation-" + "f" * 31, "generation-" + "f" * 33):
        (folder / name).mkdir()
        (folder / name / "photo.jpg").write_bytes(b"?")
    numbered(2).save(folder)
    assert len([*folder.glob("generation-*/photo.jpg")]) == 3


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "generation-x.jpg").write_bytes(b"?")
    with pytest.raises(GalleryError, match="photos: holds other files; give a new or an empty folder$"):
        numbered(1).save(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["generation-x.jpg"]


def test_a_gallery_that_has_no_place_says_why(tmp_path):
    (tmp_path / "file").write_bytes(b"?")
    with pytest.raises(GalleryError, match=f"^{tmp_path}/file: is a file; give a new or an empty folder"):
        numbered(1).save(tmp_path / "file")
    with pytest.raises(GalleryError, match=f"^{tmp_path}/no/such: no folder {tmp_path}/no; make it first$"):
        numbered(1).save(tmp_path / "no" / "such")


COLUMNS = ["embeddings", "names", "name_ends", "cameras", "tags", "vocabulary", "vocabulary_ends"]
REMEDY = "build the gallery again, or take a copy of it$"


@pytest.mark.parametrize("column", COLUMNS)
def test_a_truncated_file_is_refused_by_name(folder, column):
    path = files_of(folder)[column]
    whole = path.read_bytes()
    for size in (len(whole) - 1, 100, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(GalleryError, match=f"^{path}: {len(whole)} bytes expected, got {size}; {REMEDY}"):
            Gallery.load(folder)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_file_is_refused_by_name(folder, column):
    path = files_of(folder)[column]
    path.unlink()
    with pytest.raises(GalleryError, match=f"^{path}: missing; {REMEDY}"):
        Gallery.load(folder)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_byte_is_found_at_load_and_in_embeddings_where_asked(folder, column):
    path = files_of(folder)[column]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    if column == "embeddings":
        assert len(Gallery.load(folder)) == 21
    with pytest.raises(GalleryError, match=f"^{path}: its bytes are not those that were saved; {REMEDY}"):
        Gallery.load(folder, verify=column == "embeddings")


def changed(**gallery):
    def change(text):
        document = json.loads(text)
        document["gallery"] |= gallery
        return json.dumps(document)
    return change


HEADERS = {
    "damaged, or not of a gallery": [lambda text: text[:-9], lambda text: "", lambda text: "[1]", lambda text: "{}",
                                     lambda text: "\x00" * len(text)],
    "kiln-gallery 1 expected, got kiln-gallery 2": [lambda text: text.replace('"version": 1', '"version": 2')],
    "kiln-gallery 1 expected, got kiln-run 1": [lambda text: text.replace("kiln-gallery", "kiln-run")],
    "its text is not what was saved": [changed(fingerprint="beef" * 16), changed(thresholds={"far=1e-2": 0}),
                                       changed(dim=7), lambda text: text.replace("checksum", "checksun")],
}


@pytest.mark.parametrize(("said", "change"), [(said, change) for said in HEADERS for change in HEADERS[said]])
def test_a_changed_header_is_refused_by_name_and_can_be_replaced(folder, said, change):
    path = folder / "gallery.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(GalleryError, match=f"^{path}: {said}; {REMEDY}"):
        Gallery.load(folder)
    numbered(3).save(folder)
    assert number_of(Gallery.load(folder)) == 3


def test_a_folder_without_gallery_is_refused_by_name_and_left_as_it_is(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(GalleryError, match=f"^{place}: no gallery there$"):
            Gallery.load(place)
        with pytest.raises(GalleryError, match=f"^{place}: no gallery there$"), Gallery.edit(place):
            pytest.fail("there is nothing to edit")
    assert list(tmp_path.iterdir()) == []
