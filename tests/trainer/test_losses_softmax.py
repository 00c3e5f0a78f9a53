import math

import pytest
import torch

from trainer.losses.softmax import Softmax


def by_loops(logits, labels, smoothing):
    total = 0.0
    for branch in logits:
        classes = branch.shape[1]
        for row, label in zip(branch.tolist(), labels.tolist(), strict=True):
            log_sum = math.log(sum(math.exp(z) for z in row))
            for c, z in enumerate(row):
                target = (1 - smoothing) * (c == label) + smoothing / classes
                total -= target * (z - log_sum) / len(labels)
    return torch.tensor(total, dtype=torch.float64)


def test_even_logits_cost_the_logarithm_of_the_classes(output_of, make_batch):
    value, scalars = Softmax()(output_of(torch.zeros(2, 4), torch.zeros(2, 4)), make_batch([0, 3]))
    assert value == pytest.approx(2 * math.log(4))  # two branches of ln 4 each
    assert scalars["accuracy"] == 0.5  # a draw goes to class 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_matches_the_paper_written_as_loops(make_output, smoothing):
    output, batch = make_output(branches=3)
    value = Softmax(label_smoothing=smoothing)(output, batch).value
    torch.testing.assert_close(value, by_loops(output.logits, batch.labels, smoothing))


def test_the_gradient_of_cross_entropy_is_the_slope_of_its_value(output_of, make_output):
    output, batch = make_output(branches=2)
    assert torch.autograd.gradcheck(
        lambda *z: Softmax(label_smoothing=0.1)(output_of(*z), batch).value, output.logits)


def test_the_sum_over_stripes_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch):
    case = golden["002_pcb_sum_ce"]
    z = torch.tensor(case["inputs"]["z"], dtype=torch.float64, requires_grad=True)
    value, _ = Softmax()(output_of(*z), make_batch(case["inputs"]["y"]))
    assert_as_golden(case["outputs"], value, z=z)


def test_label_smoothing_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch):
    case = golden["001_label_smooth_ce"]
    z = torch.tensor(case["inputs"]["z"], dtype=torch.float64, requires_grad=True)
    loss = Softmax(label_smoothing=case["params"]["epsilon"])
    value, _ = loss(output_of(z), make_batch(case["inputs"]["y"]))
    assert_as_golden(case["outputs"], value, z=z)


def test_accuracy_is_that_of_the_mean_probability_of_the_branches(output_of, make_batch):
    sure, unsure = torch.tensor([[0.0, 4.0]]), torch.tensor([[9.0, 8.0]])  # P(class 1): 0.98 and 0.27
    assert Softmax()(output_of(sure, unsure), make_batch([1])).scalars["accuracy"] == 1.0
    assert Softmax()(output_of(unsure, unsure), make_batch([1])).scalars["accuracy"] == 0.0
