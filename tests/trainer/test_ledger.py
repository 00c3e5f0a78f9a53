"""The ledger of evaluations: which epoch is the best, whatever happens between two writes."""

import json

import pytest

from trainer.ledger import Ledger
from trainer.snapshot import SnapshotError, load_snapshot, save_snapshot


def state(epoch, **metrics):
    return {"epoch": epoch, "metrics": metrics}


def opened(folder, monitor=None, mode="max"):
    return Ledger(folder, monitor=monitor, mode=mode)


def test_only_a_strictly_better_epoch_replaces_the_best(tmp_path):
    ledger = opened(tmp_path)
    kept = [ledger.record(epoch, state(epoch, mAP=value)) for epoch, value in enumerate([0.5, 0.5, 0.4, 0.6], 1)]
    assert kept == [True, False, False, True]
    assert ledger.best == {"metric": "mAP", "value": 0.6, "epoch": 4}
    assert load_snapshot(tmp_path / "best.pth")["epoch"] == 4


def test_any_metric_may_choose_and_lower_may_be_better(tmp_path):
    ledger = opened(tmp_path, monitor="loss", mode="min")
    for epoch, value in enumerate([0.5, 0.3, 0.4], 1):
        ledger.record(epoch, state(epoch, mAP=0.9, loss=value))
    assert ledger.best == {"metric": "loss", "value": 0.3, "epoch": 2}


def test_a_reopened_ledger_goes_on_where_it_was(tmp_path):
    opened(tmp_path).record(1, state(1, mAP=0.5))
    ledger = opened(tmp_path)
    assert ledger.best == {"metric": "mAP", "value": 0.5, "epoch": 1}
    assert not ledger.record(2, state(2, mAP=0.4))
    entries = json.loads((tmp_path / "ledger.json").read_text())["entries"]
    assert [entry["epoch"] for entry in entries] == [1, 2]


def test_a_crash_between_snapshot_and_ledger_is_mended_from_the_snapshot(tmp_path):
    opened(tmp_path).record(1, state(1, mAP=0.5))
    save_snapshot(tmp_path / "best.pth", state(2, mAP=0.7))  # and here the process died
    assert opened(tmp_path).best == {"metric": "mAP", "value": 0.7, "epoch": 2}


def test_a_crash_before_the_first_ledger_keeps_the_snapshot(tmp_path):
    save_snapshot(tmp_path / "best.pth", state(1, mAP=0.7))
    ledger = opened(tmp_path)
    assert not ledger.record(2, state(2, mAP=0.6))
    assert ledger.best == {"metric": "mAP", "value": 0.7, "epoch": 1}


def test_a_repeated_epoch_never_overwrites_a_better_snapshot_of_itself(tmp_path):
    ledger = opened(tmp_path)
    ledger.record(1, state(1, mAP=0.5))
    ledger.record(2, state(2, mAP=0.7))
    assert not ledger.record(2, state(2, mAP=0.6))
    assert ledger.best == {"metric": "mAP", "value": 0.7, "epoch": 2}
    assert load_snapshot(tmp_path / "best.pth")["metrics"] == {"mAP": 0.7}


def test_a_best_snapshot_that_has_gone_is_told(tmp_path):
    opened(tmp_path).record(1, state(1, mAP=0.5))
    (tmp_path / "best.pth").unlink()
    with pytest.raises(SnapshotError, match=r"best\.pth: missing, but the ledger beside it names it"):
        opened(tmp_path)
