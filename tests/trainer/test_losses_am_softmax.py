import math

import pytest
import torch

from trainer.classifiers import Cosine
from trainer.losses.am_softmax import AMSoftmax


def by_loops(output, labels, margin, scale):
    total = 0.0
    for lengths, cosines in zip(output.lengths, output.logits, strict=True):
        for length, row, label in zip(lengths.tolist(), cosines.tolist(), labels.tolist(), strict=True):
            z = [scale * cos if scale else length * cos for cos in row]
            cos = row[label]
            z[label] = scale * (cos - margin) if scale else length * ((1 + margin) * cos - margin)
            total -= (z[label] - math.log(sum(math.exp(v) for v in z))) / len(labels)
    return torch.tensor(total, dtype=torch.float64)


def test_a_margin_lowers_the_logit_of_the_own_class_alone(output_of, make_batch):
    cosines = torch.tensor([[0.5, 0.3]])  # scaled by 10: 5 - 2 = 3 against 3
    value = AMSoftmax(margin=0.2, scale=10.0)(output_of(cosines), make_batch([0])).value
    assert value == pytest.approx(math.log(2))


def test_scale_0_keeps_the_length_of_the_embedding(output_of, make_batch):
    embedding, cosines = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.5, 0.2]])
    value = AMSoftmax(margin=0.6, scale=0.0)(output_of(cosines, vectors=embedding), make_batch([0])).value
    assert value == pytest.approx(math.log(2))  # 5 (1.6 x 0.5 - 0.6) = 1 against 5 x 0.2 = 1


@pytest.mark.parametrize("margin, scale", [(0.0, 30.0), (0.35, 30.0), (0.2, 0.0)])
def test_am_softmax_matches_the_paper_written_as_loops(make_output, margin, scale):
    output, batch = make_output(branches=2, classifier="cosine")
    value = AMSoftmax(margin=margin, scale=scale)(output, batch).value
    torch.testing.assert_close(value, by_loops(output, batch.labels, margin, scale))


@pytest.mark.parametrize("scale", [0.0, 8.0])
def test_the_gradient_of_am_softmax_is_the_slope_of_its_value(output_of, make_output, scale):
    output, batch = make_output(classifier="cosine")
    loss = AMSoftmax(scale=scale)
    assert torch.autograd.gradcheck(
        lambda x, cos: loss(output_of(cos, vectors=x), batch).value, (output.embedding, *output.logits))


@pytest.mark.parametrize("case", ["002_amsoftmax_m0.2_s0", "002_amsoftmax_m0.35_s30"])
def test_am_softmax_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch, case):
    inputs, outputs, params = golden[case]["inputs"], golden[case]["outputs"], golden[case]["params"]
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    classifier = Cosine(4, 4).double()
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor(inputs["w"], dtype=torch.float64))
    loss = AMSoftmax(margin=params["margin"], scale=params["scale"])
    value = loss(output_of(classifier(x), vectors=x), make_batch(inputs["y"])).value
    assert_as_golden(outputs, value, x=x, w=classifier.weight)


def test_margins_take_turns_as_in_the_original_code(golden, make_output):
    case = golden["002_amsoftmax_margin_steps"]
    loss = AMSoftmax(margin=case["params"]["margin"], step=case["params"]["step"])
    output, batch = make_output(classifier="cosine")
    for step, margin in zip(case["inputs"]["global_step"], case["outputs"]["margin"], strict=True):
        loss.set_step(step)
        value, scalars = loss(output, batch)
        assert float(scalars["margin"]) == margin
        assert torch.equal(value, AMSoftmax(margin=margin)(output, batch).value)


def test_one_margin_stays_at_every_step():
    loss = AMSoftmax(margin=0.4)
    loss.set_step(10**6)
    assert loss.margin == 0.4


def test_the_same_weights_in_float32_stay_close(output_of, make_output):
    output, batch = make_output(classifier="cosine")
    single = output_of(*[z.float() for z in output.logits], vectors=output.embedding.float())
    value = AMSoftmax()(output, batch).value
    torch.testing.assert_close(AMSoftmax()(single, batch).value.double(), value, rtol=2e-4, atol=0)


@pytest.mark.parametrize("margin, step", [([0.1, 0.2], None), (0.1, 400), ([0.1], 400)])
def test_a_step_without_several_margins_or_the_reverse_is_refused(margin, step):
    message = f"^am_softmax.step: .* got step {step} with margin .*; give both or neither$"
    with pytest.raises(ValueError, match=message):
        AMSoftmax(margin=margin, step=step)
