"""What goes wrong in training is said by name."""

import logging

import numpy as np
import pytest
import torch

from trainer.sentinel import Collapse, NonFinite, TrainingError, embedding_spread, finite_metrics, finite_weights


def test_a_loss_that_is_not_finite_is_named_with_epoch_and_step():
    watch = NonFinite()
    watch.watch(3, 17, {"loss": torch.tensor(float("nan")), "loss/triplet": torch.tensor(float("inf")),
                        "loss/softmax": torch.tensor(1.0)})
    with pytest.raises(TrainingError, match=r"^epoch 3 step 17: loss is nan, loss/triplet is inf; lower lr\.base_lr"):
        watch.settle()


def test_each_step_is_looked_at_when_the_next_one_is_taken():
    watch = NonFinite()
    watch.watch(1, 1, {"loss": torch.tensor(float("nan"))})
    with pytest.raises(TrainingError, match="epoch 1 step 1"):
        watch.watch(1, 2, {"loss": torch.tensor(1.0)})


def test_finite_losses_pass():
    watch = NonFinite()
    watch.watch(1, 1, {"loss": torch.tensor(1e30)})
    watch.watch(1, 2, {"loss": torch.tensor(-1e30)})
    watch.settle()


def test_embedding_spread_is_zero_for_equal_and_one_for_opposed_directions():
    assert embedding_spread(torch.ones(4, 3)) == pytest.approx(0, abs=1e-6)
    assert embedding_spread(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])) == pytest.approx(1)


def test_a_collapsed_embedding_is_warned_of_once_with_the_key_to_change(caplog):
    collapse = Collapse()
    with caplog.at_level(logging.WARNING, "kiln"):
        collapse.watch(2, 20, 0.5)
        collapse.watch(2, 30, 0.001)
        collapse.watch(2, 40, 0.001)
    assert [record.getMessage()[:46] for record in caplog.records] == ["epoch 2 step 30: the embedding has collapsed ("]
    assert "lr.base_lr" in caplog.text


def test_metrics_that_are_not_finite_stop_the_run():
    plain = finite_metrics({"mAP": np.float32(0.5), "queries": 3})
    assert plain == {"mAP": 0.5, "queries": 3.0} and {type(value) for value in plain.values()} == {float}
    with pytest.raises(TrainingError, match="evaluation: mAP not finite"):
        finite_metrics({"mAP": float("nan"), "rank1": 1.0})


@pytest.mark.parametrize("part", ["network", "averaged", "criterion"])
def test_numbers_of_a_state_that_are_not_finite_are_named(part):
    norm = torch.nn.BatchNorm1d(2)
    state = {"network": {}, "averaged": None, "criterion": {}, part: norm.state_dict()}
    finite_weights(state, 1, 5)
    norm.running_var[1] = float("nan")
    with pytest.raises(TrainingError, match=f"epoch 1 step 5: {part} running_var is not finite; lower lr.base_lr"):
        finite_weights(state, 1, 5)
