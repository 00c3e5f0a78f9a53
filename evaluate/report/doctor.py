"""The data doctor's word on a run's sets, where it is soon had."""

from collections.abc import Sequence
from pathlib import Path

from data.doctor import Report, diagnose
from data.parallel import cores

MOST_BYTES = 2**30  # of archives in a folder: some ten seconds of decoding


def findings(folders: str | Sequence[str]) -> list[Report | str]:
    """For each folder of archives what the doctor found, or that it is too large to be read after every run."""
    return [_of(Path(folder)) for folder in ([folders] if isinstance(folders, str) else folders)]


def _of(folder: Path) -> Report | str:
    size = sum(path.stat().st_size for path in folder.glob("*.lmdb"))
    if size > MOST_BYTES:
        return (f"{folder}: {size / 2**30:.1f} GiB, too much to be read after every run; "
                f"python -m data.doctor {folder} looks at it")
    return diagnose(folder, cores())
