"""What losses read of an output besides its vectors: logits, lengths, margins."""

import torch
from torch import Tensor

from trainer.output import Output


def branch_logits(output: Output) -> list[Tensor]:
    """One (B, K) per branch; ValueError where the network has no classifier."""
    if output.logits is None:
        raise ValueError("losses: a classification loss needs logits, and this network has no classifier")
    return output.logits


def branch_lengths(output: Output) -> list[Tensor]:
    """One (B,) per branch: the length of what a cosine classifier compared; ValueError where there is none."""
    if output.lengths is None:
        raise ValueError("losses: a loss of cosines needs the lengths of what they compare, and there are none")
    return output.lengths


def branch_class_lengths(output: Output) -> list[Tensor]:
    """One (K,) per branch: the length of every class's vector; ValueError where there is none."""
    if output.class_lengths is None:
        raise ValueError("losses: a loss of the classes' lengths needs a cosine classifier, and there is none")
    return output.class_lengths


@torch.no_grad()
def accuracy(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Share of the images whose class has the largest mean probability over the branches."""
    probabilities = torch.stack([branch.softmax(dim=1) for branch in logits]).mean(dim=0)
    return (probabilities.argmax(dim=1) == labels).to(probabilities.dtype).mean()


def image_margins(output: Output) -> Tensor:
    """The images' own margins, (B,); ValueError where the network makes none."""
    if output.margins is None:
        raise ValueError("losses: a norm-aware loss needs margins, and this network makes none; "
                         'give model_params.margin, e.g. "nn"')
    return output.margins


def spread(margins: Tensor) -> dict[str, Tensor]:
    """What is worth a curve of margins, (B,)."""
    known = margins.detach()
    return {"margin": known.mean(), "margin_min": known.min(), "margin_max": known.max()}
