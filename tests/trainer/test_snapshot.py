"""Snapshots on disk."""

import pickle

import pytest
import torch

from trainer.snapshot import SnapshotError, deployed_weights, load_snapshot, save_snapshot


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    weights = {"weight": torch.arange(6.0).reshape(2, 3)}
    save_snapshot(tmp_path / "last.pth", {"network": weights, "epoch": 3, "metrics": {"mAP": 0.5}, "averaged": None})
    state = load_snapshot(tmp_path / "last.pth")
    assert torch.equal(state["network"]["weight"], weights["weight"])
    assert (state["epoch"], state["metrics"]) == (3, {"mAP": 0.5})


def test_averaged_weights_are_the_ones_deployed(tmp_path):
    assert deployed_weights({"network": {"w": 1}, "averaged": {"w": 2}}) == {"w": 2}
    assert deployed_weights({"network": {"w": 1}, "averaged": None}) == {"w": 1}


def test_a_missing_a_damaged_and_a_foreign_file_are_told_by_name(tmp_path):
    with pytest.raises(SnapshotError, match=r"gone\.pth: no such snapshot"):
        load_snapshot(tmp_path / "gone.pth")
    save_snapshot(tmp_path / "cut.pth", {"network": {"w": torch.zeros(1000)}})
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:2000])
    with pytest.raises(SnapshotError, match=r"cut\.pth: not a readable snapshot"):
        load_snapshot(tmp_path / "cut.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(SnapshotError, match=r"foreign\.pth: not a snapshot of this version"):
        load_snapshot(tmp_path / "foreign.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("owned",))

    torch.save({"format": "kiln-snapshot-1", "trap": Trap()}, tmp_path / "trap.pth", pickle_module=pickle)
    # torch goes on to say how it could be loaded all the same
    with pytest.raises(SnapshotError, match=r"trap\.pth: not a readable snapshot: Weights only load failed$"):
        load_snapshot(tmp_path / "trap.pth")
