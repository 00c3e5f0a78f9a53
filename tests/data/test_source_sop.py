"""Stanford Online Products by its two lists."""

import pytest

from data.records import DataError
from data.sources import Item

HEADER = "image_id class_id super_class_id path"
TRAIN = [HEADER, "1 1 1 bicycle_final/111085122871_0.JPG", "2 1 1 bicycle_final/111085122871_1.JPG",
         "45 11318 12 toaster_final/400687234231_0.JPG"]
TEST = [HEADER, "59552 11319 1 bicycle_final/251952414262_0.JPG", "59553 11319 1 bicycle_final/251952414262_1.JPG"]


@pytest.fixture
def write(tmp_path):
    """Write the lists into a folder."""

    def make(root=tmp_path, train=TRAIN, test=TEST):
        root.mkdir(exist_ok=True)
        (root / "Ebay_train.txt").write_text("\n".join(train) + "\n")
        (root / "Ebay_test.txt").write_text("\n".join(test) + "\n")
        return root

    return make


def test_sop_trains_and_tests_on_different_products(write, read):
    splits = read("sop", write())
    assert list(splits["train"].items) == [Item("bicycle_final/111085122871_0.JPG", "00001"),
                                           Item("bicycle_final/111085122871_1.JPG", "00001"),
                                           Item("toaster_final/400687234231_0.JPG", "11318")]
    assert {name: list(split.class_names) for name, split in splits.items()} == {
        "train": ["00001", "11318"], "test": ["11319"]}


def test_sop_may_lie_in_the_folder_of_its_archive(write, read, tmp_path):
    write(tmp_path / "Stanford_Online_Products")
    assert read("sop", tmp_path)["test"].items[0].path == (
        "Stanford_Online_Products/bicycle_final/251952414262_0.JPG")


@pytest.mark.parametrize("test, expected", [
    (TEST[1:], rf"Ebay_test\.txt:1: expected the header {HEADER}, got '59552"),
    ([*TEST, "59554 11319 1"], rf"Ebay_test\.txt:4: expected {HEADER}, got '59554 11319 1'"),
    ([*TEST, "", "59554 x 1 a.JPG"], r"Ebay_test\.txt:5: expected a whole number in place of x"),
    ([], r"Ebay_test\.txt: an empty file"),
])
def test_sop_names_the_line_that_is_wrong(write, read, test, expected):
    with pytest.raises(DataError, match=expected):
        read("sop", write(test=test))


def test_a_list_that_is_no_text_is_refused(write, read):
    root = write()
    (root / "Ebay_test.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"Ebay_test\.txt: not UTF-8 text"):
        read("sop", root)
