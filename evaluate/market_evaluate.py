"""Re-identification: a query split against a gallery split, as Market-1501 scores it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from data.records import DataError, Predict, Predictions
from evaluate.distances import Cosine, unit
from evaluate.protocol import evaluator
from evaluate.ranking import JUNK, Matches, score


@evaluator(logits=False)
def run_eval(config: Mapping[str, Any], predict: Predict, *,
             ap: Annotated[Literal["standard", "trapezoid"], "which average precision mAP is"] = "standard",
             cross_camera: Annotated[bool, "a match must be of another camera than its query"] = True,
             query: Annotated[str, "name of the query split"] = "query",
             gallery: Annotated[str, "name of the gallery split"] = "gallery",
             block_mib: Annotated[int, Field(ge=1), "MiB of similarities held at a time"] = 64) -> dict[str, float]:
    """Means over the queries that have a match; the others are counted in `queries_without_match`."""
    asked, held = predict(query), predict(gallery)
    cameras = [side.cameras if cross_camera else np.full_like(side.cameras, -1) for side in (asked, held)]
    scores = score(Cosine(unit(asked.embeddings, query), unit(held.embeddings, gallery)),
                   Matches(asked.labels, cameras[0], held.labels, cameras[1]), block_bytes=block_mib * 2**20)
    valid = scores.valid
    if not valid.any():
        raise DataError(f"{query} against {gallery}: {_why_nothing_matches(asked, held)}")
    precisions = {"standard": scores.ap, "trapezoid": scores.ap_trapezoid}
    first_hit = scores.first_hit[valid]
    return {
        "mAP": float(precisions[ap][valid].mean()),
        "mAP_trapezoid": float(scores.ap_trapezoid[valid].mean()),
        **{f"rank{k}": float(np.mean(first_hit < k)) for k in (1, 5, 10)},
        "mINP": float(scores.inp[valid].mean()),
        "queries": float(np.count_nonzero(valid)),
        "queries_without_match": float(np.count_nonzero(~valid)),
    }


def _why_nothing_matches(query: Predictions, gallery: Predictions) -> str:
    """Why no query has a match, and the remedy."""
    known = np.isin(query.labels, gallery.labels) & (query.labels != JUNK)
    queries, matched = len(known), np.count_nonzero(known)
    if not matched:
        return (f"none of the {queries} queries has a label that the gallery of {len(gallery.labels)} "
                "images holds; pack both splits from one source")
    cameras = np.unique(query.cameras[known])
    camera = f"camera {cameras[0]}" if len(cameras) == 1 else "their camera"
    who = f"all {queries} queries" if matched == queries else (
        f"{queries - matched} of {queries} queries have labels that the gallery lacks, the other {matched}")
    return f"{who} share {camera} with their only matches; set evaluation_params.cross_camera to false"
