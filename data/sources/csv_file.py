"""Any set that a CSV file lists, an image a row: path, label, split and, where known, camera and sequence."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data.records import DataError
from data.sources import JUNK, SPLITS, Item, Split

NEEDED, FURTHER = ("path", "label", "split"), ("camera", "sequence")
TESTED = ("query", "gallery", "multi_query")  # they share their classes


class Row(NamedTuple):
    """An image of the file."""

    where: str  # "file:line"
    split: str
    item: Item


def csv_file(root: Path) -> dict[str, Split]:
    """The splits that the file names, each sorted by path; the root is the file, or a folder with one .csv in it.

    Paths are relative to the file's folder. Label -1 is junk, which stays only in the gallery. All classes of val,
    and all of test, are classes of train, or none is.
    """
    file = _file(root)
    rows = _rows(file)
    classes = _classes(rows)
    splits = {}
    for split in classes:
        items = sorted(row.item for row in rows if row.split == split)
        kept = [item for item in items if item.class_name is not None or split == "gallery"]
        splits[split] = Split(kept, sorted(classes[split]), left_out=len(items) - len(kept))
    return splits


def _file(root: Path) -> Path:
    if root.is_file():
        return root
    files = sorted(root.glob("*.csv"))
    if len(files) != 1:
        raise DataError(f"{root}: {len(files)} files end in .csv, one expected; give the file itself")
    return files[0]


def _rows(file: Path) -> list[Row]:
    rows: list[Row] = []
    seen: dict[tuple[str, str], str] = {}
    for where, cells in _cells(file):
        row = _row(where, cells)
        image = row.split, row.item.path
        if image in seen:
            raise DataError(f"{where}: {row.item.path} is in {row.split} already, by {seen[image]}; keep one")
        if not (file.parent / row.item.path).is_file():
            raise DataError(f"{where}: no file {file.parent / row.item.path}; paths are relative to the folder of "
                            f"{file.name}")
        seen[image] = where
        rows.append(row)
    return rows


def _cells(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """"file:line" and the cells by column, of every row."""
    try:
        lines = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig")), strict=True)
        header = next(lines, [])
        if not {*NEEDED} <= {*header} <= {*NEEDED, *FURTHER} or len({*header}) < len(header):
            raise DataError(f"{file}:1: expected the columns {', '.join(NEEDED)}, and of {', '.join(FURTHER)} what is "
                            f"known, got {','.join(header)!r}; correct the first line")
        for cells in lines:
            where = f"{file}:{lines.line_num}"
            if len(cells) not in (0, len(header)):
                raise DataError(f"{where}: expected {len(header)} cells, got {len(cells)}; correct the row")
            if cells:
                yield where, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file}:{lines.line_num}: {error}; correct the row") from error


def _row(where: str, cells: Mapping[str, str]) -> Row:
    path, label, split = (cells[column] for column in NEEDED)
    if not path or not label:
        raise DataError(f"{where}: an empty path or label; give both, label {JUNK} for junk")
    if split not in SPLITS:
        raise DataError(f"{where}: expected a split of {', '.join(SPLITS)}, got {split!r}; correct the row")
    camera, sequence = (_number(where, column, cells.get(column, "-1")) for column in FURTHER)
    return Row(where, split, Item(path, None if label == JUNK else label, camera, sequence))


def _number(where: str, column: str, text: str) -> int:
    if not re.fullmatch("-1|[0-9]{1,18}", text):
        raise DataError(f"{where}: expected a whole number as {column}, -1 where there is none, got {text!r}; "
                        "correct the row")
    return int(text)


def _classes(rows: list[Row]) -> dict[str, set[str]]:
    """The classes over which each split of the file is numbered."""
    own: dict[str, set[str]] = {}
    for row in rows:
        own.setdefault(row.split, set()).update([] if row.item.class_name is None else [row.item.class_name])
    trained = own.get("train", set())
    for row in rows:
        name, split = row.item.class_name, row.split
        if split in ("val", "test") and name is not None and name not in trained and own[split] & trained:
            raise DataError(f"{row.where}: class {name} has no image in train, while other classes of {split} have; "
                            f"add some, or let {split} have none of train's classes")
    tested = set().union(*(own[split] for split in TESTED if split in own))
    return {split: tested if split in TESTED else trained if own[split] <= trained else own[split]
            for split in SPLITS if split in own}
