"""Which images a rank list holds, and the colours of their frames."""

import io

import numpy as np
import pytest
from PIL import Image

from data.records import DataError
from evaluate.market_evaluate import search as market_search
from evaluate.rank_lists import (
    BLACK, FRAME, GAP, GREEN, HEIGHT, RED, WHITE, WIDTH, draw, rank_list, worst_median_best, write_rank_lists,
)
from evaluate.retrieval_evaluate import search as retrieval_search


@pytest.fixture
def found(reid):
    """Two queries; for the first, in order: own camera (out), wrong, right, junk (out), wrong, right."""
    angles = np.radians([0, 10, 20, 30, 40, 50])
    fan = np.column_stack([np.cos(angles), np.sin(angles)])
    return market_search(reid(([[1, 0], [0, 1]], [4, 9], [1, 1]), (fan, [4, 0, 4, -1, 9, 4], [1, 1, 2, 2, 2, 3])))


def images(split, row):
    """Blue queries and grey gallery images, of other shapes than the place for them."""
    return Image.new("RGB", (30, 90), (20, 30, 200)) if split == "query" else Image.new("RGB", (90, 30), (128,) * 3)


def frame_colours(picture, line):
    """Colour in the middle of the left side of each frame of a line."""
    width, height = WIDTH + 2 * FRAME + GAP, (picture.height - GAP) // 2
    y = GAP + line * height + FRAME + HEIGHT // 2
    return [picture.getpixel((GAP + place * width + FRAME // 2, y)) for place in range(picture.width // width)]


def test_a_rank_list_leaves_out_what_does_not_count_for_its_query(found):
    ranked = rank_list(found, 0)
    assert list(ranked.rows) == [1, 2, 4, 5]
    assert list(ranked.right) == [False, True, False, True]
    np.testing.assert_allclose(ranked.similarity, np.cos(np.radians([10, 20, 40, 50])), atol=1e-7)


def test_equal_similarities_rank_in_gallery_order(reid):
    found = market_search(reid(([[1, 0]], [4], [1]), ([[1, 0], [0, 1]] * 20, [4] * 40, [2] * 40)))
    assert list(rank_list(found, 0).rows) == list(range(0, 20, 2))


def test_an_image_is_not_on_its_own_list(splits):
    found = retrieval_search(splits.__getitem__)
    for query in range(len(found.query.labels)):
        ranked = rank_list(found, query)
        assert query not in ranked.rows
        np.testing.assert_array_equal(ranked.right, found.gallery.labels[ranked.rows] == found.query.labels[query])


def test_frames_are_green_where_the_label_is_right_and_red_where_it_is_wrong(found):
    picture = draw(found, [rank_list(found, 0), rank_list(found, 1)], images)
    assert frame_colours(picture, 0) == [BLACK, RED, GREEN, RED, GREEN, WHITE]  # four that count
    assert frame_colours(picture, 1) == [BLACK, RED, GREEN, RED, RED, RED]


def test_a_picture_holds_the_images_and_words_below_them(found):
    picture = np.asarray(draw(found, [rank_list(found, 0)], images))
    assert (picture == (20, 30, 200)).all(axis=2).any()
    below = picture[GAP + HEIGHT + 2 * FRAME:, GAP + FRAME:GAP + WIDTH]
    assert (below < 128).any()


def test_worst_median_and_best_are_of_the_queries_that_have_a_match():
    precisions = np.array([0.9, np.nan, 0.1, 0.5, 0.5, np.nan, 0.7])
    chosen = worst_median_best(precisions, 1)
    assert {name: list(rows) for name, rows in chosen.items()} == {"worst": [2], "median": [4], "best": [0]}
    assert all(len(rows) == 5 for rows in worst_median_best(precisions, 9).values())


def test_pictures_are_written_whole_and_are_the_same_every_time(found, tmp_path):
    folder, precisions = tmp_path / "rank_lists", np.array([0.5, np.nan])
    written = write_rank_lists(folder, found, precisions, images, 1)
    assert [path.name for path in written] == ["worst.png", "median.png", "best.png"]
    assert sorted(folder.iterdir()) == sorted(written)
    before = [path.read_bytes() for path in written]
    assert [Image.open(io.BytesIO(content)).format for content in before] == ["PNG"] * 3
    assert [path.read_bytes() for path in write_rank_lists(folder, found, precisions, images, 1)] == before


def test_a_search_in_which_nothing_matches_has_nothing_to_draw(reid, tmp_path):
    found = market_search(reid(([[1, 0]], [4], [1]), ([[1, 0]], [5], [2])))
    with pytest.raises(DataError, match="query against gallery: no query has a match to draw"):
        write_rank_lists(tmp_path, found, np.array([np.nan]), images, 1)
