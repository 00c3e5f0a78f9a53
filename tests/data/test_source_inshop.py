"""In-Shop Clothes by its list, wherever the archives of the set were unpacked."""

import pytest

from data.records import DataError
from data.sources import Item

HEADER = "image_name item_id evaluation_status"
ROWS = ["img/WOMEN/Dresses/id_00000002/02_1_front.jpg                      id_00000002 train",
        "img/WOMEN/Dresses/id_00000002/02_2_side.jpg                       id_00000002 train",
        "img/MEN/Denim/id_00000080/01_1_front.jpg                          id_00000080 query",
        "img/MEN/Denim/id_00000080/01_7_additional.jpg                     id_00000080 gallery",
        "img/WOMEN/Blouses_Shirts/id_00000001/02_4_full.jpg                id_00000001 gallery"]


@pytest.fixture
def write(tmp_path):
    """Write the list, by default as the set has it."""

    def make(rows=ROWS, count=None, header=HEADER, place="Eval/list_eval_partition.txt"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([str(len(rows) if count is None else count), header, *rows]) + "\n")
        return tmp_path

    return make


def test_inshop_asks_for_products_that_it_does_not_train_on(write, read):
    splits = read("inshop", write())
    assert list(splits["train"].items) == [Item("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002"),
                                           Item("img/WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002")]
    assert list(splits["train"].class_names) == ["id_00000002"]
    assert [item.class_name for item in splits["query"].items] == ["id_00000080"]
    assert [item.class_name for item in splits["gallery"].items] == ["id_00000080", "id_00000001"]
    assert splits["query"].class_names == splits["gallery"].class_names == ["id_00000001", "id_00000080"]


def test_inshop_may_have_its_list_at_the_root_and_its_images_in_a_folder_of_their_own(write, read, touch):
    root = touch(write(place="list_eval_partition.txt"), "Img/img/MEN/Denim/id_00000080/01_1_front.jpg")
    splits = read("inshop", root)
    assert splits["query"].items[0] == Item("Img/img/MEN/Denim/id_00000080/01_1_front.jpg", "id_00000080")


@pytest.mark.parametrize("wrong, expected", [
    ({"count": 52712}, r"partition\.txt:1: expected 5, the number of images below, got '52712'"),
    ({"count": "many"}, r"partition\.txt:1: expected a whole number in place of many"),
    ({"header": "image_name item_id"}, rf"partition\.txt:2: expected the header {HEADER}, got 'image_name item_id'"),
    ({"rows": [*ROWS, "img/a.jpg id_1 test"]}, r"partition\.txt:8: expected train, query, gallery in the last"),
    ({"rows": [*ROWS, "img/a.jpg id_1"]}, rf"partition\.txt:8: expected {HEADER}, got 'img/a\.jpg id_1'"),
])
def test_inshop_names_the_line_that_is_wrong(write, read, wrong, expected):
    with pytest.raises(DataError, match=expected):
        read("inshop", write(**wrong))


def test_a_list_that_ends_before_its_header_is_refused(tmp_path, read):
    (tmp_path / "list_eval_partition.txt").write_text("52712\n")
    with pytest.raises(DataError, match=r"partition\.txt:1: expected the header image_name"):
        read("inshop", tmp_path)
