"""The doctor: every defect that was put into a set is found, and none where there is none."""

import io
import json
import os
import re
import struct
import subprocess
import sys

import pytest
from PIL import ExifTags, Image, ImageOps

from data.archive import Meta, Record, write_archive
from data.checks import CHECKS
from data.doctor import diagnose, main, render
from data.records import DataError
from deploy.preprocess import turned


@pytest.fixture
def write(tmp_path, encoded_image):
    """Write a split of (image, label, camera); an image is bytes, a number of noise, or (number, how it is stored)."""

    def encoded(image):
        if isinstance(image, bytes):
            return image
        return stored(encoded_image(image[0]), image[1]) if isinstance(image, tuple) else encoded_image(image)

    def write_split(split, class_names, *images):
        records = (Record(encoded(image), label, camera, 1, f"{split}/{i}.jpg")
                   for i, (image, label, camera) in enumerate(images))
        write_archive(tmp_path / f"{split}.lmdb", records, Meta("market1501", split, class_names))
        return tmp_path

    return write_split


def stored(image, how):
    """An image stored another way: as "png", the same pixels, as their mirror image, or with an EXIF orientation."""
    out, exif, pixels = io.BytesIO(), Image.Exif(), Image.open(io.BytesIO(image))
    if how == "mirrored":
        pixels = ImageOps.mirror(pixels)
    exif[ExifTags.Base.Orientation] = {"png": 1, "turned": 6, "mirrored": 1}.get(how, how)
    pixels.save(out, "PNG", exif=exif)
    return out.getvalue()


@pytest.fixture
def clean(write):
    """A set in order: two identities to train on, two others to test on, a distractor and junk."""
    write("train", ["a", "b"], (0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 2))
    write("query", ["0000", "x", "y"], (10, 1, 1), (11, 2, 1))
    return write("gallery", ["0000", "x", "y"], (20, 1, 2), (21, 2, 2), (22, 0, 1), (23, -1, 1), (24, 1, 1))


def found(directory):
    return [(finding.level, finding.check, finding.what) for finding in diagnose(directory).findings]


def test_nothing_is_found_in_a_clean_set(clean):
    report = diagnose(clean)
    assert report.healthy and report.findings == []
    assert render(report).endswith("nothing found")


def test_a_set_to_classify_shares_its_classes_with_train(write):
    write("train", ["a", "b"], (0, 0, -1), (1, 0, -1), (2, 1, -1), (3, 1, -1))
    write("val", ["a", "b"], (4, 0, -1))
    assert found(write("test", ["a", "b"], (5, 0, -1), (6, 0, -1))) == []


def test_the_summary_counts_what_was_written(clean):
    gallery = diagnose(clean).splits[2]
    assert gallery._asdict() == {
        "split": "gallery", "images": 5, "identities": 3, "cameras": 2, "junk": 1, "smallest": 1, "median": 1.0,
        "largest": 2, "histogram": {"1": 2, "2-3": 1}}


def test_a_split_of_junk_alone_is_counted(clean, write):
    write("gallery", ["0000", "x", "y"], (20, -1, 2))
    gallery = diagnose(clean).splits[2]
    assert (gallery.identities, gallery.junk, gallery.largest) == (0, 1, 0)


CUT = b"\xff\xd8\xff\xe0 no more of this JPEG"

