"""Thresholds of a model: cosines that keep a false accept rate, where there were pairs enough to measure them."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any

from .entries import GalleryError

Levels = Mapping[str, Mapping[str, Any]]
EXPECTED = "a cosine from -1 to 1, or a level as far=1e-3, expected"


def check_thresholds(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a model's thresholds; GalleryError for what JSON cannot hold or is no level."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(thresholds)))
    except (TypeError, ValueError) as error:
        raise GalleryError(f"thresholds: not as a model's metadata have them: {error}") from None
    for name, level in levels_of(copy).items():
        keys = ["threshold"] if "threshold" in level else ["needs", "has"]
        if not all(_is_number(level.get(key)) for key in keys):
            raise GalleryError(f"thresholds: {name}: numbers threshold, or needs and has, expected, got {level}")
    return copy


def levels_of(thresholds: Mapping[str, Any]) -> Levels:
    """The levels among what a model says of its thresholds, measured or not."""
    return {name: level for name, level in thresholds.items() if isinstance(level, Mapping)}


def lacking(level: Mapping[str, Any]) -> str:
    """Why a level has no threshold."""
    return f"needs {level['needs']:,} impostor pairs, has {level['has']:,}"


def threshold_of(thresholds: Mapping[str, Any], asked: float | str | None) -> float | None:
    """See `Gallery.threshold_of`."""
    if isinstance(asked, str):
        with suppress(ValueError):
            asked = float(asked)
    if isinstance(asked, str):
        return _measured(levels_of(thresholds), asked)
    if asked is None:
        return None
    if not _is_number(asked) or not -1 <= asked <= 1:
        raise GalleryError(f"threshold: {EXPECTED}, got {asked}")
    return float(asked)


def _measured(levels: Levels, name: str) -> float:
    instead = " or ".join([*(other for other, level in levels.items() if "threshold" in level), "a cosine"])
    if name not in levels:
        raise GalleryError(f"threshold: the model has no level {name}; give {instead}")
    if "threshold" not in levels[name]:
        raise GalleryError(f"threshold {name}: not measured, {lacking(levels[name])}; give {instead}")
    return float(levels[name]["threshold"])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
