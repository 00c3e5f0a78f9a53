"""The archives of one packed set, and predictions over them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from data.archive import Archive, open_archive
from data.loader import evaluation_batches
from data.records import DataError, Predict, Predictions
from params.schema import Params
from trainer import build
from trainer.predict import Run, predict


class Splits:
    """The splits that data.pack wrote into one folder, opened when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = cache(self._open)

    def _open(self, split: str) -> Archive:
        path = self.folder / f"{split}.lmdb"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in self.folder.glob("*.lmdb"))) or "none"
            raise DataError(f'{path}: no such split; {self.folder} holds: {there}; write it with python -m data.pack')
        return open_archive(path)


def predict_splits(
    splits: Splits, params: Params, run: Run, between: Callable[[], None] = lambda: None,
) -> Predict:
    """split name -> Predictions of what `run` says; `between` is called before each batch."""
    def of(split: str) -> Predictions:
        batches = evaluation_batches(
            splits.archive(split), build.preprocessing(params), batch_size=params.batch_size,
            workers=params.num_preprocess_workers, start_method=params.worker_start)
        return predict(run, batches, between)

    return of
