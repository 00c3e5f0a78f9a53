"""A thousand broken params.json: each is accepted, or refused in lines that name the path."""

import copy
import json
import random

import pytest

import train as script
from evaluate import EVALUATORS
from params.early import refuse_early
from params.errors import ParamsError
from params.reader import draft, load
from trainer.build import tables

VALUES = [None, True, -1, 0, 3, 10**30, 0.5, -0.5, 1e300, "", "x", "soft_margin", "resnet18", [], [1], ["a"], {},
          {"type": "x"}, "\0", "x" * 5000, "~x", {"\ud800": 1}, "too large"]


def places(node, path=()):
    """Every place of a tree that can be changed."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(items):
        yield (*path, key)
        yield from places(child, (*path, key))


def mutated(text, draw):
    """The text of a params.json with one to three keys renamed, removed, added or changed, or cut short."""
    if draw.random() < 0.1:
        return text[:draw.randrange(len(text))]
    tree = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        *parents, last = draw.choice(list(places(tree)))
        node = tree
        for part in parents:
            node = node[part]
        change = draw.choice(["value", "value", "rename", "remove", "add"])
        if change == "value":
            node[last] = copy.deepcopy(draw.choice(VALUES))
        elif change == "remove":
            del node[last]
        elif isinstance(node, dict) and change == "rename":
            node[last + "x"] = node.pop(last)
        elif isinstance(node, dict):
            node[draw.choice(["momentum", "P", "epocj", "type", "weight"])] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(tree).replace('"too large"', "1e999")


@pytest.mark.parametrize("part", range(4))
def test_every_mutation_is_accepted_or_refused_by_path(params, tmp_path, capsys, part):
    path = params(model_params={"backbone": "resnet18", "neck": {"type": "linear+bn+dropout"}, "feature_dim": 32})
    text = path.read_text()
    draw = random.Random(part)
    refused = 0
    for _ in range(250):
        path.write_text(mutated(text, draw))
        code = script.main(["--operation", "check", "--config_path", str(path)])
        told = capsys.readouterr()
        assert code in (0, 2, 3), path.read_text()
        if code == 3:  # the folder of archives is one of the values that change
            assert str(tmp_path) in told.err
        if code == 2:
            refused += 1
            assert all(line.startswith("params.json: ") for line in told.err.splitlines()), told.err
        if code:  # what is refused never starts, so it may be tried
            assert script.main(["--operation", "train", "--config_path", str(path)]) == code, path.read_text()
            assert capsys.readouterr().err == told.err
        assert "Traceback" not in told.out + told.err
        assert [file.name for file in tmp_path.iterdir()] == ["params.json"], path.read_text()
    assert refused > 100


def told_by(check):
    """What a check of a params.json says of it."""
    try:
        check()
    except ParamsError as error:
        return str(error)
    return ""


def test_what_is_told_before_torch_is_imported_is_all_there_is_to_tell(params):
    path = params()
    text = path.read_text()
    menu = tables(EVALUATORS)
    draw = random.Random(0)
    told_early = 0
    for _ in range(300):
        path.write_text(mutated(text, draw))
        early, whole = told_by(lambda: refuse_early(draft(path, []))), told_by(lambda: load(path, menu))
        assert early in ("", whole), path.read_text()
        told_early += early != ""
    assert told_early > 60
