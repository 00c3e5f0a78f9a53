"""Every recipe, made small, the way its users go: check, train, evaluate, export, selftest."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import export
import train
from data import pack
from data.figures import write_figures
from deploy import FeatureExtractor, selftest
from params.reader import load

pytestmark = pytest.mark.usefixtures("one_registry")
ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "params" / "recipes").glob("*.json"))
AS_PROCESSES = ROOT / "params" / "recipes" / "demo.json"
# Another backbone that a system has. Fresh batch norms at rest, which resnets bear, make its embeddings all equal.
GOOGLENET = (ROOT / "params" / "recipes" / "hist_cub.json", {"backbone": "googlenet", "bn_freeze": None})
SMALL = {  # what a recipe stands for, its losses, sampler, stages, rules, neck and margins, stays as it is
    "epoch": 2, "batch_size": 8, "imagenet_pretrain": False, "parallels": [], "precision": "fp32",
    "num_preprocess_workers": 0, "log_every": 1, "evaluation_params.every": 1,
}
SYSTEM = (
    "model_params", "losses", "batch_sampling_params", "stages", "parameter_rules", "preprocess", "evaluation_params")
PER_BATCH = {"P": 2, "K": 4, "anchors": 8}


def made_small(path, changes=None):
    """The options of train.py that make a recipe small enough for a test, with two steps an epoch."""
    recipe = json.loads(path.read_text())
    model = {key: value for key, value in recipe["model_params"].items() if key != "last_stride"}
    model |= changes or {"backbone": re.sub(r"resnet\d+", "resnet18", model["backbone"])}
    cell = 16 if model["backbone"] == "resnet18" else 32  # pixels to a row of the map, of which each stripe needs one
    keys = {**SMALL, "model_params": model, "img_h": cell * model.get("pcb_n_parts", 2), "img_w": cell}
    sampling = recipe.get("batch_sampling_params", {}).keys() & PER_BATCH.keys()
    if sampling:
        del keys["batch_size"]  # which they tell
    keys |= {f"batch_sampling_params.{key}": PER_BATCH[key] for key in sampling}
    # at rates for trained weights and long runs, all embeddings of fresh ones become equal, or margins stay at 0
    keys |= {"lr.base_lr": 1e-3, "lr.fc_lr": 1e-3} if "fc_lr" in recipe["lr"] else {}
    keys |= {"lr.warmup": 0} if "warmup" in recipe["lr"] else {}
    keys |= {"preprocess.resize": cell * 5 // 2} if "resize" in recipe.get("preprocess", {}) else {}
    keys |= {f"stages[{i}].epochs": 1 for i in range(len(recipe.get("stages", [])))}
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


SHIPPED = {path.stem: (path, None) for path in families()}
SHIPPED["hist_cub on googlenet"] = GOOGLENET
OTHERS = [path for path in RECIPES if path != AS_PROCESSES and path.stem not in SHIPPED]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A few figures, drawn, laid out and packed for each evaluator: its name -> a folder of archives."""
    root = tmp_path_factory.mktemp("sets")
    write_figures(root / "market1501", identities=8)
    leave_few(root / "market1501")
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


def leave_few(root):
    """Of every identity's images in a folder, the first two of each of two cameras."""
    seen = Counter()
    for image in sorted(root.rglob("*.jpg")):
        identity, camera = image.name.split("s1_")[0].split("_c")
        seen[image.parent, identity, camera] += 1
        if camera not in "12" or seen[image.parent, identity, camera] > 2:
            image.unlink()


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
    """Those of train.py for a recipe on its small set, with the run "run" beside the test."""
    def of(path, changes=None):
        evaluator = json.loads(path.read_text())["evaluation_params"]["type"]
        options = [*made_small(path, changes), f"batches_dir={sets[evaluator]}", f"working_dir={tmp_path}"]
        return ["--config_path", str(path), *(word for option in options for word in ("--set", option))]
    return of


@pytest.fixture
def train_and_score(tmp_path, capsys):
    """Check, train and evaluate with these arguments; the metrics."""
    def of(recipe, named):
        assert train.main(["--operation", "check", *named]) == 0
        assert list(tmp_path.iterdir()) == []
        assert train.main(["--operation", "train", "--sub_working_dir", "run", *named]) == 0
        assert_every_loss_was_trained(recipe, tmp_path / "run")
        assert train.main(["--operation", "evaluate", "--sub_working_dir", "run", "--json", *named]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])
    return of


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda path: path.stem)
def test_a_recipe_trains_and_scores(recipe, arguments, train_and_score):
    assert train_and_score(recipe, arguments(recipe))


@pytest.mark.parametrize("recipe, changes", SHIPPED.values(), ids=SHIPPED)
def test_a_recipe_trains_scores_and_ships(recipe, changes, arguments, train_and_score, tmp_path):
    scores = train_and_score(recipe, arguments(recipe, changes))
    assert export.main(["--run_dir", str(tmp_path / "run")]) == 0
    model = tmp_path / "run" / "model.onnx"
    assert selftest.main([str(model), "--providers", "CPUExecutionProvider"]) == 0
    assert_has_what_the_network_makes(recipe, model, scores)


def test_a_recipe_trains_scores_and_ships_in_processes_of_its_own(arguments, tmp_path):
    for operation in ("check", "train", "evaluate"):
        run(["train.py", "--operation", operation, "--sub_working_dir", "run", *arguments(AS_PROCESSES)])
    run(["export.py", "--run_dir", str(tmp_path / "run")])
    run(["-m", "deploy.selftest", str(tmp_path / "run" / "model.onnx"), "--providers", "CPUExecutionProvider"])
    assert_every_loss_was_trained(AS_PROCESSES, tmp_path / "run")


def run(command):
    """Run a real process, which must end well."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def assert_every_loss_was_trained(recipe, folder):
    """All terms of the recipe are on the curves of two epochs, finite, and the run is finished."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    names = {f"loss/{section['type']}" for section in json.loads(recipe.read_text())["losses"]}
    assert {line["epoch"] for line in steps} == {1, 2} and all(names <= line.keys() for line in steps)
    assert all(math.isfinite(line[name]) for line in steps for name in names)
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def assert_has_what_the_network_makes(recipe, model, scores):
    """The file gives margins where the recipe's network does, and says how it scores."""
    extractor = FeatureExtractor(model, providers=["CPUExecutionProvider"])
    assert extractor.metadata["metrics"] == pytest.approx(scores)
    norm_aware = "margin" in json.loads(recipe.read_text())["model_params"]
    margins = extractor.outputs([np.zeros((32, 16, 3), np.uint8)]).margins
    assert (margins is not None) == norm_aware
