"""What losses of vectors have in common."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

On = Annotated[Literal["features", "embedding"], "before or after the neck's batch norm"]


def cosine_pairs(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of every two images and whether they are of one class: (N, D), (N,) -> (N (N - 1) / 2,) twice."""
    unit = F.normalize(vectors)
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    return (unit @ unit.T)[first, second], labels[first] == labels[second]
