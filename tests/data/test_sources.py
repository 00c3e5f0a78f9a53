"""Sources: each layout read by its rules, and each break of them refused by name."""

from pathlib import Path

import pytest

from data.records import DataError
from data.sources import SOURCES, SPLITS, Item, image_files
from deploy.listing import list_images
from deploy.preprocess import SUFFIXES


@pytest.fixture
def market(tmp_path, touch):
    return touch(tmp_path, "bounding_box_train/0007_c2s3_000451_03.jpg",
                 "bounding_box_train/0002_c1s1_000001_00.jpg",
                 "bounding_box_train/-1_c1s1_000001_00.jpg",
                 "bounding_box_train/Thumbs.db",
                 "query/0005_c1s1_000001_00.jpg",
                 "bounding_box_test/0003_c3s1_000001_00.jpg",
                 "bounding_box_test/0005_c11s2_000001_00.jpg",
                 "bounding_box_test/0000_c1s1_000001_00.jpg",
                 "bounding_box_test/-1_c3s1_000001_00.jpg",
                 "bounding_box_test/._0005_c1s1_000001_00.jpg")


@pytest.fixture
def cub(tmp_path):
    for name, rows in {
        "classes.txt": ["1 001.Albatross", "2 002.Bunting", "3 003.Crow"],
        "images.txt": ["1 001.Albatross/a.jpg", "2 002.Bunting/b b.jpg", "3 003.Crow/c.jpg",
                       "4 003.Crow/d.jpg"],
        "image_class_labels.txt": ["1 1", "2 2", "3 3", "4 3"],
        "train_test_split.txt": ["1 1", "2 0", "3 0", "4 1"],
    }.items():
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_refuses_an_empty_folder_and_an_absent_one(name, tmp_path, read):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=rf"^{root}.*; .*"):
            read(name, root)


def test_the_images_of_a_set_are_those_that_deployment_lists(tmp_path, touch):
    named = touch(tmp_path, *(f"{i}{suffix}" for i, suffix in enumerate(SUFFIXES)), "A.GIF", "b.txt")
    assert image_files(named, ".") == list_images(named).names


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_says_what_its_options_are(name):
    options = SOURCES.options(name)
    assert all(field.description for field in options.model_fields.values())
    options()  # each has a default


def test_every_source_has_a_row_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [name for name in SOURCES if f"\n| `{name}` |" not in page] == []


def test_market_trains_without_junk_and_counts_it(market, read):
    train = read("market1501", market)["train"]
    assert list(train.items) == [Item("bounding_box_train/0002_c1s1_000001_00.jpg", "0002", 1, 1),
                                 Item("bounding_box_train/0007_c2s3_000451_03.jpg", "0007", 2, 3)]
    assert list(train.class_names) == ["0002", "0007"]
    assert train.left_out == 1


def test_market_query_and_gallery_share_their_names_and_keep_distractors(market, read):
    splits = read("market1501", market)
    assert list(splits["gallery"].items) == [
        Item("bounding_box_test/-1_c3s1_000001_00.jpg", None, 3, 1),
        Item("bounding_box_test/0000_c1s1_000001_00.jpg", "0000", 1, 1),
        Item("bounding_box_test/0003_c3s1_000001_00.jpg", "0003", 3, 1),
        Item("bounding_box_test/0005_c11s2_000001_00.jpg", "0005", 11, 2)]
    assert list(splits["query"].class_names) == ["0000", "0003", "0005"]
    assert splits["query"].class_names == splits["gallery"].class_names


def test_market_gives_on_demand_the_hand_drawn_boxes_of_its_queries(market, read, touch):
    touch(market, "gt_bbox/0005_c1s1_000001_00.jpg", "gt_bbox/0005_c1s2_000151_00.jpg",
          "gt_bbox/0005_c3s1_000001_00.jpg",  # of another camera
          "gt_bbox/0002_c1s1_000001_00.jpg")  # trained on
    splits = read("market1501", market, multi_query=True)
    assert list(splits["multi_query"].items) == [Item("gt_bbox/0005_c1s1_000001_00.jpg", "0005", 1, 1),
                                                 Item("gt_bbox/0005_c1s2_000151_00.jpg", "0005", 1, 2)]
    assert splits["multi_query"].class_names == splits["query"].class_names
    assert "multi_query" not in read("market1501", market)


def test_market_without_its_hand_drawn_boxes_gives_no_multi_query(market, read):
    with pytest.raises(DataError, match="gt_bbox: no such folder; give the root"):
        read("market1501", market, multi_query=True)


def test_market_names_a_file_that_it_cannot_parse(market, read, touch):
    touch(market, "query/person12.jpg")
    with pytest.raises(DataError, match=r"query/person12\.jpg: expected a name like 0002_c1s1_"):
        read("market1501", market)


