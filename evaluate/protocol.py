"""What an evaluator is, and how the options in params.json reach it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from data.records import Predict, Predictions, RunEval
from evaluate.ranking import Matches, Similarity
from params.schema import Evaluation


class Search(NamedTuple):
    """Who asks whom, and how alike they are, before anything is scored."""

    query_split: str  # their names
    gallery_split: str
    query: Predictions
    gallery: Predictions
    similarity: Similarity  # (Q, G)
    matches: Matches

    def __str__(self) -> str:
        return f"{self.query_split} against {self.gallery_split}"


class Classified(NamedTuple):
    """Which classes the images of a split are of, and which the network takes them for."""

    split: str
    labels: np.ndarray  # (N,) int64
    predicted: np.ndarray  # (N,) int64


class Scored(NamedTuple):
    """What an evaluator found: metrics that are means, with what they are the means of, and other metrics."""

    unit: str  # what is averaged: "queries", "images", "folds"
    values: Mapping[str, np.ndarray]  # metric -> (N,) float64, NaN for what does not count
    others: Mapping[str, float] = {}
    ranked_by: str = ""  # of `values`, the metric that tells the worst from the best
    seen: Search | Classified | None = None
    asked: Sequence[str] = ()  # the splits that were predicted for it, in order

    @property
    def counted(self) -> dict[str, np.ndarray]:
        """Of `values`, those that count."""
        return {name: values[~np.isnan(values)] for name, values in self.values.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric, the means first."""
        return {**{name: float(values.mean()) for name, values in self.counted.items()}, **self.others}


Score = Callable[..., Scored | dict[str, float]]  # a dict where nobody need know what its means are of
Scores = Callable[[Mapping[str, Any], Predict], Scored]


def evaluator(*, logits: bool) -> Callable[[Score], RunEval]:
    """Make run_eval(config, predict) of a function that takes its options by keyword.

    The options are what config["evaluation_params"] holds besides the keys of every evaluator (`type`,
    `every`, `monitor`, ...); without that section they have their defaults. `run_eval.scored(config, predict)`
    also says what the metrics are the means of.
    `logits`: whether the function reads logits, which cost time and memory with many classes.
    """
    def declare(score: Score) -> RunEval:
        def scored(config: Mapping[str, Any], predict: Predict) -> Scored:
            found = score(config, predict, **_options(config))
            return found if isinstance(found, Scored) else Scored("", {}, found)

        @wraps(score)  # the signature stays that of `score`: its keyword-only arguments are the schema
        def run_eval(config: Mapping[str, Any], predict: Predict) -> dict[str, float]:
            return scored(config, predict).metrics

        run_eval.wants_logits = logits  # type: ignore[attr-defined]
        run_eval.scored = scored  # type: ignore[attr-defined]
        return run_eval

    return declare


def ranking_evaluator(search: Callable[..., Search]) -> Callable[[Callable[..., Scored]], RunEval]:
    """Make run_eval(config, predict) of search(predict) and a function that scores what it found.

    Each takes its own options by keyword. `run_eval.search(config, predict)` is the search alone, for those
    who want to see the ranked images.
    """
    wanted = _keywords(search)

    def declare(score: Callable[..., Scored]) -> RunEval:
        @wraps(score)
        def run_eval(config: Mapping[str, Any], predict: Predict, **options: Any) -> Scored:
            given = {name: options.pop(name) for name in wanted.keys() & options.keys()}
            found = search(predict, **given)
            return score(found, **options)._replace(seen=found)

        def search_alone(config: Mapping[str, Any], predict: Predict) -> Search:
            options = _options(config)
            return search(predict, **{name: options[name] for name in wanted.keys() & options.keys()})

        schema = [*wanted.values(), *_keywords(score).values()]
        run_eval.__signature__ = inspect.Signature(schema)  # type: ignore[attr-defined]
        declared = evaluator(logits=False)(run_eval)
        declared.search = search_alone  # type: ignore[attr-defined]
        return declared

    return declare


def search_of(run_eval: Callable[..., Any]) -> Callable[[Mapping[str, Any], Predict], Search] | None:
    """The search of an evaluator made by `ranking_evaluator`; None of another."""
    return getattr(run_eval, "search", None)


def scored_of(run_eval: Callable[..., Any]) -> Scores:
    """What an evaluator says of its metrics beside them; of a plain run_eval, which splits it asked for."""
    def alone(config: Mapping[str, Any], predict: Predict) -> Scored:
        return Scored("", {}, run_eval(config, predict))

    score = getattr(run_eval, "scored", alone)

    def scored(config: Mapping[str, Any], predict: Predict) -> Scored:
        asked: list[str] = []

        def noted(split: str) -> Predictions:
            asked.append(split)
            return predict(split)

        found: Scored = score(config, noted)
        return found._replace(asked=asked)

    return scored


def is_declared(run_eval: Callable[..., Any]) -> bool:
    """Whether run_eval was made by `evaluator`, so that its keyword-only arguments are its options."""
    return hasattr(run_eval, "wants_logits")


def wants_logits(run_eval: Callable[..., Any]) -> bool:
    """Whether run_eval reads logits; a plain function that does not say gets them."""
    return bool(getattr(run_eval, "wants_logits", True))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    section = config.get("evaluation_params") or {}
    return {key: section[key] for key in section.keys() - Evaluation.model_fields.keys()}


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
