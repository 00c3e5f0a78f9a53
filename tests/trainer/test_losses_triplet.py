import math

import pytest
import torch

from trainer.losses.pairs import pairwise_distances, products
from trainer.losses.triplet import Triplet


def by_loops(vectors, labels, loss):
    rows, labels = vectors.tolist(), labels.tolist()
    terms = []
    for anchor, label in zip(rows, labels, strict=True):
        others = [(math.dist(anchor, row), other) for row, other in zip(rows, labels, strict=True)]
        positives = [distance for distance, other in others if other == label]
        negatives = [distance for distance, other in others if other != label]
        if len(positives) < 2 or not negatives:
            continue
        if loss.adaptive_weight:
            up = [math.exp(d) for d in positives]
            down = [math.exp(-d) for d in negatives]
            ap = sum(w * d for w, d in zip(up, positives, strict=True)) / sum(up)
            an = sum(w * d for w, d in zip(down, negatives, strict=True)) / sum(down)
        else:
            ap, an = max(positives), min(negatives)
        soft = loss.margin == "soft_margin"
        terms.append(math.log(1 + math.exp(ap - an)) if soft else max(ap - an + loss.margin, 0.0))
    return torch.tensor(sum(terms) / max(len(terms), 1), dtype=torch.float64)


LINE = torch.tensor([[0.0], [2.0], [3.0], [7.0]])  # classes 0 0 1 1: (ap, an) = (2, 3) (2, 1) (4, 1) (4, 5)


@pytest.mark.parametrize("margin, value", [
    (0.0, (0 + 1 + 3 + 0) / 4),
    (1.5, (0.5 + 2.5 + 4.5 + 0.5) / 4),
    ("soft_margin", sum(math.log1p(math.exp(d)) for d in (-1, 1, 3, -1)) / 4),
])
def test_batch_hard_on_a_line_is_as_worked_out_by_hand(output_of, make_batch, margin, value):
    loss, scalars = Triplet(margin=margin)(output_of(vectors=LINE), make_batch([0, 0, 1, 1]))
    assert loss.item() == pytest.approx(value)
    assert scalars["mean_dist_ap"] == 3.0 and scalars["mean_dist_an"] == 2.5 and scalars["pull_ratio"] == 0.5
    assert scalars["active_triplets"] == (2 if margin == 0 else 4)


def test_triplet_of_equal_embeddings_is_the_margin(output_of, make_batch):
    vectors = torch.ones(4, 8, requires_grad=True)
    value = Triplet(margin=0.3)(output_of(vectors=vectors), make_batch([0, 0, 1, 1])).value
    assert value.item() == pytest.approx(0.3)
    assert (torch.autograd.grad(value, vectors)[0] == 0).all()


@pytest.mark.parametrize("margin", [0.0, 0.3, "soft_margin"])
@pytest.mark.parametrize("adaptive_weight", [False, True])
def test_triplet_matches_the_paper_written_as_loops(twelve_images, margin, adaptive_weight):
    output, batch = twelve_images
    loss = Triplet(margin=margin, adaptive_weight=adaptive_weight)
    torch.testing.assert_close(loss(output, batch).value, by_loops(output.features, batch.labels, loss))


@pytest.mark.parametrize("options", [
    {}, {"margin": "soft_margin"}, {"adaptive_weight": True, "margin": 2.0}, {"normalize": True}])
def test_the_gradient_of_triplet_is_the_slope_of_its_value(output_of, make_output, options):
    output, batch = make_output(p=3, k=3)
    loss = Triplet(**options)
    assert torch.autograd.gradcheck(lambda x: loss(output_of(vectors=x), batch).value, output.features)


CASES = ["001_tri_m0.3", "002_triplet_hard_m0.16", "002_triplet_hard_m0.8", "002_triplet_adaptive_m0.16",
         "002_triplet_adaptive_softmargin"]


@pytest.mark.parametrize("case", CASES)
def test_triplet_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch, case):
    inputs, outputs, params = golden[case]["inputs"], golden[case]["outputs"], golden[case]["params"]
    margin = "soft_margin" if params["margin"] < 0 else params["margin"]
    loss = Triplet(margin=margin, adaptive_weight=bool(params.get("use_adaptive_weight")))
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    value, scalars = loss(output_of(vectors=x), make_batch(inputs["y"]))
    assert_as_golden(outputs, value, x=x)
    for name in {"active_triplets", "mean_dist_ap", "mean_dist_an"} & set(outputs):
        assert float(scalars[name]) == pytest.approx(outputs[name], abs=1e-6)
    if "pull_ratio_percent" in outputs:
        assert 100 * float(scalars["pull_ratio"]) == pytest.approx(outputs["pull_ratio_percent"])


@pytest.mark.parametrize("adaptive_weight", [False, True])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_without_any_triplet_value_and_gradient_are_0(output_of, make_batch, adaptive_weight, labels):
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value, scalars = Triplet(adaptive_weight=adaptive_weight)(output_of(vectors=vectors), make_batch(labels))
    assert value == 0 and (torch.autograd.grad(value, vectors)[0] == 0).all()
    assert all(scalar == 0 for scalar in scalars.values())


def test_distances_in_float32_are_exact_far_from_the_origin():
    vectors = 100 + torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    vectors[1] = vectors[0] + 0.01  # at 1e-4 of their length from each other
    vectors.requires_grad_()
    wide = vectors.detach().double().requires_grad_()
    distances, expected = pairwise_distances(vectors), (wide[:, None] - wide).norm(dim=2)
    assert (distances.diagonal() == 0).all()
    torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=0)
    distances.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(vectors.grad.double(), wide.grad, rtol=0, atol=1e-6)


def test_the_gradient_of_products_is_their_slope_and_has_one_itself():
    vectors = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(products, vectors) and torch.autograd.gradgradcheck(products, vectors)


def test_an_image_drawn_twice_is_a_positive_at_distance_0(output_of, make_batch):
    vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [3.0, 5.0]], requires_grad=True)
    value, scalars = Triplet(margin=6.0)(output_of(vectors=vectors), make_batch([0, 0, 1, 1]))
    # (ap, an): (0, 5) twice, (1, 5), (1, sqrt 34)
    assert value.item() == pytest.approx((1 + 1 + 2 + 7 - math.sqrt(34)) / 4)
    assert torch.autograd.grad(value, vectors)[0].isfinite().all()


def test_normalised_vectors_have_no_length(output_of, make_output):
    output, batch = make_output()
    scaled = output_of(vectors=output.features * torch.arange(1, 13)[:, None])
    loss = Triplet(normalize=True)
    torch.testing.assert_close(loss(scaled, batch).value, loss(output, batch).value)
    assert not torch.allclose(Triplet()(scaled, batch).value, Triplet()(output, batch).value)
