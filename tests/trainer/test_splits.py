"""Which archives a run reads, of one folder and of several."""

import io

import numpy as np
import pytest
from PIL import Image

from data.archive import Meta, Record, write_archive
from data.records import DataError
from trainer.splits import Splits


@pytest.fixture
def write(tmp_path):
    """Write a split of one image per class -> its folder."""

    def make(folder, split, class_names):
        encoded = io.BytesIO()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(encoded, "PNG")
        (tmp_path / folder).mkdir(exist_ok=True)
        records = (Record(encoded.getvalue(), label, 1, -1, f"{label}.png") for label in range(len(class_names)))
        write_archive(tmp_path / folder / f"{split}.lmdb", records, Meta("folder", split, class_names))
        return str(tmp_path / folder)

    return make


def test_a_folder_alone_or_in_a_list_keeps_its_class_names(write):
    folder = write("one", "train", ["a", "b"])
    assert Splits(folder).archive("train").class_names == ["a", "b"]
    assert Splits([folder]).archive("train").class_names == ["a", "b"]


def test_train_is_of_all_folders_and_another_split_of_the_first_that_has_it(write):
    one, two = write("one", "train", ["a", "b"]), write("two", "train", ["a"])
    write("two", "test", ["x"])
    three = write("three", "test", ["y"])
    splits = Splits([one, two, three])
    assert splits.archive("train").class_names == ["folder.1/a", "folder.1/b", "folder.2/a"]
    assert splits.archive("test").class_names == ["x"]
    assert (splits.has("test"), splits.has("val")) == (True, False)


def test_sets_to_test_on_alone_do_not_rename_what_is_trained_on(write):
    splits = Splits([write("faces", "test", ["x", "y"]), write("one", "train", ["a", "b"])])
    assert splits.archive("train").class_names == ["a", "b"]


def test_a_split_or_a_folder_that_is_not_there_is_named(write, tmp_path):
    one, two = write("one", "train", ["a"]), write("two", "train", ["a"])
    with pytest.raises(DataError, match=r"one/val\.lmdb: no such split; .*one holds: train; write it with"):
        Splits([one, two]).archive("val")
    with pytest.raises(DataError, match=r"nowhere/train\.lmdb: no such split; .*nowhere holds: none"):
        Splits([one, str(tmp_path / "nowhere")]).archive("train")


def test_val_over_classes_that_joint_training_numbers_otherwise_is_refused(write):
    one, two = write("one", "train", ["a", "b"]), write("two", "train", ["c", "d"])
    write("two", "val", ["c", "d"])
    with pytest.raises(DataError, match=r"two/val\.lmdb: its classes are numbered as in .*; put .*two first"):
        Splits([one, two]).archive("val")
    assert Splits([two, one]).archive("val").labels.tolist() == [0, 1]
    assert Splits(two).archive("val").class_names == ["c", "d"]
