"""MSMT17 (Wei et al., Person Transfer GAN, 2018), first version and second (faces blurred): four lists, two folders."""

from pathlib import Path
from typing import Annotated, Literal

from data.records import DataError
from data.sources import Item, Split, class_names, home_of
from data.sources.lists import Line, lines_of

FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))  # of the first version and the second
NAME = "IDENTITY_NUMBER_CAMERA_TIME_FRAME_BOX.jpg"  # with _ex before .jpg in some


def msmt17(
    root: Path, *,
    val: Annotated[Literal["join", "apart"],
                   "join: the images of list_val.txt are trained on as well, as in papers; apart: a split"] = "join",
) -> dict[str, Split]:
    """Train and val over the training identities; query and gallery over the others.

    Both are counted from 0 in the lists, so the folder goes before the number: train/0000 is not test/0000.
    The root may also be the folder that holds MSMT17_V1 or MSMT17_V2.
    """
    home = home_of(root, "MSMT17_V1", "MSMT17_V2")
    train_folder, test_folder = _folders(root / home)
    trained, validated = (_items(root, home, name, train_folder) for name in ("list_train.txt", "list_val.txt"))
    query, gallery = (_items(root, home, name, test_folder) for name in ("list_query.txt", "list_gallery.txt"))
    known, tested = class_names(trained + validated), class_names(query + gallery)
    apart = {"val": Split(validated, known)} if val == "apart" else {}
    train = trained if apart else trained + validated
    return {"train": Split(train, known), **apart, "query": Split(query, tested), "gallery": Split(gallery, tested)}


def _folders(home: Path) -> tuple[str, str]:
    for train, test in FOLDERS:
        if (home / train).is_dir():
            return train, test
    raise DataError(f"{home}: no folder {FOLDERS[0][0]} and no {FOLDERS[1][0]}; give the root of MSMT17 as it is "
                    "unpacked")


def _items(root: Path, home: str, name: str, folder: str) -> list[Item]:
    return [_item(line, Path(home, folder)) for line in lines_of(root / home / name)]


def _item(line: Line, folder: Path) -> Item:
    path, identity = line.fields("path identity")
    parts = Path(path).stem.split("_")
    if len(parts) < len(NAME.split("_")):
        raise line.wrong(f"a path like 0000/{NAME}")
    kind = "train" if "train" in folder.name else "test"
    return Item(str(folder / path), f"{kind}/{line.number(identity):04d}", line.number(parts[2]))
