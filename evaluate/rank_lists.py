"""Rank lists as pictures: a query and its nearest gallery images, the right ones framed green, the wrong ones red."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from data.records import DataError
from deploy.files import write_whole
from evaluate.protocol import Search
from evaluate.ranking import nearest

GREEN, RED, BLACK, WHITE = (0, 160, 60), (215, 30, 30), (0, 0, 0), (255, 255, 255)
NEAREST = 10
WIDTH, HEIGHT = 96, 160  # of the place for an image, pixels
FRAME, LINE, GAP = 4, 12, 6
NO_LISTS = "this evaluator ranks no gallery that --rank_lists could draw, or scores no query; market_evaluate does both"

Images = Callable[[str, int], Image.Image]  # split, row -> the image


class RankList(NamedTuple):
    """One query's nearest gallery images, those left out that do not count for it."""

    query: int  # row of the query split
    rows: np.ndarray  # (k,) of the gallery split, nearest first
    right: np.ndarray  # (k,) bool: of the query's label
    similarity: np.ndarray  # (k,)


def rank_list(found: Search, query: int) -> RankList:
    """The NEAREST of a query; fewer where the gallery has no more that count."""
    similarity = found.similarity[query:query + 1][0]
    positives, ignored = found.matches[query]
    rows = nearest(similarity, NEAREST, ignored)
    return RankList(query, rows, np.isin(rows, positives), similarity[rows])


def worst_median_best(scores: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Queries by their scores, at most `count` each, worst first; NaN is no query: (Q,) -> rows."""
    order = np.argsort(scores, kind="stable")[:np.count_nonzero(~np.isnan(scores))]
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    return {"worst": order[:count], "median": order[middle:middle + count], "best": order[len(order) - count:]}


def draw(found: Search, lists: Sequence[RankList], images: Images) -> Image.Image:
    """One line per query: its image in black, then its nearest, each with label, camera and similarity below."""
    across = 1 + max(len(ranked.rows) for ranked in lists)
    width, height = WIDTH + 2 * FRAME + GAP, HEIGHT + 2 * FRAME + 3 * LINE + GAP
    picture = Image.new("RGB", (across * width + GAP, len(lists) * height + GAP), WHITE)
    for line, ranked in enumerate(lists):
        top = GAP + line * height
        said = [*_who(found.query.labels[ranked.query], found.query.cameras[ranked.query]), f"query {ranked.query}"]
        picture.paste(_tile(images(found.query_split, ranked.query), BLACK, said), (GAP, top))
        tiles = zip(ranked.rows, ranked.right, ranked.similarity, strict=True)
        for place, (row, right, similarity) in enumerate(tiles, 1):
            said = [*_who(found.gallery.labels[row], found.gallery.cameras[row]), f"{similarity:.3f}"]
            tile = _tile(images(found.gallery_split, int(row)), GREEN if right else RED, said)
            picture.paste(tile, (GAP + place * width, top))
    return picture


def write_rank_lists(folder: Path, found: Search, scores: np.ndarray, images: Images, count: int) -> list[Path]:
    """worst.png, median.png and best.png in `folder`, with `count` queries each by their scores (Q,)."""
    if np.isnan(scores).all():
        raise DataError(f"{found}: no query has a match to draw")
    folder.mkdir(exist_ok=True)
    written = []
    for name, queries in worst_median_best(scores, count).items():
        picture = draw(found, [rank_list(found, int(query)) for query in queries], images)
        written.append(folder / f"{name}.png")
        write_whole(written[-1], lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]
    return written


def _tile(image: Image.Image, frame: tuple[int, int, int], said: Sequence[str]) -> Image.Image:
    """An image in a frame, with lines of text below."""
    fitted = ImageOps.pad(image.convert("RGB"), (WIDTH, HEIGHT), color=WHITE)
    framed = ImageOps.expand(fitted, FRAME, frame)
    tile = Image.new("RGB", (framed.width, framed.height + len(said) * LINE), WHITE)
    tile.paste(framed)
    pen = ImageDraw.Draw(tile)
    for line, text in enumerate(said):
        pen.text((FRAME, framed.height + line * LINE), text, fill=BLACK)
    return tile


def _who(label: int, camera: int) -> list[str]:
    return [f"label {label}", f"camera {camera}" if camera >= 0 else "no camera"]
