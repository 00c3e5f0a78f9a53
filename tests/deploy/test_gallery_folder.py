import errno
import json
import os
import resource
import runpy
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from deploy import Gallery, GalleryError
from tests.deploy.inputs import drawn

SCRIPT = Path(__file__).with_name("numbered_galleries.py")
numbered, number_of, files_of = map(runpy.run_path(SCRIPT).get, ("numbered", "number_of", "files_of"))
DIM = 6


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


def test_a_gallery_replaced_while_it_is_opened_is_loaded_from_its_successor(folder, monkeypatch):
    from deploy.gallery import folder as module
    header = module.read_header(folder)
    numbered(2).save(folder)
    headers = iter([header, module.read_header(folder)])  # as if the save had come between header and columns
    monkeypatch.setattr(module, "read_header", lambda _: next(headers))
    assert number_of(Gallery.load(folder)) == 2


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
