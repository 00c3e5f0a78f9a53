import pytest
import torch

from data.records import Batch
from trainer.criterion import Criterion, Term, classifier_of
from trainer.losses.am_softmax import AMSoftmax
from trainer.losses.softmax import Softmax
from trainer.losses.triplet import Triplet
from trainer.output import Loss, LossValue, Output


class Proxies(Loss):
    """A loss that owns parameters and reads the margins of a norm-aware network."""

    def __init__(self):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.ones(3))

    def forward(self, output, batch):
        return LossValue(self.proxies.sum() * output.margins.sum())


def test_the_total_is_the_weighted_sum_and_every_term_is_reported_by_name(make_output):
    output, batch = make_output()
    total, scalars = Criterion([Term("softmax", Softmax()), Term("triplet", Triplet(), 0.5)])(output, batch)
    softmax, triplet = Softmax()(output, batch), Triplet()(output, batch)
    torch.testing.assert_close(total, softmax.value + 0.5 * triplet.value)
    torch.testing.assert_close(scalars["loss/softmax"], softmax.value.detach())
    torch.testing.assert_close(scalars["loss/triplet"], 0.5 * triplet.value.detach())
    assert scalars["softmax/accuracy"] == softmax.scalars["accuracy"]
    assert scalars["triplet/mean_dist_ap"] == triplet.scalars["mean_dist_ap"]
    assert total.requires_grad and not any(scalar.requires_grad for scalar in scalars.values())


def test_losses_of_one_name_are_numbered_from_the_second_on(make_output):
    criterion = Criterion([Term("triplet", Triplet()), Term("triplet", Triplet(on="embedding"))])
    _, scalars = criterion(*make_output())
    assert {name for name in scalars if name.startswith("loss/")} == {"loss/triplet", "loss/triplet_2"}
    assert scalars["loss/triplet"] != scalars["loss/triplet_2"]


def test_the_loss_that_is_not_finite_is_found_by_its_name(make_output):
    output, batch = make_output()
    broken = Output(output.features * float("nan"), output.embedding, output.logits)
    total, scalars = Criterion([Term("softmax", Softmax()), Term("triplet", Triplet())])(broken, batch)
    assert total.isnan()
    assert [n for n, s in scalars.items() if n.startswith("loss/") and not s.isfinite()] == ["loss/triplet"]


def test_parameters_of_losses_are_named_and_kept_and_read_wide_margins(make_output):
    output, batch = make_output()
    criterion = Criterion([Term("proxies", Proxies(), 2.0)])
    assert set(criterion.state_dict()) == {"losses.proxies.proxies"}
    margins = torch.full((2,), 0.1, dtype=torch.bfloat16)
    total, _ = criterion(Output(output.features, output.embedding, None, margins), batch)
    assert total.dtype == torch.float32 and float(total.detach()) == pytest.approx(2 * 3 * 0.2, rel=1e-2)
    total.backward()
    assert criterion.losses["proxies"].proxies.grad is not None


def test_every_loss_is_told_the_step():
    losses = [AMSoftmax(margin=[0.1, 0.2], step=10), AMSoftmax(margin=[0.3, 0.4], step=20)]
    criterion = Criterion([Term("am_softmax", loss) for loss in losses])
    criterion.set_step(15)
    assert [loss.margin for loss in losses] == [0.2, 0.3]


def test_a_term_of_the_anchors_sees_the_first_third(make_output):
    output, batch = make_output(p=3, k=2)
    _, scalars = Criterion([Term("softmax", Softmax(), of="anchors"), Term("softmax", Softmax())])(output, batch)
    first = Output(output.features[:2], output.embedding[:2], [output.logits[0][:2]])
    assert scalars["loss/softmax"] == Softmax()(first, Batch(*(column[:2] for column in batch))).value
    assert scalars["loss/softmax"] != scalars["loss/softmax_2"]


@pytest.mark.parametrize("losses, kind", [
    ([("triplet", Triplet)], None), ([("triplet", Triplet), ("softmax", Softmax)], "linear"),
    ([("am_softmax", AMSoftmax)], "cosine"), ([], None),
])
def test_the_classifier_is_the_one_that_the_losses_read(losses, kind):
    assert classifier_of(losses) == kind


def test_losses_that_need_two_classifiers_are_refused():
    message = ('^losses: "am_softmax" needs a cosine classifier and "softmax" needs a linear classifier, '
               "and a network has one; keep one of the two losses$")
    with pytest.raises(ValueError, match=message):
        classifier_of([("softmax", Softmax), ("am_softmax", AMSoftmax)])
