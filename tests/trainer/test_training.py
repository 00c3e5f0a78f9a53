"""One step of training under every option that changes it."""

import pytest
import torch

from data.archive import open_archive
from evaluate import EVALUATORS
from params.reader import load
from trainer.build import tables
from trainer.fit import take_step
from trainer.training import Training


@pytest.fixture
def training(params, figures):
    """A run before its first step; keys may be added or replaced."""
    opened = []

    def make(**keys):
        loaded = load(params(**keys), tables(EVALUATORS))
        training = Training(loaded.params, loaded.resolved, open_archive(figures / "train.lmdb"), torch.device("cpu"))
        opened.append(training)
        return training
    yield make
    for training in opened:
        training.loader.close()


def stepped(training):
    """Take one step; the scalars, and the names of the weights that moved."""
    before = {name: weight.detach().clone() for name, weight in training.network.named_parameters()}
    training.begin_epoch()
    training.set_rates()
    scalars, _ = take_step(training, next(training.groups()))
    moved = {name for name, weight in training.network.named_parameters() if not torch.equal(weight, before[name])}
    assert all(torch.isfinite(weight).all() for weight in training.network.parameters())
    return scalars, moved


@pytest.mark.parametrize("keys", [
    {}, {"precision": "bf16"}, {"channels_last": True}, {"gradient_clip": 1e-3},
    {"gradient_accumulation": 3}, {"ema_decay": 0.5}, {"losses": [{"type": "am_softmax"}]},
    {"losses": [{"type": "focal"}, {"type": "triplet", "margin": "soft_margin", "adaptive_weight": True}]},
    {"img_h": 128, "model_params": {"backbone": "mobilenet_v3_small", "neck": "linear", "feature_dim": 32,
                                    "pcb_n_parts": 2}, "losses": [{"type": "softmax"}]},
    {"batch_sampling_params": {"type": "triplet_items", "anchors": 4}, "batch_norm_parts": 3,
     "losses": [{"type": "softmax", "of": "anchors"}, {"type": "verification"}]},
])
def test_a_step_moves_the_weights_and_reports_finite_losses(training, keys):
    scalars, moved = stepped(training(**keys))
    assert any(name.startswith("backbone.") for name in moved) and any("classifier" in name for name in moved)
    assert all(torch.isfinite(value) for value in scalars.values())


def test_half_precision_steps_once_its_scale_has_fallen_to_what_fits(training):
    half = training(precision="fp16")
    scales = []
    for _ in range(12):
        scales.append(half.scaler.get_scale())
        _, moved = stepped(half)
        if moved:
            break
    assert moved and scales == sorted(scales, reverse=True)


def test_fine_tuning_leaves_the_backbone_and_its_statistics_alone(training):
    tuned = training(fine_tune=True)
    before = {name: value.clone() for name, value in tuned.network.backbone.state_dict().items()}
    _, moved = stepped(tuned)
    assert moved and not any(name.startswith("backbone.") for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in tuned.network.backbone.state_dict().items())


def test_accumulated_batches_give_the_mean_of_their_gradients(training):
    """Two batches a step, against the mean of the gradients of two single batches; no batch norm, no dropout."""
    plain = {"model_params": {"backbone": "mobilenet_v3_small", "neck": "none"}, "losses": [{"type": "softmax"}],
             "optimizer": {"type": "sgd", "momentum": 0.0}, "lr": {"base_lr": 1.0}, "weight_decay": 0.0,
             "fine_tune": True, "gradient_accumulation": 2}
    both = training(**plain)
    batches = next(both.groups())
    start = [weight.detach().clone() for weight in both.network.branches.parameters()]
    both.begin_epoch()
    both.set_rates()
    take_step(both, batches)
    steps = []
    for batch in batches:
        single = training(**plain)
        single.begin_epoch()
        single.set_rates()
        take_step(single, [batch])
        weights = single.network.branches.parameters()
        steps.append([weight.detach() - was for weight, was in zip(weights, start, strict=True)])
    for weight, was, first, second in zip(both.network.branches.parameters(), start, *steps, strict=True):
        torch.testing.assert_close(weight.detach() - was, (first + second) / 2)


def test_every_part_of_a_batch_counts_in_the_running_statistics(training):
    cut = training(batch_norm_parts=3)
    stepped(cut)
    counts = {int(value) for name, value in cut.network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {3}


def test_a_clipped_gradient_has_the_length_that_was_asked_for(training):
    clipped = training(gradient_clip=1e-3, optimizer={"type": "sgd", "momentum": 0.0}, weight_decay=0.0,
                       lr={"base_lr": 1.0})
    before = [weight.detach().clone() for weight in clipped.network.parameters()]
    stepped(clipped)
    moves = [weight.detach() - was for weight, was in zip(clipped.network.parameters(), before, strict=True)]
    assert torch.stack([move.norm() for move in moves]).norm() == pytest.approx(1e-3, rel=1e-2)


def test_averaged_weights_lie_between_the_first_and_the_last(training):
    averaging = training(ema_decay=0.25)
    first = averaging.averaged.module.branches[0].classifier.weight.detach().clone()
    stepped(averaging)
    stepped(averaging)
    last = averaging.network.branches[0].classifier.weight.detach()
    mean = averaging.deployed.branches[0].classifier.weight.detach()
    assert not torch.equal(mean, first) and not torch.equal(mean, last)


def test_the_backbone_and_the_rest_have_their_own_rates(training):
    rates = training(lr={"base_lr": 1e-3, "fc_lr": 1e-1})
    rates.set_rates()
    assert {group["name"]: group["lr"] for group in rates.optimizer.param_groups} == {
        "backbone": 1e-3, "neck": 1e-1, "classifier": 1e-1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this host")
def test_a_step_on_a_gpu_gives_the_losses_of_the_cpu(params, figures):
    loaded = load(params(), tables(EVALUATORS))
    losses = []
    for device in ("cpu", "cuda"):
        run = Training(loaded.params, loaded.resolved, open_archive(figures / "train.lmdb"), torch.device(device))
        losses.append(float(stepped(run)[0]["loss"]))
        run.loader.close()
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_goes_on_in_half_precision_from_a_state_in_full(training):
    full = training()
    stepped(full)
    half = training(precision="fp16")
    half.restore(full.state())
    for name, weight in full.network.named_parameters():
        assert torch.equal(weight, half.network.get_parameter(name)), name
    scalars, _ = stepped(half)
    assert torch.isfinite(scalars["loss"])
