"""Which keys say something else than their defaults, and at which two runs differ."""

import json

import pytest

from evaluate import EVALUATORS
from params.defaults import changed, different
from params.reader import load
from trainer.build import tables


@pytest.fixture
def loaded(tmp_path):
    """Load a params.json with these keys, every plug-in's own keys filled in."""
    def of(**keys):
        path = tmp_path / "params.json"
        path.write_text(json.dumps({"batches_dir": "packed", **keys}))
        return load(path, tables(EVALUATORS))
    return of


def test_of_a_params_json_that_says_nothing_only_the_folders_are_changed(loaded):
    found = loaded(about={"what": "a note"})
    assert changed(found, tables(EVALUATORS)) == {"batches_dir", "working_dir"}


def test_a_value_is_held_against_the_default_of_its_own_plugin(loaded):
    found = loaded(
        losses=[{"type": "softmax"}, {"type": "triplet", "margin": 0.3, "weight": 2.0}], epoch=30, img_h=64,
        model_params={"backbone": "resnet18", "neck": {"type": "bnneck"}, "margin": {"type": "nn", "size": 64}},
        evaluation_params={"type": "market_evaluate", "every": 1, "rerank": {"k1": 4}})
    assert changed(found, tables(EVALUATORS)) - {"batches_dir", "working_dir"} == {
        "losses[1].type", "losses[1].weight", "img_h", "model_params.backbone",
        "model_params.margin.type", "model_params.margin.size", "evaluation_params.type", "evaluation_params.rerank.k1",
        "evaluation_params.rerank.k2", "evaluation_params.rerank.lambda_value", "evaluation_params.rerank.budget_mib"}


def test_two_runs_differ_in_their_keys_but_not_in_their_notes_and_folders(loaded):
    first = loaded(lr={"base_lr": 0.02}, about={"what": "a"}).resolved
    second = loaded(optimizer="adam", about={"what": "b"}, working_dir="elsewhere").resolved
    found = different(first, second)
    assert found["lr.base_lr"] == (0.02, 0.01) and found["optimizer.type"] == ("sgd", "adam")
    assert all(key.startswith(("lr.", "optimizer.")) for key in found)
    assert found["optimizer.betas"][0] is None
    assert different(first, first) == {}
