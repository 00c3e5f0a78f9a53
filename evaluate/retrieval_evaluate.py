"""Retrieval within one split: every image asks for the others of its class (leave-one-out)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from data.records import DataError, Predict
from evaluate.clustering import clustering_nmi, needs_sklearn
from evaluate.distances import Cosine, unit
from evaluate.protocol import evaluator
from evaluate.ranking import JUNK, Matches, average_precision_at_r, positive_ranks, r_precision


@evaluator(logits=False)
def run_eval(config: Mapping[str, Any], predict: Predict, *,
             split: Annotated[str, "name of the split, each image a query against the others"] = "test",
             k: Annotated[Sequence[Annotated[int, Field(ge=1)]], Field(min_length=1),
                          "recall@k: share with one of its class among the nearest k"] = (1, 2, 4, 8),
             nmi: Annotated[bool, AfterValidator(needs_sklearn), "also cluster the split"] = False,
             block_mib: Annotated[int, Field(ge=1), "MiB of similarities held at a time"] = 64) -> dict[str, float]:
    """Means over the images whose class has another; the others are counted in `queries_without_match`."""
    predictions = predict(split)
    embeddings, labels = unit(predictions.embeddings, split), predictions.labels
    own = np.arange(len(labels))  # each image its own camera: it ignores itself and nothing else
    ranked = positive_ranks(Cosine(embeddings, embeddings), Matches(labels, own, labels, own),
                            block_bytes=block_mib * 2**20)
    scores = [(ranks[0], average_precision_at_r(ranks), r_precision(ranks)) for ranks in ranked if ranks.size]
    if not scores:
        raise DataError(f"{split}: none of its {len(labels)} images has another of its class to find; "
                        "retrieval_evaluate needs two images of a class")
    first_hit, map_at_r, precision = np.array(scores).T
    metrics = {f"recall@{n}": float(np.mean(first_hit < n)) for n in k}
    metrics |= {"map@r": float(map_at_r.mean()), "r_precision": float(precision.mean())}
    if nmi:
        kept = labels != JUNK
        metrics["nmi"] = clustering_nmi(embeddings[kept], labels[kept])
    return metrics | {"queries": float(len(scores)),
                      "queries_without_match": float(len(labels) - len(scores))}
