"""Losses on the CPU, forward and backward, against pytorch-metric-learning.

python -m benchmarks.losses [--rounds 20] [--small]

256 float32 embeddings of 512 numbers, 4 images of a class, and 750 classes, on one thread and on two. Both sides see
the same embeddings and, where a loss has weights, the same weights; the product of embeddings and weights counts on
both sides, since pytorch-metric-learning's losses hold the weights themselves. It has no HIST: that one is set beside
the matrix products within it. Values and gradients are compared where both define the loss alike.
"""

import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as peers
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn

from benchmarks.measure import Bar, Comparison, agreed, arguments, at_least, at_most, in_turns, table
from data.records import Batch
from params.plugin import Choice
from trainer.classifiers import Cosine
from trainer.losses import LOSSES
from trainer.output import Loss, Output

PER_CLASS = 4
THREADS = 1, 2
PEER = "pytorch-metric-learning"


@dataclass(frozen=True)
class Side:
    """A loss, and the tensors that it has a gradient in, the embeddings first."""

    loss: Callable[[], Tensor]
    leaves: Sequence[Tensor]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Forward and backward: the loss and its gradient in the embeddings."""
        value = self.loss()
        return value.detach(), torch.autograd.grad(value, self.leaves)[0]


@dataclass(frozen=True)
class Duel:
    """A loss of ours and what it is set beside."""

    what: str
    ours: Side
    peer: Side
    peer_name: str = PEER
    bar: Bar = at_least(1)
    alike: bool = True  # both define it alike

    def compared(self, rounds: int) -> Comparison:
        """Both in turns, on the threads that torch now has."""
        ours, peer = in_turns(rounds, self.ours, self.peer)
        return Comparison(f"{self.what}, threads: {torch.get_num_threads()}", ours, self.peer_name, peer, self.bar)

    def difference(self) -> float:
        """The largest one of values and gradients, as a share of the largest number in them."""
        pairs = zip(self.ours(), self.peer(), strict=True)
        return max(float((ours - peer).abs().max() / peer.abs().max()) for ours, peer in pairs)


def main() -> None:
    """Print the table, that values and gradients agree, and the time of every loss that Kiln has."""
    options = arguments(__doc__, rounds=20)
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_metric_learning")
    torch.manual_seed(0)
    count, dim, classes = (32, 64, 20) if options.small else (256, 512, 750)
    labels = torch.randperm(classes)[:count // PER_CLASS].repeat_interleave(PER_CLASS)
    embeddings = (0.3 * torch.randn(classes, dim)[labels] + torch.randn(count, dim)).requires_grad_()
    duels = [*of_pairs(embeddings, labels), *of_classes(embeddings, labels, classes),
             of_hist(embeddings, labels, classes)]
    lines = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        lines += [duel.compared(options.rounds) for duel in duels]
    print(table(lines))
    alike = [duel for duel in duels if duel.alike]
    agreed("values and gradients of " + ", ".join(duel.what for duel in alike),
           max(duel.difference() for duel in alike), 1e-4)
    print("\nCircle sums over all pairs of the batch, its peer over those of each image. Milliseconds of every loss of "
          f"Kiln on one thread, features, embedding and logits given: {all_of_ours(labels, dim, classes)}.")


def of_pairs(embeddings: Tensor, labels: Tensor) -> list[Duel]:
    """Losses of pairs and triplets of images."""
    def ours(name: str, on: Tensor = labels, **options: Any) -> Side:
        loss = LOSSES.build(Choice(name, {"on": "features", **options}))
        return Side(partial(value, loss, Output(embeddings, embeddings), on), [embeddings])

    def peer(loss: nn.Module, on: Tensor = labels) -> Side:
        return Side(lambda: loss(embeddings, on), [embeddings])

    euclidean = LpDistance(normalize_embeddings=False)
    triplets = peers.TripletMarginLoss(0.3, distance=euclidean, reducer=MeanReducer())
    miner = BatchHardMiner(distance=euclidean)
    images = torch.arange(len(labels))
    return [
        Duel("batch-hard triplet", ours("triplet", margin=0.3),
             Side(lambda: triplets(embeddings, labels, miner(embeddings, labels)), [embeddings])),
        Duel("histogram, 151 nodes", ours("histogram", bins=151), peer(peers.HistogramLoss(n_bins=150)),
             bar=at_least(5)),
        Duel("circle", ours("circle", margin=0.25, gamma=32), peer(peers.CircleLoss(m=0.25, gamma=32)), alike=False),
        Duel("instance", ours("instance", images, gamma=8), peer(peers.InstanceLoss(gamma=8), images)),
    ]


def of_classes(embeddings: Tensor, labels: Tensor, classes: int) -> list[Duel]:
    """Losses of cosines with the classes' weights."""
    dim = embeddings.shape[1]
    classifier = Cosine(dim, classes)

    def duel(name: str, theirs: Any, **options: Any) -> Duel:
        loss = LOSSES.build(Choice(name, options))
        theirs.W.data.copy_(classifier.weight.data.T)
        return Duel(name, Side(lambda: value(loss, Output(embeddings, embeddings, [classifier(embeddings)]), labels),
                               [embeddings, classifier.weight]),
                    Side(lambda: theirs(embeddings, labels), [embeddings, theirs.W]))

    return [
        duel("n-softmax", peers.NormalizedSoftmaxLoss(classes, dim, temperature=1 / 16), scale=16),
        duel("cosface", peers.CosFaceLoss(classes, dim, margin=0.3, scale=16), margin=0.3, scale=16),
        duel("arcface", peers.ArcFaceLoss(classes, dim, margin=180 * 0.3 / torch.pi, scale=16), margin=0.3, scale=16),
    ]


