"""What is told of a params.json before torch is imported: all of it, or nothing."""

import json

import pytest

from evaluate import EVALUATORS
from params.early import SCHEMA, fits, refuse_early
from params.errors import ParamsError
from params.reader import draft, load
from trainer.build import tables

DEFINITIONS = json.loads(SCHEMA.read_text())["$defs"]
PLUGINS = {
    "losses": [{"type": "softmax", "label_smoothing": 0.1}, {"type": "triplet", "margin": "soft_margin"}],
    "model_params": {"model": "resnet_18", "neck": {"type": "linear+bn+dropout", "dropout": 0.5}, "last_stride": 1},
    "optimizer": "adam", "evaluation_params": {"type": "market_evaluate", "ap": "trapezoid"},
    "batch_sampling_params": {"class_balanced": True, "P": 4, "K": 2}, "preprocess": {"resize": [64, 32]},
    "data_augmentation": {"mirror": True, "random_erasing": {"p": 0.5}},
    "lr": {"decay_step": [3, 5]}, "stages": [{"freeze": ["^backbone"], "epochs": 1, "lr": {"decay_step": 4}}],
}


@pytest.fixture
def told_early(write):
    """The lines that are told early of a params.json, and none where it is left to the whole check."""
    def told(content, *overrides):
        try:
            refuse_early(draft(write(content), overrides))
        except ParamsError as error:
            return str(error).splitlines()
        return []
    return told


def test_a_file_that_holds_is_not_refused(told_early, write):
    assert load(write(PLUGINS), tables(EVALUATORS)).params.epoch == 30
    assert told_early(PLUGINS) == []


@pytest.mark.parametrize(("content", "line"), [
    ('{"epoch": }', "line 1 column 11: not JSON: Expecting value"),
    ({"epock": 3}, 'epock: no such key; did you mean "epoch"?'),
    ({"epoch": 0}, "epoch: expected a number >= 1, found 0"),
    ({"losses": [{"type": "softmax", "weight": -1}]}, "losses[0].weight: expected a number > 0, found -1"),
    ({"epochs": 3, "epoch": 3}, 'epochs: another spelling of "epoch", which is given too; keep one'),
    ({"working_dir": "a\0b"}, 'working_dir: expected a path of this system, found "a\\u0000b": embedded null byte'),
])
def test_a_mistake_outside_of_plugins_is_told(told_early, content, line):
    content = content if isinstance(content, str) else {**PLUGINS, **content}
    assert told_early(content) == [f"params.json: {line}"]


def test_a_mistake_of_the_command_line_is_told(told_early):
    assert told_early(PLUGINS, "epock=3") == ['params.json: epock: no such key; did you mean "epoch"?']


@pytest.mark.parametrize("content", [
    {"losses": [{"type": "softmax", "label_smoothin": 0.1}]},  # wrong
    {"losses": [{"type": "softmaxx"}]},
    {"losses": [{"type": "softmax", "label_smoothing": True}]},
    {"batch_sampling_params": {"type": "pk", "P": 4}},
    {"optimizer": {"type": "adam", "betas": [0.9]}},
    {"stages": [{"freeze": ["a"], "lr": {"decay_step": "x"}}]},
    {"model_params": {"backbone": "timm/resnet18"}},  # beyond what the schema tells
    {"evaluation_params": {"type": "own.module", "any": 1}},
    {"data_augmentation": {"random_erasing": {"area": [0.4, 0.02]}}},
])
def test_where_a_plugin_s_key_may_be_wrong_too_nothing_is_told_early(told_early, content):
    assert told_early({**PLUGINS, **content, "epock": 3}) == []


def test_both_kinds_of_mistakes_are_told_at_once(write):
    path = write({"losses": [{"type": "softmax", "label_smoothin": 0.1}], "epock": 3})
    refuse_early(draft(path, []))
    with pytest.raises(ParamsError) as caught:
        load(path, tables(EVALUATORS))
    assert [mistake.path for mistake in caught.value.mistakes] == [("epock",), ("losses", 0, "label_smoothin")]


@pytest.mark.parametrize(("node", "fit", "unfit"), [
    ({"type": "integer"}, [1], [True, 1.0, "1", None]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, [1, 0.5], [0, 1.1, True, "0.5"]),
    ({"type": "boolean"}, [True], [0, None]),
    ({"const": "a"}, ["a"], ["b", None]),
    ({"anyOf": [{"enum": ["a"], "type": "string"}, {"type": "null"}]}, ["a", None], ["b", 0]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
     [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
    ({"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}}, "additionalProperties": False},
     [{"a": None}], [{}, {"a": 1}, {"a": None, "b": 1}]),
    ({"type": "object"}, [{}, {"a": 1}], [[], None]),
    ({"type": "string", "pattern": "."}, [], ["a"]),  # what is not understood is never met
    ({"$ref": "#/$defs/Pooling"}, [{"type": "gem"}], [{"type": "gemm"}, {"type": "gem", "q": 1}]),
])
def test_a_node_of_the_schema_is_met_or_not(node, fit, unfit):
    assert [fits(value, node, DEFINITIONS) for value in [*fit, *unfit]] == [True] * len(fit) + [False] * len(unfit)


def test_an_integer_that_no_float_holds_is_no_number():
    assert fits(10**300, {"type": "number"}, {})
    assert not fits(10**400, {"type": "number"}, {})
