"""MSMT17 by its lists, in both of its versions."""

import pytest

from data.records import DataError
from data.sources import Item

LISTS = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_003_12_0113noon_0544_2.jpg 1"],
    "list_val.txt": ["0000/0000_018_05_0303morning_0071_0.jpg 0"],
    "list_query.txt": ["0000/0000_001_02_0302afternoon_1020_1_ex.jpg 0", "0002/0002_020_15_0114noon_0103_0.jpg 2"],
    "list_gallery.txt": ["0000/0000_000_14_0303morning_0033_0.jpg 0"],
}


@pytest.fixture
def msmt(tmp_path, touch):
    """Write the set of one version into a folder."""

    def make(train="train", test="test", root=tmp_path):
        root.mkdir(exist_ok=True)
        for name, lines in LISTS.items():
            (root / name).write_text("\n".join(lines) + "\n")
            folder = test if name in ("list_query.txt", "list_gallery.txt") else train
            touch(root, *(f"{folder}/{line.split()[0]}" for line in lines))
        return root

    return make


def test_msmt_trains_on_val_too_and_takes_the_camera_from_the_third_field(msmt, read):
    train = read("msmt17", msmt())["train"]
    assert list(train.items) == [Item("train/0000/0000_000_01_0303morning_0008_0.jpg", "train/0000", 1),
                                 Item("train/0001/0001_003_12_0113noon_0544_2.jpg", "train/0001", 12),
                                 Item("train/0000/0000_018_05_0303morning_0071_0.jpg", "train/0000", 5)]


def test_msmt_keeps_val_apart_on_demand(msmt, read):
    splits = read("msmt17", msmt(), val="apart")
    assert [len(splits[name].items) for name in ("train", "val")] == [2, 1]
    assert splits["val"].class_names == splits["train"].class_names == ["train/0000", "train/0001"]


def test_msmt_tells_a_trained_identity_from_a_tested_one_of_the_same_number(msmt, read):
    splits = read("msmt17", msmt())
    assert splits["query"].class_names == splits["gallery"].class_names == ["test/0000", "test/0002"]
    assert not set(splits["train"].class_names) & set(splits["query"].class_names)
    assert [item.camera for item in splits["query"].items] == [2, 15]


def test_msmt_of_the_second_version_differs_in_its_folders_alone(msmt, read, tmp_path):
    first = read("msmt17", msmt())
    second = read("msmt17", msmt("mask_train_v2", "mask_test_v2", tmp_path / "second"))
    assert second["gallery"].items[0] == Item(
        "mask_test_v2/0000/0000_000_14_0303morning_0033_0.jpg", "test/0000", 14)
    assert {name: split.class_names for name, split in second.items()} == {
        name: split.class_names for name, split in first.items()}


def test_msmt_may_lie_in_the_folder_of_its_archive(msmt, read, tmp_path):
    msmt("mask_train_v2", "mask_test_v2", tmp_path / "MSMT17_V2")
    assert read("msmt17", tmp_path)["query"].items[0].path == (
        "MSMT17_V2/mask_test_v2/0000/0000_001_02_0302afternoon_1020_1_ex.jpg")


@pytest.mark.parametrize("line, expected", [
    ("0000/0000_000_01_0303morning_0008_0.jpg", r"list_query\.txt:1: expected path identity, got '0000/0000_000"),
    ("0000/0000_000_01_0303morning_0008_0.jpg x", r"list_query\.txt:1: expected a whole number in place of x"),
    ("0000/0000_c1_f0303.jpg 0", r"list_query\.txt:1: expected a path like 0000/IDENTITY_NUMBER_CAMERA_"),
])
def test_msmt_names_the_line_that_is_wrong(msmt, read, line, expected):
    root = msmt()
    (root / "list_query.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=expected):
        read("msmt17", root)


def test_msmt_names_the_list_that_is_missing(msmt, read):
    root = msmt()
    (root / "list_val.txt").unlink()
    with pytest.raises(DataError, match=r"list_val\.txt: no such file; give the root"):
        read("msmt17", root)
