"""Classification: how often the true class is the first, or among the first five, of the logits."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from data.records import DataError, Predict
from evaluate.protocol import Classified, Scored, evaluator


@evaluator(logits=True)
def run_eval(config: Mapping[str, Any], predict: Predict, *,
             split: Annotated[str, "name of the split"] = "val") -> Scored:
    """Fractions of the split's images; equal logits rank in the order of the classes."""
    predictions = predict(split)
    if predictions.logits is None:
        raise DataError(f"{split}: the network gives no logits, which classification_evaluate scores; "
                        "train it with a classification loss")
    places = class_ranks(predictions.logits, predictions.labels, split)
    values = {f"top{k}": (places < k).astype(np.float64) for k in (1, 5)}
    predicted = predictions.logits.argmax(axis=1)
    return Scored("images", values, ranked_by="top1", seen=Classified(split, predictions.labels, predicted))


def class_ranks(logits: np.ndarray, labels: np.ndarray, split: str = "logits") -> np.ndarray:
    """The true class' place among the logits, 0-based: (N, K), (N,) -> (N,).

    DataError names the split and the row when a label is not 0..K-1 or a logit is not finite.
    """
    classes = logits.shape[1]
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(f"{split}: row {row} has label {labels[row]}, but the network's classes are "
                        f"0..{classes - 1}; is the split packed with the classes of train?")
    infinite = ~np.isfinite(logits).all(axis=1)
    if infinite.any():
        raise DataError(f"{split}: the logits of row {np.argmax(infinite)} are not finite; "
                        "has training diverged?")
    true = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    ahead = (logits > true) | ((logits == true) & (np.arange(classes) < labels[:, None]))
    places: np.ndarray = np.count_nonzero(ahead, axis=1)
    return places
