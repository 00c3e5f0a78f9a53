"""What an evaluator is, and how the options in params.json reach it."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from data.records import Predict, RunEval
from params.schema import Evaluation


def evaluator(*, logits: bool) -> Callable[[Callable[..., dict[str, float]]], RunEval]:
    """Make run_eval(config, predict) of a function that takes its options by keyword.

    The options are what config["evaluation_params"] holds besides the keys of every evaluator (`type`,
    `every`, `monitor`, ...); without that section they have their defaults.
    `logits`: whether the function reads logits, which cost time and memory with many classes.
    """
    def declare(score: Callable[..., dict[str, float]]) -> RunEval:
        @wraps(score)  # the signature stays that of `score`: its keyword-only arguments are the schema
        def run_eval(config: Mapping[str, Any], predict: Predict) -> dict[str, float]:
            section = config.get("evaluation_params") or {}
            options = {key: section[key] for key in section.keys() - Evaluation.model_fields.keys()}
            return score(config, predict, **options)

        run_eval.wants_logits = logits  # type: ignore[attr-defined]
        return run_eval

    return declare


def is_declared(run_eval: Callable[..., Any]) -> bool:
    """Whether run_eval was made by `evaluator`, so that its keyword-only arguments are its options."""
    return hasattr(run_eval, "wants_logits")


def wants_logits(run_eval: Callable[..., Any]) -> bool:
    """Whether run_eval reads logits; a plain function that does not say gets them."""
    return bool(getattr(run_eval, "wants_logits", True))
