import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.circle import Circle


def by_loops(vectors, labels, margin, gamma, similarity):
    """The paper's sums over pairs, with its optima -margin and 1 + margin and its bounds margin and 1 - margin."""
    rows, labels = F.normalize(vectors).tolist(), labels.tolist()
    positive = negative = 0.0
    for i, row in enumerate(rows):
        for j in range(i):
            s = sum(a * b for a, b in zip(row, rows[j], strict=True))
            s = s if similarity == "cosine" else 1 - math.sqrt(1 - s * s)
            if labels[i] == labels[j]:
                positive += math.exp(-gamma * max(1 + margin - s, 0) * (s - (1 - margin)))
            else:
                negative += math.exp(gamma * max(s + margin, 0) * (s - margin))
    return torch.tensor(math.log(1 + positive * negative), dtype=torch.float64)


TRIPLE = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.8, 0.6]])  # cosines 0.6, 0.8 and, of the last two, 0.96


@pytest.mark.parametrize("similarity, positive, negatives", [
    ("cosine", 0.6, (0.8, 0.96)),
    ("sine", 1 - 0.8, (1 - 0.6, 1 - 0.28)),
])
def test_circle_of_three_vectors_is_as_worked_out_by_hand(output_of, make_batch, similarity, positive, negatives):
    value, scalars = Circle(margin=0.5, gamma=1.0, similarity=similarity)(
        output_of(vectors=TRIPLE), make_batch([0, 0, 1]))
    pulled = math.exp((1.5 - positive) * (0.5 - positive))
    pushed = sum(math.exp((s + 0.5) * (s - 0.5)) for s in negatives)
    assert value.item() == pytest.approx(math.log(1 + pulled * pushed))
    assert float(scalars["mean_positive"]) == pytest.approx(positive)
    assert float(scalars["mean_negative"]) == pytest.approx(sum(negatives) / 2)


@pytest.mark.parametrize("similarity", ["cosine", "sine"])
def test_circle_matches_the_paper_written_as_loops(twelve_images, similarity):
    output, batch = twelve_images
    expected = by_loops(output.features, batch.labels, 0.25, 8.0, similarity)
    torch.testing.assert_close(Circle(gamma=8.0, similarity=similarity)(output, batch).value, expected)


@pytest.mark.parametrize("similarity", ["cosine", "sine"])
def test_weights_of_pairs_are_constants_of_the_gradient(output_of, make_batch, similarity):
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss, batch = Circle(margin=0.25, gamma=1.0, similarity=similarity), make_batch([0, 0, 1])
    gradient = torch.autograd.grad(loss(output_of(vectors=x), batch).value, x)[0]

    def with_weights_of_x(vectors):
        """The same with weights that do not move: [1.25 - s_p]+ and [0.25 + s_n]+ at x."""
        unit = F.normalize(vectors)
        cos = torch.stack([unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]])
        s = cos if similarity == "cosine" else 1 - (1 - cos.square()).sqrt()
        at = s.detach()
        pulled = (1.25 - at[0]) * (0.75 - s[0])
        pushed = (at[1:] + 0.25) * (s[1:] - 0.25)
        return torch.log(1 + pulled.exp() * pushed.exp().sum())

    torch.testing.assert_close(gradient, torch.autograd.grad(with_weights_of_x(x), x)[0])


CASES = {"004_circle_m0.25_gamma32": ("cosine", 1), "001_circle_sine": ("sine", 256)}


@pytest.mark.parametrize("case", CASES)
def test_circle_is_that_of_the_original_codes(golden, assert_as_golden, output_of, make_batch, case):
    similarity, divisor = CASES[case]
    inputs, outputs, params = golden[case]["inputs"], golden[case]["outputs"], golden[case]["params"]
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    loss = Circle(margin=params["m"], gamma=params["gamma"], similarity=similarity)
    value, _ = loss(output_of(vectors=x), make_batch(inputs["y"]))
    assert_as_golden(outputs, value / divisor, x=x)  # the second code divides by gamma


@pytest.mark.parametrize("similarity", ["cosine", "sine"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0]])
def test_without_pairs_to_compare_value_and_gradient_are_0(output_of, make_batch, similarity, labels):
    vectors = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = Circle(similarity=similarity)(output_of(vectors=vectors), make_batch(labels)).value
    assert value == 0 and (torch.autograd.grad(value, vectors)[0] == 0).all()


def test_vectors_of_one_line_have_a_finite_gradient_of_the_sine(output_of, make_batch):
    vectors = torch.tensor([[1.0, 1.0], [2.0, 2.0], [-1.0, -1.0], [0.0, 1.0]], requires_grad=True)
    value, scalars = Circle(similarity="sine")(output_of(vectors=vectors), make_batch([0, 0, 1, 1]))
    assert float(scalars["mean_negative"]) == pytest.approx((1 + 1 + 2 * (1 - 0.5**0.5)) / 4, abs=1e-3)
    assert torch.autograd.grad(value, vectors)[0].isfinite().all()


def test_a_large_gamma_does_not_overflow(output_of, make_batch):
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    value = Circle(gamma=256.0)(output_of(vectors=vectors), make_batch([0, 0, 1, 1])).value
    # positives at -1 and 0: 256 x 2.25 x 1.75 is the larger; negatives at 1, 0, -1, 0: 256 x 1.25 x 0.75
    assert value.item() == pytest.approx(256 * (2.25 * 1.75 + 1.25 * 0.75))
    assert torch.autograd.grad(value, vectors)[0].isfinite().all()
