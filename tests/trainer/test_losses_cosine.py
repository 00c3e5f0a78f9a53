import math

import pytest
import torch

from params.plugin import Choice
from trainer.losses import LOSSES
from trainer.losses.am_softmax import AMSoftmax
from trainer.losses.cosine import ArcFace, CosFace, NSoftmax, Proj, UcCls, UcXent, UcxCls
from trainer.losses.norm_regulariser import NormRegulariser
from trainer.output import Output

EVERY = [CosFace(), ArcFace(), NSoftmax(), *(UcxCls(form=form, margin=0.2) for form in ("cos", "angle", "arc")),
         *(UcCls(form=form, margin=0.2) for form in ("cos", "angle", "arc")), UcXent(), Proj()]


def name_of(loss):
    return f"{type(loss).__name__}-{getattr(loss, 'form', '')}"


def score(loss, cosine, own, margin):
    """The logit of a class, before the scale."""
    if isinstance(loss, Proj):
        return cosine - loss.margin if own else 1 - math.sqrt(1 - cosine ** 2)
    theta = math.acos(min(max(cosine, -0.99), 0.99))
    if isinstance(loss, ArcFace):
        return math.cos(theta + loss.margin) if own else cosine
    shift = (loss.margin + margin) if own else -margin
    return {"cos": cosine - shift, "angle": math.pi / 2 - theta - shift, "arc": math.cos(theta + shift)}[loss.form]


def by_loops(loss, output, labels):
    total = 0.0
    for tensors in zip(output.logits, output.lengths, output.class_lengths, strict=True):
        cosines, lengths, class_lengths = (tensor.tolist() for tensor in tensors)
        for row, length, label, margin in zip(cosines, lengths, labels.tolist(), output.margins.tolist(), strict=True):
            if isinstance(loss, UcXent):
                z = [cos * length * class_length for cos, class_length in zip(row, class_lengths, strict=True)]
            else:
                margin = margin if loss.reads_margins else 0.0
                z = [loss.scale * score(loss, cos, c == label, margin) for c, cos in enumerate(row)]
            total -= (z[label] - math.log(sum(math.exp(v) for v in z))) / len(labels)
        if isinstance(loss, Proj):
            total += 0.01 * sum((length - 10) ** 2 for length in class_lengths) / len(class_lengths)
            total += 0.01 * sum((length - 40) ** 2 for length in lengths) / len(lengths)
    return total


@pytest.mark.parametrize("loss", EVERY, ids=name_of)
@pytest.mark.parametrize("branches", [1, 2])
def test_a_loss_of_cosines_matches_its_definition_written_as_loops(make_output, loss, branches):
    output, batch = make_output(branches=branches, classifier="cosine")
    assert loss(output, batch).value.item() == pytest.approx(by_loops(loss, output, batch.labels))


@pytest.mark.parametrize("loss, own, others", [
    (CosFace(margin=0.3, scale=10.0), 10 * 0.2, 0.0),
    (ArcFace(margin=math.pi / 6, scale=10.0), 0.0, 0.0),  # 60 degrees and 30 more
    (NSoftmax(scale=10.0), 10 * 0.5, 0.0),
    (UcxCls(form="angle", margin=0.1, scale=10.0), 10 * (math.pi / 6 - 0.1), 0.0),
    (UcCls(form="cos", margin=0.1, scale=10.0), 10 * (0.5 - 0.1 - 0.2), 10 * 0.2),
    (UcCls(form="arc", margin=math.pi / 6 - 0.2, scale=10.0), 0.0, 10 * math.cos(math.pi / 2 - 0.2)),
    (UcXent(), 0.5 * 4 * 3, 0.0),
])
def test_the_own_class_at_60_degrees_and_another_at_90_are_as_worked_out_by_hand(make_batch, loss, own, others):
    vectors = torch.tensor([[4.0, 0.0]])
    output = Output(vectors, vectors, [torch.tensor([[0.5, 0.0]])], torch.tensor([0.2]), [torch.tensor([4.0])],
                    [torch.tensor([3.0, 2.0])])
    value = loss(output, make_batch([0])).value
    assert value.item() == pytest.approx(math.log1p(math.exp(others - own)), abs=1e-5)


@pytest.mark.parametrize("loss", EVERY, ids=name_of)
def test_the_gradient_of_a_loss_of_cosines_is_the_slope_of_its_value(make_output, loss):
    output, batch = make_output(branches=2, classifier="cosine")

    def value(first, second, margins, *lengths):
        vectors = output.embedding
        return loss(Output(vectors, vectors, [first, second], margins, lengths[:2], lengths[2:]), batch).value

    leaves = [0.9 * cosines.detach() for cosines in output.logits]  # none beyond 0.99, where acos is cut off
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(value, (*leaves, output.margins, *output.lengths, *output.class_lengths))


