"""Every loss, sampler, neck and margin of the tables goes on from a snapshot as if there had been none."""

from itertools import islice

import pytest
import torch

from data.archive import open_archive
from data.samplers import SAMPLERS
from evaluate import EVALUATORS
from params.reader import load
from trainer.build import tables
from trainer.fit import take_step
from trainer.losses import LOSSES
from trainer.margins import MARGINS
from trainer.necks import NECKS
from trainer.snapshot import digest, load_snapshot, save_snapshot
from trainer.training import Training

SAMPLING = {
    "identities": {"min": 2, "max": 4}, "ipc": {"images": 4}, "pk": {"P": 1, "K": 4}, "pk_prop": {"P": 2, "K": 4},
    "random": {}, "triplet_items": {"anchors": 4},
}


def with_loss(name, *, sampler=None, neck="bnneck", margin=None):
    """The keys of a run with this loss and, unless told, with what it needs."""
    loss = LOSSES.load(name)
    sampler = sampler or ("triplet_items" if loss.triplets else "random")
    sampling = {"type": sampler, **SAMPLING[sampler]}
    return {
        "img_h": 32, "img_w": 32, "losses": [{"type": name}], "batch_sampling_params": sampling,
        **({} if {"P", "anchors"} & sampling.keys() else {"batch_size": 8}),
        "model_params": {
            "backbone": "mobilenet_v3_small", "neck": neck, "feature_dim": None if neck in ("none", "scale") else 8,
            "margin": margin or ("nn" if loss.reads_margins else None)},
    }


RUNS = {
    **{f"loss {name}": with_loss(name) for name in LOSSES},
    **{f"sampler {name}": with_loss("softmax", sampler=name) for name in SAMPLERS},
    **{f"neck {name}": with_loss("softmax", neck=name) for name in NECKS},
    **{f"margin {name}": with_loss("uc-tri-n", margin=name) for name in MARGINS},
}


@pytest.fixture
def training(params, figures, request):
    """Make a run before its first step, of these keys."""
    def make(keys):
        loaded = load(params(**keys), tables(EVALUATORS))
        training = Training(loaded.params, loaded.resolved, open_archive(figures / "train.lmdb"), torch.device("cpu"))
        request.addfinalizer(training.loader.close)
        return training
    return make


def advance(training, steps):
    """Take some of the epoch's remaining steps."""
    training.begin_epoch()
    for batches in islice(training.groups(), steps):
        training.set_rates()
        take_step(training, batches)
        training.batch += len(batches)
        training.step += 1


@pytest.mark.parametrize("keys", RUNS.values(), ids=RUNS)
def test_a_run_that_goes_on_within_an_epoch_ends_as_the_unbroken_one(keys, training, tmp_path):
    unbroken, resumed = training(keys), training(keys)
    advance(unbroken, 2)
    save_snapshot(tmp_path / "last.pth", unbroken.state())
    resumed.restore(load_snapshot(tmp_path / "last.pth"))
    for name, run in ("unbroken", unbroken), ("resumed", resumed):
        advance(run, 2)
        save_snapshot(tmp_path / name, run.state())
    assert (resumed.epoch, resumed.batch, resumed.step) == (0, 4, 4)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "unbroken")
