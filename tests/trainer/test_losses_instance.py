import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.instance import Instance


def by_loops(vectors, labels, gamma, per_class):
    rows, labels = vectors.tolist(), labels.tolist()
    if per_class:
        members = {label: [row for row, own in zip(rows, labels, strict=True) if own == label] for label in labels}
        rows = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in members.values()]
    rows = [[a / math.hypot(*row) for a in row] for row in rows]
    total = 0.0
    for i, row in enumerate(rows):
        logits = [gamma * sum(a * b for a, b in zip(row, other, strict=True)) for other in rows]
        total -= logits[i] - math.log(sum(math.exp(z) for z in logits))
    return torch.tensor(total / len(rows), dtype=torch.float64)


def test_two_images_at_right_angles_are_as_worked_out_by_hand(output_of, make_batch):
    vectors = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    value, scalars = Instance(gamma=2.0)(output_of(vectors=vectors), make_batch([0, 0]))
    p = math.exp(2) / (math.exp(2) + 1)
    assert value.item() == pytest.approx(-math.log(p)) and float(scalars["own_probability"]) == pytest.approx(p)


def test_classes_are_told_apart_by_the_direction_of_their_mean(output_of, make_batch):
    vectors = torch.tensor([[3.0, 1.0], [0.0, 7.0], [3.0, -1.0], [0.0, 1.0]])  # means (3, 0) and (0, 4)
    value = Instance(gamma=2.0, per_class=True)(output_of(vectors=vectors), make_batch([8, 3, 8, 3])).value
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize("per_class", [False, True])
def test_instance_matches_the_paper_written_as_loops(twelve_images, per_class):
    output, batch = twelve_images
    value = Instance(gamma=4.0, per_class=per_class)(output, batch).value
    torch.testing.assert_close(value, by_loops(output.features, batch.labels, 4.0, per_class))


@pytest.mark.parametrize("per_class", [False, True])
def test_the_gradient_of_instance_is_the_slope_of_its_value(output_of, make_output, per_class):
    output, batch = make_output(p=3, k=2)
    assert torch.autograd.gradcheck(
        lambda x: Instance(gamma=4.0, per_class=per_class)(output_of(vectors=x), batch).value, output.features)


@pytest.mark.parametrize("case, per_class", [
    ("004_instance_gamma32", False), ("004_instance_with_labels_gamma32", True)])
def test_instance_is_that_of_the_original_code(golden, output_of, make_batch, case, per_class):
    inputs, outputs, params = golden[case]["inputs"], golden[case]["outputs"], golden[case]["params"]
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    loss = Instance(gamma=float(params["gamma"]), per_class=per_class)
    value, _ = loss(output_of(vectors=x), make_batch(inputs["y"]))
    assert value.item() == pytest.approx(outputs["loss"], rel=1e-6)  # as small as 3e-9
    gradient, expected = torch.autograd.grad(value, x)[0], torch.tensor(outputs["grad_x"], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_an_image_drawn_twice_is_a_toss_up(output_of, make_batch):
    vectors = torch.tensor([[3.0, 4.0], [3.0, 4.0]], requires_grad=True)
    value = Instance()(output_of(vectors=vectors), make_batch([0, 0])).value
    assert value.item() == pytest.approx(math.log(2))
    assert F.cosine_similarity(torch.autograd.grad(value, vectors)[0], vectors).abs().max() < 1e-6


@pytest.mark.parametrize("per_class, labels", [(False, [0]), (True, [0, 0, 0])])
def test_with_nothing_to_tell_apart_value_and_gradient_are_0(output_of, make_batch, per_class, labels):
    vectors = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = Instance(per_class=per_class)(output_of(vectors=vectors), make_batch(labels)).value
    assert value == 0 and (torch.autograd.grad(value, vectors)[0] == 0).all()
