"""Retrieval by class: every image of a split asks for the others, or a query split asks a gallery split."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from data.records import DataError, Predict
from evaluate.clustering import clustering_nmi, needs_sklearn
from evaluate.distances import Cosine, unit
from evaluate.protocol import Scored, Search, ranking_evaluator
from evaluate.ranking import JUNK, Matches, average_precision_at_r, positive_ranks, r_precision
from params.errors import Mistake, ParamsError


def search(
    predict: Predict, *,
    split: Annotated[str | None, "name of the split, each image a query against the others; null = test, unless "
                     "query and gallery are given"] = None,
    query: Annotated[str | None, "name of the query split, instead of split"] = None,
    gallery: Annotated[str | None, "name of the gallery split, instead of split"] = None,
) -> Search:
    """Cosines of the images of one split (leave-one-out), or of two."""
    if (query is None) != (gallery is None) or (split is not None and query is not None):
        raise ParamsError("params.json", [Mistake(("evaluation_params",), "expected split alone, or query and "
                                                  f"gallery, found split {split}, query {query}, gallery {gallery}")])
    if query is None or gallery is None:
        query = gallery = split or "test"
    asked = predict(query)
    embeddings = unit(asked.embeddings, query)
    if query == gallery:
        own = np.arange(len(asked.labels))  # each image is its own camera: it ignores itself
        return Search(query, gallery, asked, asked, Cosine(embeddings, embeddings),
                      Matches(asked.labels, own, asked.labels, own))
    held = predict(gallery)
    cameras = [np.full_like(side.cameras, -1) for side in (asked, held)]
    return Search(query, gallery, asked, held, Cosine(embeddings, unit(held.embeddings, gallery)),
                  Matches(asked.labels, cameras[0], held.labels, cameras[1]))


@ranking_evaluator(search)
def run_eval(
    found: Search, *,
    k: Annotated[Sequence[Annotated[int, Field(ge=1)]], Field(min_length=1),
                 "recall@k: share with one of its class among the nearest k"] = (1, 2, 4, 8),
    nmi: Annotated[bool, AfterValidator(needs_sklearn), "also cluster the images that are searched: the "
                   "best of 10 runs of k-means, one alone beyond 1,000 classes; minutes at 60,000 images"] = False,
    block_mib: Annotated[int, Field(ge=1), "MiB of similarities held at a time"] = 64,
) -> Scored:
    """Means over the images whose class has another; the others are counted in `queries_without_match`."""
    table = np.full((3, len(found.query.labels)), np.nan)
    for row, ranks in enumerate(positive_ranks(found.similarity, found.matches, block_bytes=block_mib * 2**20)):
        if ranks.size:
            table[:, row] = ranks[0], average_precision_at_r(ranks), r_precision(ranks)
    first_hit, map_at_r, precision = table
    valid = ~np.isnan(first_hit)
    if not valid.any():
        raise DataError(_nothing_to_find(found))
    recalls = {f"recall@{n}": np.where(valid, first_hit < n, np.nan) for n in k}
    others = {"queries": float(np.count_nonzero(valid)), "queries_without_match": float(np.count_nonzero(~valid))}
    if nmi:
        known = found.gallery.labels != JUNK
        embeddings = unit(found.gallery.embeddings[known], found.gallery_split)
        others = {"nmi": clustering_nmi(embeddings, found.gallery.labels[known]), **others}
    return Scored("queries", {**recalls, "map@r": map_at_r, "r_precision": precision}, others, ranked_by="map@r")


def _nothing_to_find(found: Search) -> str:
    """Why no image has a match, and the remedy."""
    count = len(found.query.labels)
    if found.query_split == found.gallery_split:
        return (f"{found.query_split}: none of its {count} images has another of its class to find; retrieval_evaluate "
                "needs two images of a class")
    return (f"{found}: none of the {count} queries has a class that the gallery of "
            f"{len(found.gallery.labels)} images holds; pack both splits from one source")
