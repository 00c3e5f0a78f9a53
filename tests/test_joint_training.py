"""One run on two packed sets, from check to export."""

import json

import pytest
import torch

import export
from data.archive import open_archive
from train import main
from trainer.snapshot import load_snapshot

pytestmark = pytest.mark.usefixtures("one_registry")


def test_two_sets_are_trained_on_together_and_their_identities_do_not_merge(params, figures, archives, tmp_path, capfd):
    """The second set is a copy of the first in another folder of the same name: the same ids, other identities."""
    path = params(batches_dir=[str(figures), str(archives)], epoch=1, img_h=32, img_w=16,
                  model_params={"backbone": "resnet18", "feature_dim": 16})

    def run(operation, *arguments):
        assert main(["--operation", operation, "--config_path", str(path), *arguments]) == 0
        return capfd.readouterr().out

    one = open_archive(figures / "train.lmdb")
    told = f"{2 * len(one):,} of {2 * len(one.class_names)} classes ({figures}/train.lmdb and {archives}/train.lmdb)"
    assert told in run("check")

    for name in ("exp1", "exp2"):
        run("train", "--sub_working_dir", name)
    first, second = (load_snapshot(tmp_path / "runs" / name / "snapshots" / "last.pth") for name in ("exp1", "exp2"))
    assert all(torch.equal(weight, second["network"][name]) for name, weight in first["network"].items())
    assert first["class_names"] == [f"market1501.{place}/{name}" for place in (1, 2) for name in one.class_names]

    elsewhere = run("evaluate", "--sub_working_dir", "exp1", "--set", f"batches_dir={archives}", "--json")
    assert json.loads(elsewhere)["queries"] == len(open_archive(archives / "query.lmdb"))
    assert export.main(["--run_dir", str(tmp_path / "runs" / "exp1")]) == 0