# (level, check) -> the split that replaces one of the clean set, its class names, its images, what is found
DEFECTS = {
    ("error", "corrupt_records"): (
        "train", ["a", "b"], [(0, 0, 1), (CUT, 0, 2), (2, 1, 1), (3, 1, 2)],
        r"train: 1 corrupt records: .*train\.lmdb: record 000000001 \(train/1\.jpg\): "),
    ("error", "junk_in_train"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 2), (4, -1, 2)],
        r"train: 1 images of label -1: train/4\.jpg"),
    ("error", "leaked_identities"): (
        "gallery", ["0000", "x", "y"], [(20, 1, 2), (21, 2, 2)], r"train and gallery: 1 identities in common: x"),
    ("error", "mixed_packings"): (
        "query", ["x", "y", "z"], [(10, 1, 3), (11, 2, 3)],
        r"query and gallery number their identities differently"),
    ("error", "queries_without_match"): (
        "query", ["0000", "x", "y"], [(10, 2, 2), (11, 2, 2)],
        r"query: no image has a match, all are not in the gallery by another camera, 2 of them by their own alone"),
    ("warning", "queries_without_match"): (
        "query", ["0000", "x", "y"], [(10, 1, 1), (11, 2, 2)],
        r"query: 1 images are not in the gallery by another camera, 1 of them by their own alone: query/1\.jpg"),
    ("warning", "contradictory_labels"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, 2), (0, 1, 1), (3, 1, 2)],
        r"train: 1 images stand under several identities: train/0\.jpg and train/2\.jpg"),
    ("warning", "duplicates_within"): (
        "train", ["a", "b"], [(0, 0, 1), (0, 0, 2), (2, 1, 1), (3, 1, 2), (0, 0, 1)],
        r"train: 2 images are copies of others: train/1\.jpg, train/4\.jpg"),
    ("warning", "duplicates_across"): (
        "train", ["a", "b"], [(0, 0, 1), (20, 0, 2), (2, 1, 1), (3, 1, 2)],
        r"train and gallery: 1 images of gallery are in train too: gallery/0\.jpg"),
    ("warning", "near_duplicates_across"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, 2), (2, 1, 1), ((23, "png"), 1, 2)],
        r"train and gallery: 1 images of gallery look like images of train: gallery/3\.jpg like train/3\.jpg"),
    ("note", "turned"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, 2), (2, 1, 1), ((3, "turned"), 1, 2)],
        r"train: 1 images are stored turned or mirrored, .*: train/3\.jpg"),
    ("warning", "singletons"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, 2), (2, 1, 1)], r"train: 1 identities with one image: b"),
    ("warning", "empty_classes"): (
        "train", ["a", "b", "c"], [(0, 0, 1), (1, 0, 2), (3, 2, 1), (4, 2, 2)],
        r"train: 1 classes without any image: b"),
    ("warning", "cameras"): (
        "train", ["a", "b"], [(0, 0, 1), (1, 0, -1), (2, 1, 1), (3, 1, 2)],
        r"train: 1 of 4 images have no camera: train/1\.jpg"),
}


@pytest.mark.parametrize("defect", DEFECTS, ids=" ".join)
def test_a_defect_is_found_and_nothing_else(clean, write, defect):
    split, class_names, images, what = DEFECTS[defect]
    write(split, class_names, *images)
    if defect[1] == "leaked_identities":
        write("train", ["a", "x"], (0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 2))
        write("query", class_names, (10, 2, 1))  # x is not asked for
    findings = found(clean)
    assert [finding[:2] for finding in findings] == [defect]
    assert re.match(what, findings[0][2])
    assert diagnose(clean).healthy == (defect[0] != "error")


def test_many_defects_are_all_found(write):
    write("train", ["a", "b", "c", "x"], (0, 0, 1), (0, 1, 2), (CUT, 0, 1), (3, 3, -1), (4, -1, 2), (5, 3, 1),
          (5, 3, 2), ((20, "png"), 0, 2), ((6, "turned"), 0, 1))
    write("query", ["x", "y"], (5, 0, 1), (10, 1, 1), (11, 1, 2))
    directory = write("gallery", ["x", "y", "z"], (5, 0, 2), (20, 1, 2))
    assert {check for _, check, _ in found(directory)} == {check for _, check in DEFECTS}


def test_images_are_to_have_a_camera_on_both_sides_or_on_none(clean, write):
    write("gallery", ["0000", "x", "y"], (20, 1, -1), (21, 2, -1))
    assert found(clean) == [("warning", "cameras", "gallery: no image has a camera, those of query have one")]
    write("query", ["0000", "x", "y"], (10, 1, -1), (11, 2, -1))
    assert found(clean) == [("note", "cameras", "query: no image has a camera"),
                            ("note", "cameras", "gallery: no image has a camera")]


