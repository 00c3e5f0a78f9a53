"""Stages: what rests, for how long, and at which rates the rest trains."""

import pytest
import torch

from params.schema import Params
from trainer import build
from trainer.criterion import Criterion, Term
from trainer.losses.hist import Hist
from trainer.losses.softmax import Softmax
from trainer.stages import Freezer, Stages, too_long


def make(epoch, *stages, steps_per_epoch=10, **lr):
    params = Params.model_validate({"batches_dir": "there", "epoch": epoch, "stages": list(stages), "lr": lr})
    return Stages(params, "epoch", steps_per_epoch), params


@pytest.fixture
def frozen(make_embedder):
    """A network after its weights were let rest by patterns, one after the other."""
    def make(*patterns, **keys):
        embedder = make_embedder("resnet18", **keys)
        freezer = Freezer(embedder, Criterion([Term("softmax", Softmax())]))
        for each in patterns:
            freezer.freeze(each)
        return embedder.train()
    return make


def trained(embedder):
    return {name for name, weight in embedder.named_parameters() if weight.requires_grad}


def test_without_stages_everything_trains_by_the_run_s_own_rates():
    stages, params = make(3, schedule="step", decay_step=2)
    assert [list(stages.at(epoch).freeze) for epoch in range(3)] == [[], [], []]
    assert [stages.factor(epoch, 10 * epoch) for epoch in range(3)] == pytest.approx([1, 1, 0.1])
    assert stages.at(0).lr is params.lr


def test_the_head_trains_first_then_all_and_each_stage_counts_its_own_epochs():
    """nepoch_fc of the histogram loss: 2 epochs of the head at 0.1, then a new course for everything."""
    head = {"freeze": ["^backbone"], "epochs": 2, "lr": {"base_lr": 0.1, "schedule": "step", "decay_step": 1}}
    stages, _ = make(5, head, base_lr=1e-4, schedule="step", decay_step=2)
    rates = [stages.at(epoch).lr.base_lr * stages.factor(epoch, 10 * epoch) for epoch in range(5)]
    assert rates == pytest.approx([0.1, 0.01, 1e-4, 1e-4, 1e-5])
    assert [bool(stages.at(epoch).freeze) for epoch in range(5)] == [True, True, False, False, False]


def test_a_warm_epoch_does_not_count_in_the_course_that_follows():
    stages, _ = make(12, {"freeze": ["^backbone"], "epochs": 1}, schedule="step", decay_step=5, decay_gamma=0.5)
    assert [stages.factor(epoch, 0) for epoch in (0, 1, 5, 6, 11)] == pytest.approx([1, 1, 1, 0.5, 0.25])


def test_the_epochs_of_a_stage_may_not_be_the_best():
    stages, _ = make(3, {"freeze": ["^backbone"], "epochs": 1, "best": False})
    assert [stages.at(epoch).best for epoch in range(3)] == [False, True, True]


def test_steps_count_from_the_stage_s_first_step():
    stages, _ = make(4, {"freeze": ["^backbone"], "epochs": 2}, unit="step", schedule="step", decay_step=15)
    reached = [(0, 0), (1, 15), (2, 20), (3, 34), (3, 35)]
    assert [stages.factor(epoch, step) for epoch, step in reached] == pytest.approx([1, 0.1, 1, 1, 0.1])


def test_a_stage_without_a_length_lasts_to_the_end_and_cosine_ends_with_it():
    stages, _ = make(10, {"freeze": ["^backbone"]}, schedule="cosine")
    assert len(stages.spans) == 1 and stages.at(9).freeze == ["^backbone"]
    assert stages.factor(5, 0) == pytest.approx(0.5)


@pytest.mark.parametrize("epoch, lengths, wrong", [
    (3, [1, 1], None), (3, [1, 2], None), (3, [2, 2], 1), (3, [None, 1], 1), (3, [4], 0), (3, [1, None], None),
])
def test_stages_longer_than_the_run_are_found(epoch, lengths, wrong):
    _, params = make(epoch, *({"freeze": ["x"], "epochs": length} for length in lengths))
    assert too_long(params) == wrong


def test_what_rests_by_name_has_no_gradient_and_keeps_its_statistics(frozen, images):
    embedder = frozen(["^backbone"])
    assert trained(embedder) == {"branches.0.neck.norm.weight", "branches.0.classifier.weight"}
    before = {name: value.clone() for name, value in embedder.backbone.state_dict().items()}
    embedder(images).logits[0].square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in embedder.backbone.state_dict().items())
    assert embedder.backbone.conv1.weight.grad is None and embedder.branches[0].neck.norm.weight.grad is not None


def test_after_the_stage_all_trains_again_but_what_never_did(frozen):
    embedder = frozen(["^backbone"], [], bn_freeze="all")
    all_but = {name for name, _ in embedder.named_parameters()} - trained(embedder)
    norms = {name for name in all_but if ".bn" in name or "downsample.1" in name}
    assert all_but - norms == {"branches.0.neck.norm.bias"} and len(norms) == 40
    assert embedder.backbone.layer1.training and not embedder.backbone.bn1.training


def test_a_part_of_the_backbone_may_rest(frozen):
    embedder = frozen([r"^backbone\.(conv1|bn1|layer1)\b"])
    assert not embedder.backbone.layer1.training and not embedder.backbone.bn1.training
    assert embedder.backbone.layer2.training and embedder.training
    assert "backbone.layer2.0.conv1.weight" in trained(embedder)


def test_the_whole_network_may_rest_while_a_loss_trains(make_embedder, images):
    embedder = make_embedder("resnet18")
    criterion = Criterion([Term("hist", Hist(512, 5))])
    Freezer(embedder, criterion).freeze(["^backbone", "^branches"])
    assert trained(embedder.train()) == set() and not embedder.branches[0].neck.norm.training
    assert all(weight.requires_grad for weight in criterion.parameters())


def test_a_loss_at_rest_keeps_its_statistics_too(make_embedder):
    criterion = Criterion([Term("hist", Hist(512, 5))])
    Freezer(make_embedder("resnet18"), criterion).freeze(["^losses"])
    assert not criterion.losses["hist"].hgnn.norm.training and criterion.training


def test_a_stage_that_trains_nothing_is_refused(frozen):
    with pytest.raises(ValueError, match="^leaves no weight to train"):
        frozen(["."])


def test_a_pattern_that_finds_nothing_is_refused(frozen):
    with pytest.raises(ValueError, match='^"backbne" finds no weight; names are like backbone'):
        frozen(["backbne"])


@pytest.mark.parametrize(("sampler", "unit"), [
    ({"type": "pk", "P": 2, "K": 4}, "step"), ({"type": "pk_prop", "P": 2, "K": 4}, "epoch"), ({}, "epoch")])
def test_rates_count_steps_under_the_sampler_pk_and_epochs_under_others(sampler, unit):
    params = Params.model_validate({"batches_dir": "there", "batch_sampling_params": sampler})
    assert build.stages(params, 10).at(0).course.unit == unit
