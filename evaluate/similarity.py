"""From unit embeddings to the similarities that are ranked: cosines, or one of three refinements of them."""

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data.records import DataError
from evaluate.distances import Cosine, ShiftedAngle
from evaluate.ranking import Similarity
from evaluate.rerank import Reranked
from evaluate.spectral import Spectral
from params.errors import Mistake, ParamsError


class Rerank(BaseModel):
    """k-reciprocal re-ranking; Zhong et al., 2017."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    k1: Annotated[int, Field(ge=1, description="neighbours that encode an image")] = 20
    k2: Annotated[int, Field(ge=1, description="encodings averaged; 1 = none")] = 6
    lambda_value: Annotated[float, Field(ge=0, le=1, description="weight of the original distance")] = 0.3
    budget_mib: Annotated[int | None, Field(ge=1, description="MiB of memory beside the embeddings, which changes no "
                                            "distance; too few are refused with the figure; null = no bound")] = None


def at_most_one(**options: Any) -> None:
    """ParamsError when more than one of the options is on: none was made for the ranking that another leaves."""
    names = [name for name, value in options.items() if value not in (None, False, 0)]
    if len(names) > 1:
        message = f'"{names[0]}" changes the ranking too; keep one of {" and ".join(names)}'
        raise ParamsError("params.json", [Mistake(("evaluation_params", names[1]), message)])


def similarity_of(cosine: Cosine, margins: np.ndarray | None, *, rerank: bool | Rerank, spectral: float | None,
                  margin_weight: float) -> Similarity:
    """The refined similarities (Q, G), or the cosines where no refinement is on; margins (G,) are the gallery's."""
    if rerank is not False:
        options = Rerank() if rerank is True else Rerank.model_validate(rerank)
        return Reranked(cosine, **options.model_dump())
    if spectral is not None:
        return Spectral(cosine, spectral)
    if margin_weight:
        if margins is None:
            raise DataError("the network gives no margins for evaluation_params.margin_weight; choose "
                            "model_params.margin, or leave margin_weight at 0")
        return ShiftedAngle(cosine, margin_weight * margins)
    return cosine
