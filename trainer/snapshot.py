"""Snapshots: tensors and plain types, written whole, loaded without pickle."""

import hashlib
import sys
from pathlib import Path
from typing import Any, cast

import torch

from deploy.files import write_whole
from trainer.sentinel import first_line

FORMAT = "kiln-snapshot-1"

State = dict[str, Any]
"""format, params (resolved), class_names, epoch, batch, step, metrics, network, averaged (or None), criterion,
optimizer, scaler."""


class SnapshotError(ValueError):
    """A snapshot is missing, damaged or foreign: one line that names it."""

    exit_code = 5


def save_snapshot(path: Path, state: State) -> None:
    """Write a snapshot whole or not at all; raises DiskError with the old one still in place.

    Equal states give equal bytes, whether they were trained or resumed.
    """
    write_whole(path, lambda file: torch.save(_canonical({"format": FORMAT, **state}), file))


def _canonical(node: Any) -> Any:
    """The same tree of plain types without shared parts: pickle writes an object that it met before as a reference."""
    if isinstance(node, dict):
        return {_canonical(key): _canonical(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(map(_canonical, node))
    return sys.intern(node) if isinstance(node, str) else node


def load_snapshot(path: Path) -> State:
    """Read a snapshot onto the CPU; raises SnapshotError."""
    if not path.is_file():
        raise SnapshotError(f"{path}: no such snapshot; give the path of a run's best.pth or last.pth")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports a damaged file in half a dozen ways
        reason = first_line(error).split(". ")[0]  # then comes advice, as to allow files that run code
        raise SnapshotError(f"{path}: not a readable snapshot: {reason}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise SnapshotError(f"{path}: not a snapshot of this version of Kiln (expected {FORMAT})")
    return cast(State, state)


def deployed_weights(state: State) -> dict[str, torch.Tensor]:
    """The weights that are evaluated and exported: the averaged ones where the run keeps an average."""
    weights: dict[str, torch.Tensor] = state["averaged"] or state["network"]
    return weights


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
