"""The archives of one packed set, and predictions over them."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from data.archive import Archive, Images, open_archive
from data.joint import Joint
from data.loader import evaluation_batches
from data.records import DataError, Predict, Predictions
from deploy.preprocess import opened
from params.schema import Params
from trainer import build, ranks
from trainer.predict import Infer, predict


class Splits:
    """The splits that data.pack wrote into one folder, or several, opened when first asked for.

    Split train is of all folders that have one, as one; any other split is of the first folder that has it.
    """

    def __init__(self, folders: str | Sequence[str]) -> None:
        self.folders = [Path(folder) for folder in ([folders] if isinstance(folders, str) else folders)]
        self.archive = cache(self._open)

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return bool(self._paths(split))

    def image(self, split: str, row: int) -> Image.Image:
        """One image as it was packed, upright and RGB."""
        return opened(self.archive(split).read(row))

    def class_names(self, split: str) -> list[str]:
        """The names of a split's labels."""
        return self.archive(split).class_names

    def _paths(self, split: str) -> list[Path]:
        return [path for path in (folder / f"{split}.lmdb" for folder in self.folders) if path.is_file()]

    def _open(self, split: str) -> Images:
        for folder in self.folders:
            if not any(folder.glob("*.lmdb")):
                raise self._lacks(folder, split)
        paths = self._paths(split)
        if not paths:
            raise self._lacks(self.folders[0], split)
        if split == "train" and len(paths) > 1:
            return Joint([open_archive(path) for path in paths])
        archive = open_archive(paths[0])
        self._refuse_other_numbers(archive)
        return archive

    def _lacks(self, folder: Path, split: str) -> DataError:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.lmdb"))) or "none"
        return DataError(f"{folder / split}.lmdb: no such split; {folder} holds: {there}; write it with "
                         "python -m data.pack")

    def _refuse_other_numbers(self, archive: Archive) -> None:
        """DataError for a split over classes that joint training numbers otherwise: those of its second set on."""
        trained = archive.path.with_name("train.lmdb")
        if trained in self._paths("train")[1:] and open_archive(trained).class_names == archive.class_names:
            raise DataError(f"{archive.path}: its classes are numbered as in {trained}, which joint training counts "
                            f"on from the sets before; put {trained.parent} first in batches_dir")


def predict_splits(
    splits: Splits, params: Params, infer: Infer, between: Callable[[], None] = lambda: None,
) -> Predict:
    """split name -> Predictions of what `infer` gives; `between` is called before each batch.

    Of several ranks each predicts its share, and calls `between` as often as the others.
    """
    def of(split: str) -> Predictions:
        archive, share = splits.archive(split), ranks.share()
        batches = evaluation_batches(
            archive, build.preprocessing(params), batch_size=params.batch_size,
            workers=params.num_preprocess_workers, start_method=params.worker_start, share=share)
        rounds = -(-len(archive) // (params.batch_size * share.ranks))
        in_step = (batch for _, batch in zip_longest(range(rounds), batches))
        return predict(infer, in_step, between)

    return of
