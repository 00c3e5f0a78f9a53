"""Every recipe is a params.json that holds, says what it is, and has the values of its system."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluate import EVALUATORS
from params.reader import load
from trainer import build
from trainer.optim import set_learning_rate
from trainer.rules import RULES

RECIPES = sorted((Path(__file__).parent.parent / "params" / "recipes").glob("*.json"))
FOLDER = RECIPES[0].parent
COSTS = [path for path in RECIPES if "cost" in json.loads(path.read_text())["about"]]
SETS = {  # training images and identities or classes, as their authors tell
    "market1501": (12936, 751), "dukemtmc": (16522, 702), "msmt17": (32621, 1041),
    "cub200": (5864, 100), "cars196": (8054, 98), "sop": (59551, 11318),
}


def read(path):
    return load(path, build.tables(EVALUATORS), overrides=["parallels=[]"], rules=RULES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_and_says_what_it_is(recipe):
    loaded = read(recipe)
    assert loaded.notices == ()
    about = loaded.params.about
    assert about["what"] and about["command"]
    assert recipe.stem == "demo" or f"params/recipes/{recipe.name}" in about["command"]
    assert ("measured here" in about) != ("published" in about and "cost" in about)
    root = recipe.parent.parent.parent
    assert Path(loaded.params.working_dir).parent in (root, root / "demo")


def test_the_pages_name_every_recipe():
    page = (FOLDER.parent.parent / "docs" / "recipes.md").read_text()
    assert [recipe.name for recipe in RECIPES if f"`{recipe.name}`" not in page] == []


def rates(name, epochs):
    """The learning rates of neck, classifier and losses in these epochs of a recipe."""
    params = read(FOLDER / f"{name}.json").params
    stages = build.stages(params, 7)
    heads = [stages.at(epoch).lr.fc_lr or stages.at(epoch).lr.base_lr for epoch in epochs]
    return [rate * stages.factor(epoch, 7 * epoch) for rate, epoch in zip(heads, epochs, strict=True)]


@pytest.mark.parametrize("name, case", [
    ("nama_tri_market", "001_lr_schedule"), ("nama_tri_duke", "001_lr_schedule"), ("nama_tri_msmt", "001_lr_schedule"),
    ("nama_cls_market", "001_lr_schedule"), ("nama_cls_duke", "001_lr_schedule"),
    ("verif_market", "004_lr_schedule"), ("verif_market_dense", "004_lr_schedule"),
])
def test_a_recipe_trains_at_the_rates_of_the_original(golden, name, case):
    epochs = golden[case]["inputs"]["epoch"]
    assert rates(name, epochs) == pytest.approx(golden[case]["outputs"]["lr"], rel=1e-9)


@pytest.mark.parametrize("name, expected", [
    ("histogram_market", {0: 1e-4, 49: 1e-4, 50: 1e-5, 149: 1e-6}),
    ("histogram_market_head_first", {0: 0.1, 9: 0.1, 10: 0.01, 19: 0.01, 20: 1e-4, 69: 1e-4, 70: 1e-5, 149: 1e-6}),
    ("nama_cls_msmt", {0: 3.5e-6, 10: 3.5e-4, 29: 3.5e-4, 30: 3.5e-5, 60: 3.5e-6, 89: 3.5e-6}),
    ("hist_cub", {0: 1.2e-4, 1: 1.2e-4, 5: 1.2e-4, 6: 0.6e-4, 11: 0.3e-4}),  # the backbone's warm epoch does not count
    ("hist_cars", {0: 1e-4, 10: 1e-4, 11: 0.5e-4}),
    ("market_baseline", {0: 0.1, 9: 0.1, 10: 0.01, 29: 0.001}),
    ("market_pcb_first", {0: 0.1, 9: 0.1, 10: 0.01, 29: 0.001}),
    ("market_spectral", {0: 0.001, 99: 0.1, 299: 0.1, 300: 0.01, 500: 0.001}),
    ("bot_market", {0: 3.5e-6, 10: 3.5e-4, 39: 3.5e-4, 40: 3.5e-5, 70: 3.5e-6}),
    ("sbs_market", {0: 3.5e-5, 10: 3.5e-4, 35: 3.5e-4 * 0.501}),  # half-way down to 0.002
])
def test_a_recipe_trains_at_the_rates_it_says(name, expected):
    assert rates(name, list(expected)) == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.parametrize("name, images", [
    ("histogram_market", 128), ("nama_tri_market", 120), ("nama_cls_msmt", 120), ("market_baseline", 64),
    ("market_spectral", 32), ("hist_sop", 32), ("verif_market", 96), ("bot_duke", 64),
])
def test_a_recipe_has_batches_of_its_systems_size(name, images):
    assert read(FOLDER / f"{name}.json").params.batch_size == images


@pytest.mark.parametrize("recipe", COSTS, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_costs(recipe):
    params, gpus = read(recipe).params, json.loads(recipe.read_text())["parallels"]
    params = params.model_copy(update={"parallels": gpus})
    images, classes = SETS[Path(params.batches_dir).name]
    sampler = build.sampler(params, np.arange(images) % classes)
    cost = f"{params.epoch * len(sampler):,} steps of {params.whole_batch} images"
    if params.batch_sampling_params.type == "pk_prop":  # how many depends on how many images each identity has
        cost = f"{params.epoch} epochs over {images:,} images, {params.whole_batch} a step"
    assert params.about["cost"] == f"{cost}; seconds not measured"


@pytest.mark.parametrize("name, found", [
    ("nama_tri_market", {"branches.0.norm.weight": (1.0, 0.0), "branches.0.classifier": (1.0, 5e-4),
                         "margin": (1.0, 0.1), "backbone.conv1": (1.0, 5e-4)}),
    ("nama_cls_market", {"branches.0.neck.norm.weight": (1.0, 0.0), "branches.0.classifier": (1.0, 0.0),
                         "margin": (1.0, 0.01), "backbone.conv1": (1.0, 5e-4)}),
    ("hist_cub", {"losses.hist.means": (0.1 / 1.2e-4, 5e-5), "losses.hist.log_variances": (0.1 / 1.2e-4, 5e-5),
                  "losses.hist.hgnn": (5.0, 5e-5), "branches.0.neck": (1.0, 5e-5)}),
])
def test_a_recipes_rules_find_the_weights_they_are_for(name, found):
    # found: where a weight's name begins -> its rate as a multiple of the run's, and its decay
    params = read(FOLDER / f"{name}.json").params
    network = build.network(params, 4)
    losses = build.criterion(params, network, 4)
    optimizer = build.optimizer(params, network, losses)
    set_learning_rate(optimizer, params.lr, 1.0)
    named = [*network.named_parameters(), *losses.named_parameters()]
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    for prefix, (factor, decay) in found.items():
        weights = [weight for name, weight in named if name.startswith(prefix) and weight.requires_grad]
        assert weights
        for group in (groups[id(weight)] for weight in weights):
            assert group["lr"] / params.lr.base_lr == pytest.approx(factor)
            assert group["weight_decay"] == pytest.approx(decay)
