"""The evaluation on made-up embeddings: what is wrong with the protocol shows before the first step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data.records import Predictions, RunEval
from params.errors import Mistake, ParamsError, did_you_mean
from params.schema import Params
from trainer import build
from trainer.splits import Splits


def rehearse(
    run_eval: RunEval, params: Params, resolved: Mapping[str, Any], splits: Splits, *, logits: bool,
) -> dict[str, float]:
    """The metrics that `run_eval` gives made-up embeddings, by the names it will use.

    Raises DataError for a split that is missing or has nothing to score, ParamsError when
    evaluation_params.monitor is not among the metrics.
    """
    metrics = run_eval(resolved, lambda split: _made_up(splits, params, split, logits=logits))
    monitor = params.evaluation_params.monitor if params.evaluation_params else None
    if monitor is not None and monitor not in metrics:
        message = f'the evaluator gives no "{monitor}"{did_you_mean(monitor, metrics)}'
        raise ParamsError("params.json", [Mistake(("evaluation_params", "monitor"), message)])
    return metrics


def sampler_can_be_built(params: Params, splits: Splits) -> None:
    """ParamsError when the training images cannot be sampled as asked, e.g. fewer classes than P."""
    labels = splits.archive("train").labels
    try:
        sampler = build.sampler(params, labels)
    except ValueError as error:
        raise ParamsError("params.json", [Mistake((), str(error))]) from None  # it begins with the key
    least = params.processes * (1 if params.sync_batch_norm else 2)
    last = len(sampler.batches(0)[-1])
    if last < least:
        message = f"an epoch's last batch would have {last} images, {params.processes} processes need {least}; "
        message += "raise batch_size, or name fewer in parallels"
        raise ParamsError("params.json", [Mistake(("batch_size",), message)])


def _made_up(splits: Splits, params: Params, split: str, *, logits: bool) -> Predictions:
    """Embeddings around one centre per label, which rank faster than noise, and random logits where they are read."""
    archive = splits.archive(split)
    draw = np.random.default_rng(params.seed)
    centres = draw.standard_normal((int(archive.labels.max()) + 2, 16), dtype=np.float32)
    embeddings = centres[archive.labels] + 0.1 * draw.standard_normal((len(archive), 16), dtype=np.float32)
    scores = None
    if logits and build.classifier(params) is not None:
        scores = draw.standard_normal((len(archive), len(splits.archive("train").class_names)), dtype=np.float32)
    margins = norms = None
    if params.model_params.margin is not None:
        margins, norms = draw.standard_normal((2, len(archive)), dtype=np.float32)
    return Predictions(embeddings, scores, archive.labels, archive.cameras, margins, norms)
