import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.margin_pairs import ArcFacePair, CosFacePair
from trainer.losses.norm_aware import UcPair
from trainer.output import Output


def by_loops(rows, labels, loss, similarity):
    """As written by pairs of similarities: high within a class, less the margin, and low between two."""
    total = 0.0
    for i, label in enumerate(labels):
        positives, negatives = 0.0, 0.0
        for j, other in enumerate(labels):
            cosine = 1.0 if i == j else float(F.cosine_similarity(rows[i], rows[j], dim=0))
            if label == other:
                positives += math.exp(-loss.scale * (similarity(cosine) - loss.margin))
            else:
                negatives += math.exp(loss.scale * similarity(cosine))
        total += math.log1p(positives * negatives)
    return total / len(labels)


@pytest.mark.parametrize("kind, similarity", [(CosFacePair, lambda c: c), (ArcFacePair, lambda c: math.acos(-c))])
def test_pairs_match_their_definition_written_as_loops(twelve_images, kind, similarity):
    output, batch = twelve_images
    loss = kind(margin=0.3, scale=4.0)
    expected = by_loops(output.features.detach(), batch.labels, loss, similarity)
    assert loss(output, batch).value.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind, right_angle", [(CosFacePair, 1.0), (ArcFacePair, math.pi / 2)])
def test_two_classes_at_a_right_angle_are_as_worked_out_by_hand(output_of, make_batch, kind, right_angle):
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    value, scalars = kind(margin=0.5, scale=2.0)(output_of(vectors=vectors), make_batch([0, 0, 1, 1]))
    # two positives at 0 + 0.5, two negatives at a right angle
    assert value.item() == pytest.approx(math.log1p(4 * math.exp(2 * (0.5 - right_angle))), abs=1e-6)
    assert float(scalars["mean_dist_ap"]) == 0 and float(scalars["mean_dist_an"]) == pytest.approx(right_angle)


@pytest.mark.parametrize("kind", [CosFacePair, ArcFacePair])
def test_the_gradient_of_pairs_is_the_slope_of_its_value(output_of, make_output, kind):
    output, batch = make_output(p=3, k=2)
    assert torch.autograd.gradcheck(lambda x: kind(scale=4.0)(output_of(vectors=x), batch).value, output.features)


def test_cosface_pair_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch):
    params, inputs, outputs = (golden["001_cosface_pairwise"][part] for part in ("params", "inputs", "outputs"))
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    loss = CosFacePair(margin=params["m"], scale=params["s"])
    assert_as_golden(outputs, loss(output_of(vectors=x), make_batch(inputs["y"])).value, x=x)


def test_arcface_pair_is_uc_pair_of_images_without_margins(make_output):
    output, batch = make_output()
    without = Output(output.features, output.embedding, margins=torch.zeros(12))
    assert torch.equal(ArcFacePair()(output, batch).value, UcPair()(without, batch).value)


@pytest.mark.parametrize("kind", [CosFacePair, ArcFacePair])
def test_a_batch_of_one_class_has_nothing_to_tell_apart(output_of, make_batch, kind):
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = kind()(output_of(vectors=vectors), make_batch([0, 0, 0, 0])).value
    assert value == 0 and (torch.autograd.grad(value, vectors)[0] == 0).all()