def of_hist(embeddings: Tensor, labels: Tensor, classes: int) -> Duel:
    """HIST beside the products of its distances, of the hypergraph network's layers, and of its two mixings."""
    count, dim = embeddings.shape
    loss = LOSSES.build(Choice("hist", {"hidden": 512}), embedding_dim=dim, num_classes=classes)
    shapes = [(count, dim, classes)] * 2 + [(count, dim, 512), (count, count, 512), (count, 512, classes),
                                            (count, count, classes)]
    factors = [(torch.randn(n, k, requires_grad=True), torch.randn(k, m, requires_grad=True)) for n, k, m in shapes]

    def products() -> Tensor:
        return torch.stack([(left @ right).sum() for left, right in factors]).sum()

    return Duel("HIST", Side(partial(value, loss, Output(embeddings, embeddings), labels),
                             [embeddings, *loss.parameters()]),
                Side(products, [leaf for pair in factors for leaf in pair]),
                "its matrix products alone", at_most(2), alike=False)


def value(loss: Loss, output: Output, labels: Tensor) -> Tensor:
    """The loss of this output for images of these classes."""
    images = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)  # no loss looks at them
    result: Tensor = loss(output, Batch(images, labels, torch.full_like(labels, -1))).value
    return result


def all_of_ours(labels: Tensor, dim: int, classes: int) -> str:
    """Name and milliseconds of each loss of the table, from its defaults, by name."""
    torch.set_num_threads(1)
    sides = [alone(name, labels, dim, classes) for name in LOSSES]
    milliseconds = [1000 * statistics.median(column[1:]) for column in in_turns(6, *sides)]
    return ", ".join(f"{name} {time:.2g}" for name, time in zip(LOSSES, milliseconds, strict=True))


def alone(name: str, labels: Tensor, dim: int, classes: int) -> Side:
    """A loss from its defaults, on all that a network could give it."""
    loss = LOSSES.build(Choice(name), embedding_dim=dim, num_classes=classes)
    images = len(labels) // 3 * 3 if loss.triplets else len(labels)
    vectors, margins, lengths = torch.randn(images, dim), 0.1 * torch.randn(images), 5 + torch.rand(images)
    logits, class_lengths = F.normalize(torch.randn(images, classes)), 1 + torch.rand(classes)
    given = [tensor.requires_grad_() for tensor in (vectors, logits, margins, lengths, class_lengths)]
    output = Output(vectors, vectors, [logits], margins, [lengths], [class_lengths])
    forward = partial(value, loss, output, labels[:images])
    leaves = [*given, *loss.parameters()]
    gradients = torch.autograd.grad(forward(), leaves, allow_unused=True)
    return Side(forward, [leaf for leaf, gradient in zip(leaves, gradients, strict=True) if gradient is not None])


if __name__ == "__main__":
    main()
