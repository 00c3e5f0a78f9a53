"""A set that a CSV file lists, and each mistake in it named by file and line."""

import pytest

from data.archive import open_archive
from data.pack import main
from data.records import DataError
from data.sources import Item

HEADER = "path,label,split,camera,sequence"
ROWS = ["b/2.jpg,ann,train,1,4", "a/1.jpg,ann,train,2,-1", "a/3.jpg,-1,train,1,1", "a/4.jpg,bob,query,1,1",
        "a/5.jpg,bob,gallery,2,1", "a/6.jpg,-1,gallery,2,1", '"a/seven, 7.jpg",cid,gallery,2,1', "a/8.jpg,ann,val,1,1"]


@pytest.fixture
def write(tmp_path, encoded_image):
    """Write the file, and every image that it names unless it is told otherwise -> the file."""

    def make(rows=ROWS, header=HEADER, images=None, encoding="utf-8"):
        names = [row.rsplit(",", header.count(","))[0].strip('"') for row in rows] if images is None else images
        for seed, name in enumerate(names):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded_image(seed))
        file = tmp_path / "set" / "images.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
        return file

    return make


def test_csv_gives_the_splits_that_it_names_in_the_order_of_their_paths(write, read):
    splits = read("csv", write())
    assert {name: list(split.items) for name, split in splits.items()} == {
        "train": [Item("a/1.jpg", "ann", 2), Item("b/2.jpg", "ann", 1, 4)],
        "query": [Item("a/4.jpg", "bob", 1, 1)],
        "gallery": [Item("a/5.jpg", "bob", 2, 1), Item("a/6.jpg", None, 2, 1), Item("a/seven, 7.jpg", "cid", 2, 1)],
        "val": [Item("a/8.jpg", "ann", 1, 1)]}
    assert {name: split.left_out for name, split in splits.items()} == {"train": 1, "query": 0, "gallery": 0, "val": 0}


def test_csv_numbers_query_and_gallery_alike_and_val_as_train(write, read):
    splits = read("csv", write())
    assert splits["query"].class_names == splits["gallery"].class_names == ["bob", "cid"]
    assert splits["train"].class_names == splits["val"].class_names == ["ann"]


def test_csv_of_new_classes_to_test_on_numbers_them_by_themselves(write, read):
    splits = read("csv", write(["1.jpg,ann,train", "2.jpg,bob,test", "3.jpg,cid,test"], "path,label,split"))
    assert list(splits["test"].class_names) == ["bob", "cid"]
    assert splits["test"].items[0] == Item("2.jpg", "bob", -1, -1)


def test_csv_may_order_its_columns_and_begin_with_a_byte_order_mark(write, read):
    file = write(["train,ann,3,1.jpg"], "split,label,camera,path", images=["1.jpg"], encoding="utf-8-sig")
    assert list(read("csv", file)["train"].items) == [Item("1.jpg", "ann", 3)]


def test_csv_is_packed_by_its_file_or_its_folder(write, tmp_path):
    file = write()
    for root in (file, file.parent):
        assert main(["csv", str(root), str(tmp_path / "out"), "--workers", "1", "--overwrite"]) == 0
        gallery = open_archive(tmp_path / "out" / "gallery.lmdb")
        assert gallery.labels.tolist() == [0, -1, 1]
        assert gallery.read(2) == (file.parent / gallery.original_path(2)).read_bytes()


@pytest.mark.parametrize("header", [
    "path,label", "path,label,split,colour", "path,label,split,split", "path;label;split"])
def test_csv_refuses_other_columns(write, read, header):
    with pytest.raises(DataError, match=rf"images\.csv:1: expected the columns path, label, split, .* got '{header}'"):
        read("csv", write([], header))


@pytest.mark.parametrize("row, expected", [
    ("a/1.jpg,ann,train,1", "expected 5 cells, got 4"),
    ("a/1.jpg,ann,training,1,1", "expected a split of train, query, .*, got 'training'"),
    ("a/1.jpg,,train,1,1", "an empty path or label"),
    ("a/1.jpg,ann,train,-2,1", "expected a whole number as camera, .* got '-2'"),
    ("a/1.jpg,ann,train,1,x", "expected a whole number as sequence, .* got 'x'"),
    ("b/2.jpg,bob,train,1,1", r"b/2\.jpg is in train already, by .*images\.csv:2; keep one"),
    ("a/none.jpg,ann,train,1,1", r"no file .*set/a/none\.jpg; paths are relative to the folder of images\.csv"),
    ("a/1.jpg,dan,val,1,1", "class dan has no image in train, while other classes of val have"),
    ('a/1.jpg,"ann,train,1,1', "unexpected end of data"),
])
def test_csv_names_the_line_that_is_wrong(write, read, row, expected):
    images = ["b/2.jpg", "a/1.jpg", "a/8.jpg"]
    with pytest.raises(DataError, match=rf"images\.csv:4: {expected}"):
        read("csv", write([ROWS[0], ROWS[7], row], images=images))


def test_csv_that_is_no_text_is_refused(write, read):
    with pytest.raises(DataError, match=r"images\.csv: not UTF-8 text at byte 41; save it as UTF-8"):
        read("csv", write(["1.jpg,Zo\xeb,train,1,1"], encoding="latin-1"))


def test_csv_in_a_folder_with_another_is_asked_for_by_its_file(write, read):
    file = write()
    file.with_name("other.csv").touch()
    with pytest.raises(DataError, match=r"set: 2 files end in \.csv, one expected; give the file itself"):
        read("csv", file.parent)
