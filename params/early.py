"""Mistakes in a params.json that are told at once, before any plug-in, and with it torch, is imported."""

import json
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from params.errors import ParamsError
from params.reader import Draft, whole
from params.schema import Params
from params.tree import get

SCHEMA = FilePath(__file__).with_name("params.schema.json")  # made from the tables of plug-ins, and kept in step
TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list, "boolean": bool, "integer": int, "null": type(None), "number": (int, float), "object": dict,
    "string": str,
}
LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "const": operator.eq, "enum": lambda value, words: value in words,
    "minimum": operator.ge, "exclusiveMinimum": operator.gt, "maximum": operator.le, "exclusiveMaximum": operator.lt,
    "minItems": lambda value, least: len(value) >= least, "maxItems": lambda value, most: len(value) <= most,
    "required": lambda value, keys: value.keys() >= set(keys),
}
UNDERSTOOD = {"$ref", "anyOf", "type", "items", "properties", "additionalProperties", *LIMITS,
              "default", "description", "title"}


def refuse_early(drafted: Draft) -> None:
    """Raise ParamsError where it surely holds every mistake that `whole` with the tables of plug-ins would find.

    So it is where all mistakes stand outside of plug-ins' keys, and the JSON Schema finds none in those.
    """
    try:
        whole(drafted, None)
    except ParamsError:
        if drafted.params is None or _plugins_fit(drafted.params):
            raise


def _plugins_fit(params: Params) -> bool:
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    given = params.model_dump(mode="json", by_alias=True)
    return all(fits(get(given, path), definitions[type(section).__name__], definitions)
               for path, section in params.plugins())


def fits(value: Any, node: Mapping[str, Any] | bool, definitions: Mapping[str, Any]) -> bool:
    """Whether a value surely is what a node of the JSON Schema describes: a node that says more is never met."""
    if isinstance(node, bool):
        return node
    if node.keys() - UNDERSTOOD:
        return False
    if "$ref" in node:
        return fits(value, definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in node:
        return any(fits(value, branch, definitions) for branch in node["anyOf"])
    if "type" in node and not _is(value, node["type"]):
        return False
    limits = all(holds(value, node[word]) for word, holds in LIMITS.items() if word in node)
    return limits and all(fits(part, below, definitions) for part, below in _parts(value, node))


def _is(value: Any, kind: str) -> bool:
    if kind == "number" and isinstance(value, int) and abs(value) > sys.float_info.max:
        return False  # JSON knows such integers, no float holds them
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _parts(value: Any, node: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any] | bool]]:
    """The parts of an object or a list, each with the node that describes it."""
    if isinstance(value, dict):
        known, others = node.get("properties", {}), node.get("additionalProperties", True)
        yield from ((part, known.get(key, others)) for key, part in value.items())
    elif isinstance(value, list):
        yield from ((part, node.get("items", True)) for part in value)
