"""Cars196 (Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013): one MATLAB file."""

from pathlib import Path
from typing import Any

from data.records import DataError
from data.sources import Item, Split
from data.sources.fine_grained import SplitBy, by_classes, by_images


def cars196(root: Path, *, split: SplitBy = "classes") -> dict[str, Split]:
    """Zero-shot retrieval: the first half of the classes is train, the others test.

    split="official" follows the annotations instead: train and val, each over all classes. Needs scipy.
    """
    path = root / "cars_annos.mat"
    content = _content(path)
    try:
        classes = [str(name) for name in content["class_names"]]
        images = _images(content["annotations"], classes)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not the annotations of Cars196 ({error!r}); take the original file") from error
    return by_images(images, classes) if split == "official" else by_classes((item for item, _ in images), classes)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the folder that holds cars_annos.mat and car_ims")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(f'{path}: needs scipy, which is not installed; pip install -e ".[cars]"') from None
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except Exception as error:  # of a damaged file scipy raises what it stumbles over
        raise DataError(f"{path}: cannot be read as a MATLAB file ({error}); take the original file") from error
    return content


def _images(rows: Any, classes: list[str]) -> list[tuple[Item, bool]]:
    """Every image, and whether it is one of the official training images."""
    name = dict(enumerate(classes, 1))
    columns = zip(rows["relative_im_path"], rows["class"], rows["test"], strict=True)
    return [(Item(str(path), name[int(number)]), not tested) for path, number, tested in columns]
