"""What every loss of the table has to do."""

import copy
from dataclasses import replace

import pytest
import torch

from params.plugin import Choice
from trainer.criterion import Criterion, Term
from trainer.losses import LOSSES
from trainer.output import Output, each


@pytest.fixture(params=LOSSES)
def loss(request):
    """From its defaults; dropout, whose draws are no part of what is asked here, at rest."""
    torch.manual_seed(0)
    loss = LOSSES.build(Choice(request.param), embedding_dim=5, num_classes=6)
    for module in loss.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    return loss


@pytest.fixture
def gradients(leaves):
    """Of a loss in every tensor of the output that it reads."""
    def of(loss, output, batch):
        found = torch.autograd.grad(loss(output, batch).value, leaves(output), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]
    return of


def test_a_loss_from_its_defaults_is_a_scalar_with_finite_gradients(loss, make_output, gradients):
    output, batch = make_output(branches=2, classifier=loss.classifier)
    assert loss(output, batch).value.shape == ()
    found = gradients(loss, output, batch)
    assert all(grad.isfinite().all() for grad in found)
    assert any(grad.abs().sum() > 0 for grad in found)


def test_a_loss_reports_scalars_that_hold_no_graph(loss, make_output):
    scalars = loss(*make_output(classifier=loss.classifier)).scalars
    assert scalars
    for scalar in scalars.values():
        assert scalar.shape == () and scalar.is_floating_point() and not scalar.requires_grad


def test_a_loss_gives_the_same_bits_twice(loss, make_output):
    output, batch = make_output(classifier=loss.classifier)
    twin = copy.deepcopy(loss)
    assert torch.equal(loss(output, batch).value, twin(output, batch).value)


def test_a_loss_leaves_what_it_was_given_as_it_was(loss, make_output, leaves):
    output, batch = make_output(classifier=loss.classifier)
    before = [leaf.detach().clone() for leaf in leaves(output)]
    loss(output, batch)
    assert all(torch.equal(leaf, old) for leaf, old in zip(leaves(output), before, strict=True))


def test_a_loss_does_not_depend_on_the_order_of_the_batch(loss, make_output, make_batch):
    output, batch = make_output(classifier=loss.classifier)
    blocks = 3 if loss.triplets else 1  # triplets may change places with triplets
    order = torch.randperm(len(batch.labels) // blocks, generator=torch.Generator().manual_seed(0))
    order = torch.cat([order + i * len(order) for i in range(blocks)])
    shuffled = copy.deepcopy(loss)(each(lambda t: t[order], output), make_batch(batch.labels[order]))
    torch.testing.assert_close(shuffled.value, loss(output, batch).value)


@pytest.mark.parametrize("p, k", [(1, 6), (6, 1), (1, 1)])
def test_a_batch_of_one_class_or_of_single_images_gives_finite_numbers(loss, make_output, gradients, p, k):
    output, batch = make_output(p, 3 * k if loss.triplets else k, classifier=loss.classifier)
    value, scalars = loss(output, batch)
    assert value.isfinite() and all(scalar.isfinite() for scalar in scalars.values())
    assert all(grad.isfinite().all() for grad in gradients(loss, output, batch))


def test_a_batch_of_one_repeated_image_gives_finite_numbers(loss, make_output, gradients):
    output, batch = make_output(classifier=loss.classifier)
    same = each(lambda t: t[:1].expand(t.shape).detach().clone().requires_grad_(), output)
    assert loss(same, batch).value.isfinite()
    assert all(grad.isfinite().all() for grad in gradients(loss, same, batch))


def test_numbers_that_are_none_make_a_loss_that_is_none(loss, make_output):
    output, batch = make_output(classifier=loss.classifier)
    broken = each(lambda t: torch.full_like(t, torch.nan), output)
    assert not loss(broken, batch).value.isfinite()


def test_a_loss_of_half_precision_outputs_is_computed_in_single(loss, make_output):
    output, batch = make_output(classifier=loss.classifier)
    halves = each(lambda t: t.detach().to(torch.bfloat16), output)
    if output.class_lengths is not None:  # of weights, which stay in single
        halves = replace(halves, class_lengths=[lengths.float() for lengths in output.class_lengths])
    singles = each(lambda t: t.float(), halves)
    criterion = Criterion([Term("it", copy.deepcopy(loss))])
    with torch.autocast("cpu", torch.bfloat16):
        total, scalars = criterion(halves, batch)
    assert total.dtype == torch.float32
    assert torch.equal(total, loss(singles, batch).value)
    assert all(scalar.dtype == torch.float32 for scalar in scalars.values())


@pytest.mark.parametrize("on, other", [("features", "embedding"), ("embedding", "features")])
@pytest.mark.parametrize("name", [name for name in LOSSES if "on" in LOSSES.options(name).model_fields])
def test_the_vectors_of_a_loss_are_those_that_on_names(name, on, other, make_output):
    torch.manual_seed(0)
    loss = LOSSES.build(Choice(name, {"on": on}), embedding_dim=5, num_classes=6)
    output, batch = make_output()
    leaves = getattr(output, on), getattr(output, other)
    read, unread = torch.autograd.grad(loss(output, batch).value, leaves, allow_unused=True)
    assert read.abs().sum() > 0 and unread is None


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES.load(name).classifier])
def test_a_classification_loss_without_classifier_says_so(name, make_output):
    output, batch = make_output()
    bare = Output(output.features, output.embedding, None)
    with pytest.raises(ValueError, match="^losses: a classification loss needs logits, and this network"):
        LOSSES.build(Choice(name))(bare, batch)
