import math

import pytest
import torch

from trainer.losses.focal import Focal


def by_loops(logits, labels, gamma):
    total = 0.0
    for branch in logits:
        for row, label in zip(branch.tolist(), labels.tolist(), strict=True):
            p = math.exp(row[label]) / sum(math.exp(z) for z in row)
            total -= (1 - p) ** gamma * math.log(p) / len(labels)
    return torch.tensor(total, dtype=torch.float64)


def test_even_odds_with_gamma_2_cost_a_quarter_of_ln_2(output_of, make_batch):
    value = Focal()(output_of(torch.zeros(1, 2)), make_batch([0])).value  # (1 - 1/2)^2 ln 2
    assert value == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_matches_the_paper_written_as_loops(make_output, gamma):
    output, batch = make_output(branches=2)
    expected = by_loops(output.logits, batch.labels, gamma)
    torch.testing.assert_close(Focal(gamma=gamma)(output, batch).value, expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_gradient_of_focal_loss_is_the_slope_of_its_value(output_of, make_output, gamma):
    output, batch = make_output()
    assert torch.autograd.gradcheck(lambda z: Focal(gamma=gamma)(output_of(z), batch).value, output.logits)


def test_focal_loss_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch):
    case = golden["002_focal_gamma2"]
    z = torch.tensor(case["inputs"]["z"], dtype=torch.float64, requires_grad=True)
    value, _ = Focal(gamma=case["params"]["gamma"])(output_of(z), make_batch(case["inputs"]["y"]))
    assert_as_golden(case["outputs"], value, z=z)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label, value", [(0, 0.0), (1, 1e4)])
def test_certainty_right_or_wrong_has_a_finite_gradient(output_of, make_batch, gamma, label, value):
    z = torch.tensor([[1e4, 0.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(output_of(z), make_batch([label])).value
    assert loss.item() == pytest.approx(value)
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
