import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.softmax import Softmax
from trainer.losses.spectral import Spectral, affinity


def by_loops(output, labels, temperature):
    """The transformed embedding of one image after the other, put before a classifier that gives output.logits."""
    rows, total = F.normalize(output.embedding).tolist(), 0.0
    for branch in output.logits:
        for i, label in enumerate(labels.tolist()):
            weights = [math.exp(sum(a * b for a, b in zip(rows[i], row, strict=True)) / temperature) for row in rows]
            mixed = [sum(w * z for w, z in zip(weights, column, strict=True)) / sum(weights)
                     for column in branch.T.tolist()]
            for z in (branch[i].tolist(), mixed):
                total -= (z[label] - math.log(sum(map(math.exp, z)))) / len(labels)
    return torch.tensor(total, dtype=torch.float64)


def test_two_images_at_right_angles_mix_as_worked_out_by_hand(output_of, make_batch):
    vectors, logits = torch.tensor([[9.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # at temperature 1 / ln 3, an image keeps 3/4 of its own: logits (0.75, 0.75) and (0.25, 2.25)
    loss = Spectral(temperature=1 / math.log(3))
    value, scalars = loss(output_of(logits, vectors=vectors), make_batch([0, 1]))
    plain = math.log1p(math.exp(-1)) + math.log1p(math.exp(-3))
    assert value.item() == pytest.approx((plain + math.log(2) + math.log1p(math.exp(-2))) / 2)
    assert float(scalars["own_weight"]) == pytest.approx(0.75) and scalars["accuracy"] == 1.0


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_spectral_matches_the_paper_written_as_loops(make_output, temperature):
    output, batch = make_output(branches=2)
    value = Spectral(temperature=temperature, accuracy=0.0)(output, batch).value
    torch.testing.assert_close(value, by_loops(output, batch.labels, temperature))


def test_a_linear_classifier_gives_the_transformed_embedding_the_transformed_logits(make_output):
    output, _ = make_output()
    classifier = torch.nn.Linear(5, 4).double()
    weights = affinity(output.embedding, 0.3)
    torch.testing.assert_close(weights @ classifier(output.embedding), classifier(weights @ output.embedding))


def test_the_gradient_of_spectral_is_the_slope_of_its_value(output_of, make_output):
    output, batch = make_output(branches=2)
    assert torch.autograd.gradcheck(
        lambda x, *z: Spectral(accuracy=0.0)(output_of(*z, vectors=x), batch).value, (output.embedding, *output.logits))


def test_the_transform_is_that_of_the_original_code_by_rows(golden):
    case = golden["002_spectral_transform_train"]
    x = torch.tensor(case["inputs"]["x"], dtype=torch.float64)
    weights = affinity(x, case["params"]["temperature"])
    expected = torch.tensor(case["outputs"]["recommended_row_softmax"], dtype=torch.float64)
    torch.testing.assert_close(weights @ x, expected, atol=1e-6, rtol=0)
    assert float(weights.diagonal().mean()) == pytest.approx(case["outputs"]["st_mean"])


def test_plain_logits_count_twice_until_enough_of_the_batch_is_right(output_of, make_batch):
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output, batch = output_of(2 * torch.eye(4), vectors=vectors), make_batch([0, 1, 2, 0])  # 3 of 4 right
    early = Spectral(accuracy=0.76)(output, batch).value
    assert early == 2 * Softmax()(output, batch).value
    assert (torch.autograd.grad(early, vectors)[0] == 0).all()
    late = Spectral(accuracy=0.75)(output, batch).value
    assert late != early and torch.autograd.grad(late, vectors)[0].abs().sum() > 0
