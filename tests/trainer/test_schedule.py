"""The course of the learning rate."""

import pytest

from params.schema import Lr
from trainer.schedule import LearningRate


def course(epochs=100, steps_per_epoch=10, unit="epoch", **lr):
    rate = LearningRate(Lr(**lr), unit=unit, epochs=epochs, steps_per_epoch=steps_per_epoch)
    return lambda epoch: rate.factor(epoch, epoch * steps_per_epoch)


def test_the_rate_is_constant_without_a_schedule():
    assert [course()(epoch) for epoch in (0, 1, 99)] == [1.0, 1.0, 1.0]


def test_step_decays_every_so_many_epochs():
    factor = course(schedule="step", decay_step=10, decay_gamma=0.1)
    assert [factor(epoch) for epoch in (0, 9, 10, 19, 20)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_multistep_after_the_warmup_gives_the_golden_rates(golden):
    case = golden["002_lr_schedule_final_version"]
    given = case["params"]
    factor = course(schedule="multistep", decay_step=given["decay_step"], decay_gamma=given["decay_gamma"],
                    warmup=given["warmup_epoch"])
    rates = [given["base_lr"] * factor(epoch) for epoch in case["inputs"]["epoch"]]
    assert rates == pytest.approx(case["outputs"]["lr"], rel=1e-9)


def test_multistep_counted_from_the_start_gives_the_golden_rates(golden):
    case = golden["001_lr_schedule"]
    given = case["params"]
    factor = course(schedule="multistep", decay_step=given["steps"], decay_gamma=given["gamma"],
                    decay_after_warmup=False, warmup=given["warmup_epochs"], warmup_factor=given["warmup_factor"])
    (epochs,) = case["inputs"].values()
    assert [given["base_lr"] * factor(epoch) for epoch in epochs] == pytest.approx(case["outputs"]["lr"], rel=1e-9)


def test_cosine_falls_from_one_through_a_half_to_its_floor():
    factor = course(epochs=100, schedule="cosine", min_factor=0.2)
    assert [factor(epoch) for epoch in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])


def test_cosine_begins_after_the_warmup():
    factor = course(epochs=110, schedule="cosine", warmup=10)
    assert [factor(epoch) for epoch in (0, 9, 10, 60)] == pytest.approx([0.1, 1.0, 1.0, 0.5])


def test_the_unit_step_counts_optimiser_steps():
    factor = course(steps_per_epoch=10, unit="step", schedule="step", decay_step=15)
    assert [factor(epoch) for epoch in (0, 1, 2, 3)] == pytest.approx([1, 1, 0.1, 0.01])
