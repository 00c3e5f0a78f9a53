"""What the trainer's tests share: small networks, images, and outputs as a network would give them."""

import pytest
import torch
import torch.nn.functional as F

from data.records import Batch
from params.schema import ModelParams
from trainer.backbones.backbone import Backbone
from trainer.branch import Branch
from trainer.model import Embedder, build_embedder
from trainer.necks import NoNeck
from trainer.output import Output
from trainer.pooling import Average

torch.set_num_threads(1)  # the networks here are too small to gain from more


@pytest.fixture
def images():
    """Six images of noise, (6, 3, 64, 32) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 64, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def make_embedder():
    """A network for 64 x 32 images; the names are those of the tables, further keys those of model_params."""
    def make(backbone="mobilenet_v3_small", pooling="avg", neck="bnneck", *, feature_dim=None, parts=0,
             classifier="linear", num_classes=5, seed=0, **keys):
        torch.manual_seed(seed)
        params = ModelParams.model_validate({
            "backbone": backbone, "pooling": {"type": pooling}, "neck": {"type": neck}, "feature_dim": feature_dim,
            "pcb_n_parts": parts, **keys})
        return build_embedder(
            params, classifier=classifier, num_classes=num_classes, height=64, width=32,
            mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    return make


class Pixels(Backbone):
    """The image itself as a feature map."""

    channels = 3

    def forward(self, images):
        return images


@pytest.fixture
def make_pixels():
    """A network without weights: its vector is the image's mean colour, or what a pooling to `dim` numbers makes."""
    def make(pooling=None, dim=3, *, margin=None, **normalisation):
        branch = Branch(pooling or Average(), NoNeck(dim, None), None)
        return Embedder(Pixels(), [branch], ModelParams(), margin=margin, **normalisation)
    return make


@pytest.fixture
def of_length():
    """Vectors in float64 with these lengths, as a leaf."""
    def make(*lengths):
        return torch.tensor([[length, 0.0] for length in lengths], dtype=torch.float64, requires_grad=True)
    return make


def leaves_of(output):
    """Every tensor of an output."""
    values = [value for value in vars(output).values() if value is not None]
    return [tensor for value in values for tensor in (value if isinstance(value, list) else [value])]


@pytest.fixture
def leaves():
    """An output -> every tensor of it."""
    return leaves_of


@pytest.fixture
def make_output(make_batch):
    """A network's output in float64 for `p` identities of `k` images, and the batch it belongs to.

    Every tensor is a leaf; for a "cosine" classifier logits are cosines, and come with lengths.
    """
    def make(p=4, k=3, *, dim=5, branches=1, classifier="linear", seed=0):
        generator = torch.Generator().manual_seed(seed)

        def draw(width):
            return torch.randn(p * k, width, dtype=torch.float64, generator=generator)

        logits = [draw(p) for _ in range(branches)]
        if classifier == "cosine":
            logits = [F.normalize(part) for part in logits]
        lengths = class_lengths = None
        if classifier == "cosine":
            lengths, class_lengths = ([draw(1)[:, 0].abs() + 5 for _ in range(branches)],
                                      [draw(1)[:p, 0].abs() + 1 for _ in range(branches)])
        output = Output(draw(dim), draw(dim), logits, 0.1 * draw(1)[:, 0], lengths, class_lengths)
        for tensor in leaves_of(output):
            tensor.requires_grad_()
        labels = torch.arange(p).repeat_interleave(k)
        return output, make_batch(labels)
    return make


@pytest.fixture(params=[[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [0, 1, 2, 0, 1, 2, 3, 0, 0, 4, 5, 0]],
                ids=["of one size", "of several sizes"])
def twelve_images(request, make_output, make_batch):
    """An output and its batch, with classes of one size and of several."""
    return make_output()[0], make_batch(request.param)


@pytest.fixture
def make_batch():
    """A batch of which only the labels matter."""
    def make(labels):
        labels = torch.as_tensor(labels)
        images = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
        return Batch(images, labels, cameras=torch.full_like(labels, -1))
    return make


@pytest.fixture
def output_of():
    """An output with these logits of its branches, and with `vectors` as features, embedding and what has lengths."""
    def make(*logits, vectors=None):
        vectors = torch.zeros(len(logits[0]), 1) if vectors is None else vectors
        return Output(vectors, vectors, list(logits) or None, lengths=[vectors.norm(dim=1)] * len(logits))
    return make


@pytest.fixture
def assert_as_golden():
    """The loss of a golden case, and its gradient in every leaf by name, are the original code's to 1e-6."""
    def check(outputs, value, **leaves):
        assert value.item() == pytest.approx(outputs["loss"], abs=1e-6)
        gradients = torch.autograd.grad(value, list(leaves.values()))
        for name, gradient in zip(leaves, gradients, strict=True):
            expected = torch.tensor(outputs[f"grad_{name}"], dtype=torch.float64)
            torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    return check