def test_a_mirror_image_of_a_training_image_is_found(clean, write):
    write("train", ["a", "b"], (0, 0, 1), (1, 0, 2), (2, 1, 1), ((11, "mirrored"), 1, 2))
    assert found(clean) == [("warning", "near_duplicates_across", "train and query: 1 images of query look like "
                             "mirror images of train: query/1.jpg like train/3.jpg")]


def test_an_orientation_that_turns_nothing_is_not_told(clean, write, encoded_image):
    text, entry = io.BytesIO(), struct.pack("<HHHI4sI", 1, ExifTags.Base.Orientation, 2, 2, b"a", 0)
    Image.open(io.BytesIO(encoded_image(3))).save(text, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + entry)
    assert Image.open(text).getexif()[ExifTags.Base.Orientation] == "a"
    write("train", ["a", "b"], (0, 0, 1), ((1, 0), 0, 2), ((2, 99), 1, 1), (text.getvalue(), 1, 2))
    assert found(clean) == []


def test_a_damaged_tag_spoils_neither_image_nor_progress_bar(clean, write, encoded_image, capfd):
    image = io.BytesIO()
    Image.open(io.BytesIO(encoded_image(1))).save(image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0")  # cut short
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        turned(image.getvalue())
    write("train", ["a", "b"], (0, 0, 1), (image.getvalue(), 0, 2), (2, 1, 1), (3, 1, 2))
    assert found(clean) == []
    assert "EXIF" not in capfd.readouterr().err


def test_a_query_that_looks_like_the_gallery_is_told_where_an_evaluator_compares_them(clean, write):
    write("gallery", ["0000", "x", "y"], ((10, "png"), 1, 1), ((11, "png"), -1, 3), (20, 1, 2), (21, 2, 2))
    assert found(clean) == []  # the query's own camera, and junk
    write("gallery", ["0000", "x", "y"], ((10, "png"), 1, 2), ((11, "png"), 1, 3), (21, 2, 2))
    assert found(clean) == [
        ("warning", "near_duplicates_across",
         "gallery and query: 1 queries look like images of another identity: query/1.jpg like gallery/1.jpg"),
        ("note", "near_duplicates_across",
         "gallery and query: 1 queries look like images that they are to find: query/0.jpg like gallery/0.jpg")]


def test_images_of_one_split_that_look_the_same_are_told_when_asked_for(clean, write):
    write("train", ["a", "b"], (0, 0, 1), ((0, "png"), 0, 2), (2, 1, 1), (3, 1, 2), ((3, "png"), 0, 2))
    assert found(clean) == []
    assert [(finding.level, finding.what) for finding in diagnose(clean, within=True).findings] == [
        ("warning", "train: 1 images look like images of another identity: train/4.jpg like train/3.jpg"),
        ("note", "train: 1 images look like others of their identity: train/1.jpg like train/0.jpg")]


def test_multi_query_belongs_to_the_tested_side(clean, write):
    write("multi_query", ["0000", "x", "y"], (10, 1, 1), (12, 1, 1))  # a query's own image is one of them
    assert found(clean) == []
    write("multi_query", ["a", "x"], (0, 0, 1), (12, 1, 1))
    assert [finding[1:] for finding in found(clean)] == [
        ("mixed_packings", "query and multi_query number their identities differently"),
        ("leaked_identities", "train and multi_query: 1 identities in common: a"),
        ("duplicates_across", "train and multi_query: 1 images of multi_query are in train too: multi_query/0.jpg")]


def test_every_check_is_tried_here():
    tried = {check for _, check in DEFECTS} | {"missing_splits"}
    assert {check.__name__ for check in CHECKS} <= tried


def test_test_images_alone_in_their_class_are_found(write):
    write("train", ["a"], (0, 0, -1), (1, 0, -1))
    directory = write("test", ["b", "c"], (2, 0, -1), (3, 0, -1), (4, 1, -1))
    assert found(directory) == [
        ("warning", "queries_without_match", "test: 1 images are alone in their class: test/2.jpg")]


@pytest.mark.parametrize("left, finding", [
    (["query", "train"], ("error", "missing_splits", "query without gallery")),
    (["gallery", "train"], ("error", "missing_splits", "gallery without query")),
    (["multi_query", "train"], ("error", "missing_splits", "multi_query without query")),
    (["query", "gallery"], ("warning", "missing_splits", "no train")),
    (["train"], ("warning", "missing_splits", "train alone")),
])
def test_a_missing_split_is_found(clean, write, left, finding):
    if "multi_query" in left:
        write("multi_query", ["0000", "x", "y"], (10, 1, 1))
    for path in clean.iterdir():
        if path.stem not in left:
            path.unlink()
    assert found(clean) == [finding]


def test_a_flipped_byte_is_a_corrupt_record(clean, encoded_image):
    path = clean / "train.lmdb"
    whole, image = bytearray(path.read_bytes()), encoded_image(2)
    whole[whole.index(image) + len(image) // 2] ^= 1
    path.write_bytes(whole)
    (level, check, what), = found(clean)
    assert (level, check) == ("error", "corrupt_records")
    assert f"{path}: record 000000002 (train/2.jpg) is damaged" in what


def test_an_archive_that_cannot_be_opened_is_found(clean):
    os.truncate(clean / "gallery.lmdb", 5000)
    (level, check, what), = found(clean)
    assert (level, check) == ("error", "unreadable")
    assert what.startswith(f"{clean / 'gallery.lmdb'}: cut short")


def test_damaged_paths_are_found(clean):
    path = clean / "train.lmdb"
    path.write_bytes(path.read_bytes().replace(b"train/0.jpgtrain/1.jpg", b"train/0.jpgtrain/7.jpg"))
    (level, check, what), = found(clean)
    assert (level, check) == ("error", "unreadable")
    assert what.startswith(f"{path}: key index.paths is damaged")


def test_an_archive_that_kills_its_reader_is_found(clean, write, encoded_image):
    images = [encoded_image(i, (64, 64)) for i in range(2)]  # each too large for the page of its key
    write("gallery", ["0000", "x", "y"], (images[0], 1, 2), (images[1], 2, 2))
    path = clean / "gallery.lmdb"
    # In an LMDB leaf the size of a value stands before its key, with two numbers of two bytes between them.
    too_large = re.compile(rb".{4}(.{4}000000001)", re.DOTALL)
    path.write_bytes(too_large.sub((1 << 30).to_bytes(4, "little") + rb"\1", path.read_bytes()))
    # As a program of its own: pytest would print where in it the worker died.
    done = subprocess.run([sys.executable, "-m", "data.doctor", clean, "--json"], capture_output=True, text=True)
    assert done.returncode == 3
    finding, = json.loads(done.stdout)["findings"]
    assert (finding["check"], finding["what"]) == ("unreadable", f"{path}: damaged between its records")


def test_a_folder_without_archives_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: no archive; make one with python -m data.pack"):
        diagnose(tmp_path)


def test_the_program_tells_by_its_exit_code(clean, write, capsys):
    assert main([str(clean)]) == 0
    assert "nothing found" in capsys.readouterr().out
    write("train", ["a", "b"], (0, 0, 1), (1, 0, 2), (2, 1, 1))
    assert main([str(clean)]) == 0  # a warning
    assert "warning: train: 1 identities with one image: b\n  effect: " in capsys.readouterr().out
    write("train", ["a", "b"], (CUT, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 1))
    assert main([str(clean), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["healthy"] and [finding["check"] for finding in report["findings"]] == ["corrupt_records"]
    assert main([str(clean / "absent")]) == 3
    assert "absent: no archive" in capsys.readouterr().err
