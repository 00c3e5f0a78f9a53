import math

import pytest
import torch
import torch.nn.functional as F

from params.plugin import Choice
from trainer.losses import LOSSES
from trainer.losses.norm_aware import UcTriDpn, UcTriHard, UcTriN
from trainer.losses.norm_regulariser import NormRegulariser
from trainer.losses.triplet import Triplet
from trainer.margins import Linear
from trainer.output import Output

SOFT = ["uc-tri-n", "uc-tri-dpn", "uc-pair-n", "uc-pair", "uc-atri-n"]
HARD = ["uc-tri-hard", "uc-tri", "uc-atri"]


def built(name, **options):
    return LOSSES.build(Choice(name, options))


def with_margins(vectors, margins):
    return Output(vectors, vectors, margins=margins)


def distance(name, x, z, shift):
    """Between two vectors, in the manner of the loss."""
    chord = (x / x.norm() - z / z.norm()).norm()
    theta = 2 * torch.asin(chord / 2)
    if "atri-n" in name:
        return 2 * torch.sin((theta + shift) / 2)
    return (theta if "pair" in name or "atri" in name else chord) + shift


def by_loops(loss, name, rows, labels, margins):
    """The definition with every anchor's and every partner's own margin, pair by pair."""
    anchors, partners = margins
    terms = []
    for i, (x, label, own) in enumerate(zip(rows, labels, anchors, strict=True)):
        near, far = [], []
        for j, (z, other, its) in enumerate(zip(rows, labels, partners, strict=True)):
            same = label == other
            shift = loss.margin + own + its if same else -own - its
            (near if same else far).append(distance(name, x, z, shift) if i != j else
                                           distance(name, x, x.detach(), shift))
        near, far = torch.stack(near), torch.stack(far)
        if name in SOFT:
            term = F.softplus((loss.scale * near).exp().sum().log() + (-loss.scale * far).exp().sum().log())
            terms.append(term if name == "uc-pair" else term / loss.scale)
        else:
            excess = near.max() - far.min()
            terms.append(F.relu(excess) if name == "uc-tri-hard" else
                         torch.log1p((loss.beta * excess).exp()) / loss.beta)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("name", SOFT + HARD)
def test_a_norm_aware_loss_matches_its_definition_written_as_loops(twelve_images, name):
    output, batch = twelve_images
    loss = built(name, margin=0.1, **({"scale": 5.0} if name in SOFT else {}))
    expected = by_loops(loss, name, output.features, batch.labels, [output.margins] * 2)
    torch.testing.assert_close(loss(output, batch).value, expected)


def test_only_the_margins_of_anchors_learn_from_uc_tri_dpn(make_output):
    output, batch = make_output()
    loss = UcTriDpn(scale=5.0)
    anchors, partners = (output.margins.detach().requires_grad_() for _ in range(2))
    expected = by_loops(loss, "uc-tri-dpn", output.features, batch.labels, (anchors, partners))
    value = loss(output, batch).value
    torch.testing.assert_close(value, UcTriN(scale=5.0)(output, batch).value)
    torch.testing.assert_close(*(torch.autograd.grad(v, leaf, retain_graph=True)[0]
                                 for v, leaf in ((value, output.margins), (expected, anchors))))


ANGLE = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])  # two classes at a right angle
CHORDS = 1.5 - math.sqrt(2)  # positives are at 0 + 0.7 + 2 x 0.2, negatives at sqrt 2 - 2 x 0.2 ...
ANGLES = 1.5 - math.pi / 2  # ... or at pi / 2 - 2 x 0.2, two of each


@pytest.mark.parametrize("name, options, value", [
    ("uc-tri-hard", {}, CHORDS),
    ("uc-tri", {"beta": 2.0}, math.log1p(math.exp(2 * CHORDS)) / 2),
    ("uc-atri", {"beta": 2.0}, math.log1p(math.exp(2 * ANGLES)) / 2),
    ("uc-tri-n", {"scale": 2.0}, math.log1p(4 * math.exp(2 * CHORDS)) / 2),
    ("uc-tri-dpn", {"scale": 2.0}, math.log1p(4 * math.exp(2 * CHORDS)) / 2),
    ("uc-pair-n", {"scale": 2.0}, math.log1p(4 * math.exp(2 * ANGLES)) / 2),
    ("uc-pair", {"scale": 2.0}, math.log1p(4 * math.exp(2 * ANGLES))),
    ("uc-atri-n", {"scale": 2.0}, math.log1p(
        4 * math.exp(2 * (2 * math.sin(1.1 / 2) - 2 * math.sin((math.pi / 2 - 0.4) / 2)))) / 2),
])
def test_two_classes_at_a_right_angle_are_as_worked_out_by_hand(make_batch, name, options, value):
    output = with_margins(ANGLE, torch.full((4,), 0.2))
    found, scalars = built(name, margin=0.7, **options)(output, make_batch([0, 0, 1, 1]))
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert all(float(scalar) == pytest.approx(0.7 + 4 * 0.2) for scalar in scalars.values())