CASES = {
    "001_cosface_cls": CosFace(margin=0.3), "001_arcface_cls": ArcFace(margin=0.3), "001_proj_cls": Proj(margin=0.3),
    "001_uc-xent": UcXent(), "001_ucx-cls": UcxCls(), "001_uc-cls_clsuc_m0": UcCls(),
    "001_uc-cls_cos_m0": UcCls(form="cos"), "001_uc-cls_arc_m0": UcCls(form="arc"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_of_cosines_is_that_of_the_original_code(golden, assert_as_golden, make_batch, case):
    inputs, outputs = golden[case]["inputs"], golden[case]["outputs"]
    leaves = {leaf: torch.tensor(inputs[leaf], dtype=torch.float64, requires_grad=True) for leaf in inputs.keys() - "y"}
    cosines = leaves["c"]
    if case.endswith("face_cls"):  # without slope below 0, there
        cosines = cosines.clamp(min=0)
    if case.startswith("001_uc-cls_cos"):  # without slope beyond 0.99, there, though without acos
        cosines = cosines.clamp(-0.99, 0.99)
    lengths = leaves.get("fn", torch.ones(8, dtype=torch.float64))
    output = Output(lengths[:, None], lengths[:, None], [cosines], leaves.get("u"), [lengths], [leaves.get("wn")])
    value = CASES[case](output, make_batch(inputs["y"])).value
    if case.startswith(("001_uc-cls", "001_ucx")):  # with the gradient of the regulariser, not with its value
        pull = NormRegulariser()(output, make_batch(inputs["y"])).value
        value = value + pull - pull.detach()
    read = {leaf: tensor for leaf, tensor in leaves.items() if f"grad_{leaf}" in outputs}
    assert_as_golden(outputs, value, **read)


@pytest.mark.parametrize("case, form", [("001_uc-cls_clsuc_m0.1", "angle"), ("001_uc-cls_cos_m0.1", "cos")])
def test_a_margin_is_taken_off_where_the_original_code_adds_it(golden, make_batch, case, form):
    inputs, outputs = golden[case]["inputs"], golden[case]["outputs"]
    cosines, margins = (torch.tensor(inputs[leaf], dtype=torch.float64).clamp(-0.99, 0.99) for leaf in "cu")
    output = Output(cosines, cosines, [cosines], margins)
    wrong = UcCls(form=form)
    wrong.margin = -0.1
    assert wrong(output, make_batch(inputs["y"])).value.item() == pytest.approx(outputs["loss"], abs=1e-6)
    values = [UcCls(form=form, margin=margin)(output, make_batch(inputs["y"])).value for margin in (0.0, 0.1)]
    assert values[0] < values[1]


@pytest.mark.parametrize("form", ["cos", "angle", "arc"])
def test_a_larger_margin_of_an_image_is_a_wider_one(make_output, form):
    output, batch = make_output(classifier="cosine")
    gradient, = torch.autograd.grad(UcCls(form=form)(output, batch).value, output.margins)
    assert (gradient > 0).all()


def test_margins_between_the_own_class_and_others_are_reported(make_output):
    output, batch = make_output(classifier="cosine")
    scalars = UcCls(margin=0.1)(output, batch).scalars
    between = 0.1 + 2 * output.margins
    for name, value in {"margin": between.mean(), "margin_min": between.min(), "margin_max": between.max()}.items():
        torch.testing.assert_close(scalars[name], value.detach())


def test_cosface_is_am_softmax_of_one_margin(make_output):
    output, batch = make_output(classifier="cosine")
    assert torch.equal(CosFace(margin=0.3, scale=16.0)(output, batch).value,
                       AMSoftmax(margin=0.3, scale=16.0)(output, batch).value)


@pytest.mark.parametrize("loss", EVERY, ids=name_of)
def test_cosines_of_1_and_minus_1_have_a_finite_slope(make_batch, loss):
    cosines = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], requires_grad=True)
    output = Output(cosines, cosines, [cosines], torch.zeros(2), [torch.ones(2)], [torch.ones(2)])
    value = loss(output, make_batch([0, 0])).value
    assert torch.autograd.grad(value, cosines)[0].isfinite().all()


@pytest.mark.parametrize("name", ["uc-xent", "proj"])
def test_lengths_are_reported(make_output, name):
    output, batch = make_output(branches=2, classifier="cosine")
    scalars = LOSSES.build(Choice(name))(output, batch).scalars
    torch.testing.assert_close(scalars["norm"], torch.stack(output.lengths).mean())
    torch.testing.assert_close(scalars["class_norm"], torch.stack(output.class_lengths).mean())


def test_a_network_without_margins_is_told_what_to_give(output_of, make_batch):
    with pytest.raises(ValueError, match="^losses: a norm-aware loss needs margins, .*; give model_params.margin"):
        UcCls()(output_of(torch.zeros(2, 2)), make_batch([0, 1]))


def test_without_lengths_of_classes_the_loss_that_reads_them_says_so(output_of, make_batch):
    with pytest.raises(ValueError, match="^losses: a loss of the classes' lengths needs a cosine classifier"):
        UcXent()(output_of(torch.zeros(2, 2)), make_batch([0, 1]))
