import pytest
import torch
import torch.nn.functional as F

from trainer.losses.histogram import Histogram, histograms
from trainer.losses.pairs import cosine_pairs


def by_loops(vectors, labels, bins):
    """As the paper: every node asks every pair how near it is."""
    rows, labels, step = F.normalize(vectors).tolist(), labels.tolist(), 2 / (bins - 1)
    found = {True: [], False: []}
    for i, row in enumerate(rows):
        for j in range(i):
            found[labels[i] == labels[j]].append(sum(a * b for a, b in zip(row, rows[j], strict=True)))

    def histogram(cosines):
        return [sum(max(0.0, 1 - abs(s - (-1 + r * step)) / step) for s in cosines) / len(cosines) for r in range(bins)]

    positive, negative = histogram(found[True]), histogram(found[False])
    return torch.tensor(sum(negative[r] * sum(positive[:r + 1]) for r in range(bins)), dtype=torch.float64)


def test_histograms_of_three_vectors_are_as_worked_out_by_hand(output_of, make_batch):
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 3**0.5]])  # at 0, 90 and 60 degrees, the first two of a class
    # nodes -1, 0, 1; positive 0 -> 0 1 0, Phi = 0 1 1; negative 1/2 and sqrt(3) / 2 lie between nodes 0 and 1
    value, scalars = Histogram(bins=3)(output_of(vectors=vectors), make_batch([0, 0, 1]))
    assert value.item() == pytest.approx(1.0)
    assert scalars["mean_positive"] == 0.0 and float(scalars["mean_negative"]) == pytest.approx((0.5 + 0.75**0.5) / 2)
    assert scalars["positive_pairs"] == 1 and scalars["negative_pairs"] == 2
    # positive 1/2 -> 0 1/2 1/2, Phi = 0 1/2 1; negative 0 and sqrt(3) / 2 -> 0 (2-0.866)/2 0.866/2
    value = Histogram(bins=3)(output_of(vectors=vectors), make_batch([0, 1, 0])).value
    assert value.item() == pytest.approx((2 - 0.75**0.5) / 4 + 0.75**0.5 / 2)


@pytest.mark.parametrize("bins", [2, 11, 150, 151])
def test_histogram_loss_matches_the_paper_written_as_loops(twelve_images, bins):
    output, batch = twelve_images
    expected = by_loops(output.features, batch.labels, bins)
    torch.testing.assert_close(Histogram(bins=bins)(output, batch).value, expected)


def test_the_gradient_of_histogram_loss_is_the_slope_of_its_value(output_of, make_output):
    output, batch = make_output(p=3, k=3)
    assert torch.autograd.gradcheck(
        lambda x: Histogram(bins=11)(output_of(vectors=x), batch).value, output.features)


@pytest.mark.parametrize("case", ["000_histogram_r11", "000_histogram_r151", "000_histogram_r150_even"])
def test_histogram_loss_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch, case):
    inputs, outputs, params = golden[case]["inputs"], golden[case]["outputs"], golden[case]["params"]
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    # its gradient is that in unit vectors: what points along them is lost where we bring them to unit length
    outward = torch.tensor(outputs["grad_x"], dtype=torch.float64)
    tangent = outward - (outward * x.detach()).sum(dim=1, keepdim=True) * x.detach()
    value, _ = Histogram(bins=params["nbins"])(output_of(vectors=x), make_batch(inputs["y"]))
    assert_as_golden({"loss": outputs["loss"], "grad_x": tangent.tolist()}, value, x=x)


def test_cosines_of_minus_1_and_1_fall_on_the_outer_nodes(golden, output_of, make_batch):
    case = golden["000_histogram_boundary"]
    x = torch.tensor(case["inputs"]["x"], requires_grad=True)
    value, _ = Histogram(bins=case["params"]["nbins"])(output_of(vectors=x), make_batch(case["inputs"]["y"]))
    assert value.item() == pytest.approx(case["outputs"]["loss"])
    assert torch.autograd.grad(value, x)[0].isfinite().all()


@pytest.mark.parametrize("bins", [2, 150, 151])
def test_a_histogram_has_the_mass_1(bins):
    vectors = torch.randn(128, 512, generator=torch.Generator().manual_seed(0))
    vectors[:2] = vectors[2]  # three of one place: cosines of 1, rounded
    mass = histograms(*cosine_pairs(vectors, torch.arange(128) // 4), bins)
    assert (mass >= 0).all()
    torch.testing.assert_close(mass.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("labels, pairs", [([0, 0, 0, 0], (6, 0)), ([0, 1, 2, 3], (0, 6)), ([0], (0, 0))])
def test_without_pairs_to_compare_value_and_gradient_are_0_and_the_scalars_say_so(output_of, make_batch, labels, pairs):
    vectors = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value, scalars = Histogram()(output_of(vectors=vectors), make_batch(labels))
    assert value == 0 and (torch.autograd.grad(value, vectors)[0] == 0).all()
    assert (scalars["positive_pairs"], scalars["negative_pairs"]) == pairs