@pytest.mark.parametrize("name", SOFT + HARD)
def test_a_larger_margin_of_an_image_is_a_wider_one(make_output, name):
    output, batch = make_output()
    gradient, = torch.autograd.grad(built(name)(output, batch).value, output.margins)
    assert (gradient >= 0).all() and gradient.sum() > 0


@pytest.mark.parametrize("name", sorted({*SOFT, *HARD} - {"uc-tri-dpn"}))
def test_the_gradient_of_a_norm_aware_loss_is_the_slope_of_its_value(make_output, name):
    output, batch = make_output(p=3, k=2)
    loss = built(name)
    assert torch.autograd.gradcheck(lambda x, u: loss(with_margins(x, u), batch).value,
                                    (output.features, output.margins))


CASES = {
    "001_uc-tri-n": "uc-tri-n", "001_uc-pair-n": "uc-pair-n", "001_uc-tri-hard": "uc-tri-hard",
    "001_uc-pair-n_plain_arch": "uc-pair-n", "001_uc-tri": "uc-tri", "001_uc-atri": "uc-atri",
}


@pytest.mark.parametrize("case", CASES)
def test_a_norm_aware_loss_is_that_of_the_original_code(golden, make_batch, case):
    name, params, inputs, outputs = CASES[case], *(golden[case][part] for part in ("params", "inputs", "outputs"))
    leaves = {leaf: torch.tensor(inputs[leaf], dtype=torch.float64, requires_grad=True) for leaf in inputs.keys() - "y"}
    lengths = [params["la"], params["ua"]]
    if "u" in leaves:  # margins have the other sign there, in metric losses
        margins = -leaves["u"]
    else:
        margins = Linear(range=lengths, margins=[-params["lm"], -params["um"]])(leaves["x"])
    output, batch = with_margins(leaves["x"], margins), make_batch(inputs["y"])
    options = {"s": "scale", "beta": "beta"}
    loss = built(name, margin=params["margin"], **{
        key: float(params[theirs]) for theirs, key in options.items() if theirs in params and name != "uc-tri-hard"})

    value = loss(output, batch).value
    assert value.item() == pytest.approx(outputs["loss"], abs=1e-6)
    pull = params["lambda_g"] * NormRegulariser(range=lengths)(output, batch).value  # gradient without value, there
    for leaf, gradient in zip(leaves, torch.autograd.grad(value + pull, list(leaves.values())), strict=True):
        expected = torch.tensor(outputs[f"grad_{leaf}"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SOFT + HARD)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_without_negatives_the_loss_is_0_and_without_positives_finite(make_output, make_batch, name, labels):
    output, _ = make_output(p=1, k=4)
    value = built(name)(output, make_batch(labels)).value
    gradients = torch.autograd.grad(value, [output.features, output.margins])
    assert value.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
    if len(set(labels)) == 1:
        assert value == 0 and all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("name", SOFT + HARD)
def test_opposite_vectors_have_a_finite_slope(make_batch, name):
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    value = built(name)(with_margins(vectors, torch.zeros(2)), make_batch([0, 0])).value
    value = value + built(name)(with_margins(vectors, torch.zeros(2)), make_batch([0, 1])).value
    assert torch.autograd.grad(value, vectors)[0].isfinite().all()


def test_hard_mined_chords_of_images_without_margin_are_the_triplet_loss(make_output):
    output, batch = make_output()
    plain = with_margins(output.features, torch.zeros(12))
    torch.testing.assert_close(UcTriHard(margin=0.3)(plain, batch).value,
                               Triplet(margin=0.3, normalize=True)(output, batch).value)


@pytest.mark.parametrize("name", SOFT + HARD)
def test_a_network_without_margins_is_told_what_to_give(name, output_of, make_batch):
    with pytest.raises(ValueError, match="^losses: a norm-aware loss needs margins, .*; give model_params.margin"):
        built(name)(output_of(vectors=ANGLE), make_batch([0, 0, 1, 1]))