def test_cub_keeps_the_second_half_of_the_classes_for_test(cub, read):
    splits = read("cub200", cub)
    assert {name: list(split.class_names) for name, split in splits.items()} == {
        "train": ["001.Albatross"], "test": ["002.Bunting", "003.Crow"]}
    assert [item.path for item in splits["test"].items] == [
        "images/002.Bunting/b b.jpg", "images/003.Crow/c.jpg", "images/003.Crow/d.jpg"]


def test_cub_can_follow_its_official_split(cub, read):
    train, val = read("cub200", cub, split="official").values()
    assert [item.path for item in train.items] == ["images/001.Albatross/a.jpg", "images/003.Crow/d.jpg"]
    assert [item.path for item in val.items] == ["images/002.Bunting/b b.jpg", "images/003.Crow/c.jpg"]
    assert train.class_names == val.class_names == ["001.Albatross", "002.Bunting", "003.Crow"]


def test_cub_names_the_line_that_is_wrong_or_missing(cub, read):
    (cub / "image_class_labels.txt").write_text("1 1\n2 2\n3 9\n4 3\n")
    with pytest.raises(DataError, match=r"classes\.txt: no line for number 9"):
        read("cub200", cub)
    (cub / "image_class_labels.txt").write_text("1 1\n2\n")
    with pytest.raises(DataError, match=r"labels\.txt:2: expected a new number and a value, got '2'"):
        read("cub200", cub)


def test_folder_takes_class_names_from_train(tmp_path, read, touch):
    touch(tmp_path, "train/cat/1.PNG", "train/ant/more/1.jpg", "train/ant/notes.txt")
    touch(tmp_path, "val/cat/2.webp", "test/ant/3.tif")
    splits = read("folder", tmp_path)
    assert {name: list(split.items) for name, split in splits.items()} == {
        "train": [Item("train/ant/more/1.jpg", "ant"), Item("train/cat/1.PNG", "cat")],
        "val": [Item("val/cat/2.webp", "cat")], "test": [Item("test/ant/3.tif", "ant")]}
    assert {tuple(split.class_names) for split in splits.values()} == {("ant", "cat")}


def test_folder_without_splits_is_train(tmp_path, read, touch):
    touch(tmp_path, "cat/1.jpg", "ant/1.jpg", ".git/x.jpg")
    assert read("folder", tmp_path).keys() == {"train"}


def test_folder_refuses_a_class_that_train_lacks(tmp_path, read, touch):
    touch(tmp_path, "train/cat/1.jpg", "val/dog/1.jpg")
    with pytest.raises(DataError, match=r"val/dog/1\.jpg: class dog has no image in train"):
        read("folder", tmp_path)


def test_folder_refuses_an_image_outside_the_classes(tmp_path, read, touch):
    touch(tmp_path, "train/cat/1.jpg", "train/1.jpg")
    with pytest.raises(DataError, match=r"train/1\.jpg: not in the folder of a class"):
        read("folder", tmp_path)


def test_folder_refuses_val_without_train(tmp_path, read, touch):
    touch(tmp_path, "val/cat/1.jpg")
    with pytest.raises(DataError, match="val: there is no folder train beside it"):
        read("folder", tmp_path)


def test_a_holdout_takes_its_share_of_each_class_and_is_the_same_each_time(tmp_path, read, touch):
    touch(tmp_path, *(f"cat/{i}.jpg" for i in range(20)), *(f"ant/{i}.jpg" for i in range(10)), "bee/0.jpg")
    splits = read("folder", tmp_path, holdout=0.3)
    held = [item.path.split("/")[0] for item in splits["val"].items]
    assert (held.count("cat"), held.count("ant"), held.count("bee")) == (6, 3, 0)
    assert len({*splits["train"].items, *splits["val"].items}) == 31
    assert read("folder", tmp_path, holdout=0.3) == splits


def test_an_added_image_moves_few_others_across_the_holdout(tmp_path, read, touch):
    touch(tmp_path, *(f"cat/{i}.jpg" for i in range(100)))
    before = set(read("folder", tmp_path, holdout=0.2)["val"].items)
    touch(tmp_path, "cat/000.jpg")
    assert len(before - set(read("folder", tmp_path, holdout=0.2)["val"].items)) <= 1


def test_a_holdout_beside_a_val_folder_is_refused(tmp_path, read, touch):
    touch(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg")
    with pytest.raises(DataError, match="val: the set has its own val; pack it without --holdout"):
        read("folder", tmp_path, holdout=0.5)


def test_a_holdout_of_nothing_is_refused(tmp_path, read, touch):
    touch(tmp_path, "cat/1.jpg", "ant/1.jpg")
    with pytest.raises(DataError, match="no class has enough images"):
        read("folder", tmp_path, holdout=0.4)


def test_splits_come_under_names_that_have_a_place(market, cub, read):
    for splits in (read("market1501", market), read("cub200", cub), read("cub200", cub, split="official")):
        assert set(splits) <= set(SPLITS)
