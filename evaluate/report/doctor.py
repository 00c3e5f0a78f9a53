"""The data doctor's word on a run's sets, where it is soon had."""

from collections.abc import Sequence
from pathlib import Path

from data.doctor import Report, diagnose
from data.records import DataError
from deploy.cores import usable_cores

MOST_BYTES = 2**30  # of archives in a folder: some ten seconds of decoding


def findings(folders: Sequence[Path]) -> list[Report | str]:
    """For each folder of archives what the doctor found, or why it was not asked."""
    return [_of(folder) for folder in folders]


def _of(folder: Path) -> Report | str:
    size = sum(path.stat().st_size for path in folder.glob("*.lmdb"))
    if size > MOST_BYTES:
        return (f"{folder}: {size / 2**30:.1f} GiB, too much to be read after every run; "
                f"python -m data.doctor {folder} looks at it")
    try:
        return diagnose(folder, usable_cores())
    except DataError as error:
        return str(error)
