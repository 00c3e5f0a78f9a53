"""Evaluation by several ranks: all predict, the first one scores."""

from collections.abc import Callable
from typing import Any, cast

from data.records import Predict, Predictions
from trainer import ranks

Evaluate = Callable[[Predict], dict[str, float]]


def scored_by_first(evaluate: Evaluate) -> Evaluate:
    """The same metrics on every rank: the first one evaluates, the others predict their share of what it asks for."""
    def evaluated(predict: Predict) -> dict[str, float]:
        def asked(split: str) -> Predictions:
            return predict(ranks.from_first(split))

        if ranks.is_first():
            return ranks.from_first(evaluate(asked))
        while isinstance(said := ranks.from_first(cast(Any, None)), str):
            predict(said)
        return cast(dict[str, float], said)

    return evaluated
