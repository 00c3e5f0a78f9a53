"""Every recipe, made small, the way its users go: check, train, evaluate, export, selftest."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import export
import train
from data import pack
from data.figures import write_figures
from deploy import FeatureExtractor, selftest
from params import load

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "params" / "recipes").glob("*.json"))
AS_PROCESSES = ROOT / "params" / "recipes" / "demo.json"
SMALL = {  # what a recipe stands for, its losses, sampler, stages, rules, neck and margins, stays as it is
    "model_params.backbone": "resnet18", "model_params.last_stride": 1, "imagenet_pretrain": False, "img_w": 16,
    "parallels": [], "precision": "fp32", "num_preprocess_workers": 0, "log_every": 1, "evaluation_params.every": 1,
}
SYSTEM = (
    "model_params", "losses", "batch_sampling_params", "stages", "parameter_rules", "preprocess", "evaluation_params")
PER_BATCH = {"P": 4, "K": 2, "anchors": 4}


def made_small(path):
    """The options of train.py that make a recipe small enough for a test."""
    recipe = json.loads(path.read_text())
    stripes = recipe["model_params"].get("pcb_n_parts", 0)
    keys = {**SMALL, "img_h": 16 * (stripes or 2)}  # a row of the map for each stripe
    sampling = recipe.get("batch_sampling_params", {})
    keys |= {f"batch_sampling_params.{key}": PER_BATCH[key] for key in sampling.keys() & PER_BATCH.keys()}
    keys |= {"batch_size": 12} if "batch_size" in recipe else {}
    # at rates for trained weights and long runs, all embeddings of fresh ones become equal
    keys |= {"lr.base_lr": 1e-3, "lr.fc_lr": 1e-3} if "fc_lr" in recipe["lr"] else {}
    keys |= {"preprocess.resize": 40} if "resize" in recipe.get("preprocess", {}) else {}
    stages = len(recipe.get("stages", []))
    keys |= {"epoch": stages + 1, **{f"stages[{i}].epochs": 1 for i in range(stages)}}
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def shape(node):
    """Sections of a params.json, of numbers only whether they are 0: equal for recipes of one system."""
    if isinstance(node, dict):
        return tuple((key, shape(value)) for key, value in sorted(node.items()))
    if isinstance(node, list):
        return tuple(shape(value) for value in node if not isinstance(value, int | float))
    return bool(node) if isinstance(node, int | float) else node


def families():
    """One recipe of each system; AS_PROCESSES stands for its own."""
    found = {}
    for path in RECIPES:
        resolved = load(path, None, overrides=made_small(path)).resolved
        found.setdefault(shape([resolved[section] for section in SYSTEM]), []).append(path)
    return [members[0] for members in found.values() if AS_PROCESSES not in members]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Figures of two cameras, drawn, laid out and packed for each evaluator: its name -> a folder of archives."""
    root = tmp_path_factory.mktemp("sets")
    write_figures(root / "market1501", identities=8)
    for image in (root / "market1501").rglob("*.jpg"):
        if image.name.split("_c")[1][0] not in "12":
            image.unlink()
    known = sorted(image for image in (root / "market1501").rglob("*.jpg") if not image.name.startswith(("0000", "-1")))
    as_birds(known, root / "cub200")
    for image in known:
        folder = root / "folder" / ("train" if "_c1" in image.name else "val") / image.name[:4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    for source in ("market1501", "cub200", "folder"):
        assert pack.main([source, str(root / source), str(root / "packed" / source)]) == 0
    return {"market_evaluate": root / "packed" / "market1501", "retrieval_evaluate": root / "packed" / "cub200",
            "classification_evaluate": root / "packed" / "folder"}


def as_birds(images, root):
    """CUB-200-2011's layout with one class for each identity."""
    classes = sorted({image.name[:4] for image in images})
    (root / "images").mkdir(parents=True)
    for image in images:
        shutil.copy(image, root / "images")
    lists = {"classes": classes, "images": [image.name for image in images],
             "image_class_labels": [str(1 + classes.index(image.name[:4])) for image in images]}
    for name, values in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)))


@pytest.fixture
def arguments(sets, tmp_path):
    """Those of train.py for a recipe on its small set, with runs beside the test."""
    def of(path):
        evaluator = json.loads(path.read_text())["evaluation_params"]["type"]
        options = [*made_small(path), f"batches_dir={sets[evaluator]}", f"working_dir={tmp_path}"]
        return ["--config_path", str(path), *(word for option in options for word in ("--set", option))]
    return of


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_accepted_with_its_data(recipe, arguments, tmp_path):
    assert train.main(["--operation", "check", *arguments(recipe)]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", families(), ids=lambda path: path.stem)
def test_a_recipe_trains_scores_and_ships(recipe, arguments, tmp_path, capsys):
    named = arguments(recipe)
    assert train.main(["--operation", "train", "--sub_working_dir", "run", *named]) == 0
    assert train.main(["--operation", "evaluate", "--sub_working_dir", "run", "--json", *named]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert export.main(["--run_dir", str(tmp_path / "run")]) == 0
    assert_every_loss_was_trained(recipe, tmp_path / "run")
    assert_ships(recipe, tmp_path / "run" / "model.onnx", scores)


def test_a_recipe_trains_scores_and_ships_in_processes_of_its_own(arguments, tmp_path):
    run(["train.py", "--operation", "train", "--sub_working_dir", "run", *arguments(AS_PROCESSES)])
    run(["export.py", "--run_dir", str(tmp_path / "run")])
    run(["-m", "deploy.selftest", str(tmp_path / "run" / "model.onnx"), "--providers", "CPUExecutionProvider"])
    assert_every_loss_was_trained(AS_PROCESSES, tmp_path / "run")


def run(command):
    """Run a real process, which must end well."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def assert_every_loss_was_trained(recipe, folder):
    """All terms of the recipe are on the curves, finite, and the run is finished."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    names = {f"loss/{section['type']}" for section in json.loads(recipe.read_text())["losses"]}
    assert steps and all(names <= line.keys() for line in steps)
    assert all(math.isfinite(line[name]) for line in steps for name in names)
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def assert_ships(recipe, model, scores):
    """The file replays its golden vectors, and has what the recipe's network makes."""
    extractor = FeatureExtractor(model, providers=["CPUExecutionProvider"])
    assert selftest.replay(extractor).passed
    assert extractor.metadata["metrics"] == pytest.approx(scores)
    norm_aware = "margin" in json.loads(recipe.read_text())["model_params"]
    margins = extractor.outputs([np.zeros((32, 16, 3), np.uint8)]).margins
    assert (margins is not None) == norm_aware
