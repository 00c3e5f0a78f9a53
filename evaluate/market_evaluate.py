"""Re-identification: a query split against a gallery split, as Market-1501 scores it."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from data.records import DataError, Predict, Predictions
from evaluate.deciles import by_decile
from evaluate.distances import Cosine, unit
from evaluate.multi_query import averaged
from evaluate.protocol import Scored, Search, ranking_evaluator
from evaluate.ranking import JUNK, Matches, score
from evaluate.similarity import Rerank, at_most_one, similarity_of


def search(
    predict: Predict, *,
    query: Annotated[str, "name of the query split"] = "query",
    gallery: Annotated[str, "name of the gallery split"] = "gallery",
    cross_camera: Annotated[bool, "a match must be of another camera than its query"] = True,
    multi_query: Annotated[bool, "a query is the mean of its images of one camera in split multi_query"] = False,
    rerank: Annotated[bool | Rerank, "k-reciprocal re-ranking: true, or {k1, k2, lambda_value, budget_mib}"] = False,
    spectral: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
                        "temperature of the spectral transformation of each query's first 50; null = off"] = None,
    margin_weight: Annotated[float, Field(allow_inf_nan=False),
                             "adds so much of a gallery image's margin to its angle with the query; 0 = off"] = 0.0,
) -> Search:
    """The queries' similarities to the gallery by at most one of rerank, spectral and margin_weight."""
    at_most_one(rerank=rerank, spectral=spectral, margin_weight=margin_weight)
    asked, held = predict(query), predict(gallery)
    embeddings = averaged(asked, predict("multi_query")) if multi_query else asked.embeddings
    cosine = Cosine(unit(embeddings, query), unit(held.embeddings, gallery))
    cameras = [side.cameras if cross_camera else np.full_like(side.cameras, -1) for side in (asked, held)]
    matches = Matches(asked.labels, cameras[0], held.labels, cameras[1])
    similarity = similarity_of(cosine, held.margins, rerank=rerank, spectral=spectral, margin_weight=margin_weight)
    return Search(query, gallery, asked, held, similarity, matches)


@ranking_evaluator(search)
def run_eval(
    found: Search, *,
    ap: Annotated[Literal["standard", "trapezoid"], "which average precision mAP is"] = "standard",
    count: Annotated[Literal["valid", "all"], "means over the queries that have a match, or over all, the others "
                     "scoring 0"] = "valid",
    deciles: Annotated[bool, "also mAP by norm and margin of the query images, of norm-aware networks"] = False,
    block_mib: Annotated[int, Field(ge=1), "MiB of similarities held at a time"] = 64,
) -> Scored:
    """Means over the queries that `count` names; those without a match are counted in `queries_without_match`."""
    scores = score(found.similarity, found.matches, block_bytes=block_mib * 2**20)
    valid = scores.valid
    if not valid.any():
        raise DataError(f"{found}: {_why_nothing_matches(found.query, found.gallery)}")
    counted = valid if count == "valid" else np.full_like(valid, True)
    first_hit = np.where(valid, scores.first_hit, np.inf)
    trapezoid, standard, inp = (np.where(counted, np.nan_to_num(column), np.nan)  # 0 where there is nothing to find
                                for column in (scores.ap_trapezoid, scores.ap, scores.inp))
    precisions = {"standard": standard, "trapezoid": trapezoid}[ap]
    return Scored("queries", {
        "mAP": precisions,
        "mAP_trapezoid": trapezoid,
        **{f"rank{k}": np.where(counted, first_hit < k, np.nan) for k in (1, 5, 10)},
        "mINP": inp,
    }, {
        "queries": float(np.count_nonzero(valid)),
        "queries_without_match": float(np.count_nonzero(~valid)),
        **(by_decile(found.query, counted, precisions[counted]) if deciles else {}),
    }, ranked_by="mAP")


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
