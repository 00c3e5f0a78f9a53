"""Verification: are two images of one person? As Labeled Faces in the Wild scores it, fold by fold."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data.records import DataError, Predict, Predictions
from evaluate.distances import unit
from evaluate.protocol import Scored, evaluator


@evaluator(logits=False)
def run_eval(
    config: Mapping[str, Any], predict: Predict, *,
    split: Annotated[str, "name of the split; records 2k and 2k + 1 are a pair, their camera is its fold"] = "test",
    far: Annotated[Sequence[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1),
                   "tar@far: share of genuine pairs accepted where this share of impostors is"] = (1e-2, 1e-3),
) -> Scored:
    """Pairs accepted or refused by their cosine; `genuine` and `impostors` are the pairs that tar@far rests on."""
    predictions = predict(split)
    cosines, same, folds = _pairs(predictions, split)
    accuracies = fold_accuracies(cosines, same, folds)
    genuine, impostors = cosines[same], cosines[~same]
    return Scored("folds", {"accuracy": accuracies}, {
        "accuracy_std": float(accuracies.std()),
        **{f"tar@far={_short(rate)}": true_accept_rate(genuine, impostors, rate) for rate in far},
        "folds": float(len(accuracies)),
        "genuine": float(len(genuine)),
        "impostors": float(len(impostors)),
    }, ranked_by="accuracy")


def fold_accuracies(similarity: np.ndarray, same: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Each fold's share of right answers by the threshold that is best for all other folds: (P,) x 3 -> (F,).

    Huang et al., Labeled Faces in the Wild, 2007 (10-fold).
    """
    accuracies = []
    for fold in np.unique(folds):
        held = folds == fold
        threshold = best_threshold(similarity[~held], same[~held])
        accuracies.append(np.mean((similarity[held] >= threshold) == same[held]))
    return np.array(accuracies)


def best_threshold(similarity: np.ndarray, same: np.ndarray) -> float:
    """Halfway between two neighbouring similarities, or beyond all; of equally good ones, the lowest."""
    order = np.argsort(similarity, kind="stable")
    values, answers = similarity[order], same[order]
    right = np.concatenate([[0], np.cumsum(~answers)]) + np.concatenate([np.cumsum(answers[::-1])[::-1], [0]])
    bounds = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2, [np.inf]])
    possible = np.concatenate([[True], values[:-1] < values[1:], [True]])  # equal pairs get equal answers
    return float(bounds[np.argmax(np.where(possible, right, -1))])


def true_accept_rate(genuine: np.ndarray, impostors: np.ndarray, far: float) -> float:
    """Share of genuine pairs more alike than all impostors but a share `far` of them, rounded down.

    With fewer than 1 / far impostors that is: than every impostor.
    """
    accepted = int(far * len(impostors) + 1e-9)  # 1e-9: 0.29 * 100 is 28.999999999999996
    refused = np.sort(impostors)[::-1][accepted]  # the most alike impostor that must be refused
    return float(np.mean(genuine > refused))


def _pairs(predictions: Predictions, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, sameness and fold of each pair: (P,) x 3; DataError where the split holds no such pairs."""
    count, folds = len(predictions.labels), predictions.cameras
    if count % 2:
        raise DataError(f"{split}: {count} images are no pairs; lfw_evaluate needs a split packed from lfw")
    apart = np.flatnonzero(folds[::2] != folds[1::2])
    if apart.size:
        pair = apart[0]
        raise DataError(f"{split}: images {2 * pair} and {2 * pair + 1} are of folds {folds[2 * pair]} and "
                        f"{folds[2 * pair + 1]}, a pair has one; lfw_evaluate needs a split packed from lfw")
    same = predictions.labels[::2] == predictions.labels[1::2]
    found = {"folds": len(np.unique(folds)), "genuine pairs": int(np.count_nonzero(same)),
             "impostor pairs": int(np.count_nonzero(~same))}
    for what, least in {"folds": 2, "genuine pairs": 1, "impostor pairs": 1}.items():
        if found[what] < least:
            raise DataError(f"{split}: {found[what]} {what}, expected at least {least}; lfw_evaluate needs a split "
                            "packed from lfw")
    embeddings = unit(predictions.embeddings, split)
    return np.vecdot(embeddings[::2], embeddings[1::2]), same, folds[::2]


def _short(rate: float) -> str:
    """A rate as people write it: 0.001 is 1e-3."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
