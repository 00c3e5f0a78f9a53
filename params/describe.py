"""pydantic's errors in the words of params.json: path, what was expected, what was found."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from params.errors import Mistake, Path, did_you_mean
from params.tree import MISSING, child

EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "is_instance_of": "a list",  # of Sequence, the only class that a key is held against
    "list_type": "a list",
    "sequence_str": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
    "string_type": "a string",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "a string that is not empty",
}


def mistakes_of(
    error: ValidationError, given: Any, model: type[BaseModel], *, at: Path = (), owner: str = "",
    also: Iterable[str] = (),
) -> list[Mistake]:
    """One mistake per path of a failed validation of `given`, which stands at the path `at` of the file.

    `owner` names the plug-in whose keys were validated, `also` holds further keys that may stand beside them;
    the branches of a union become one "a or b".
    """
    expected: dict[Path, list[str]] = {}
    mistakes = []
    for detail in error.errors(include_url=False):
        path, found = _locate(detail["loc"], given, missing=detail["type"] == "missing")
        if detail["type"] == "extra_forbidden":
            mistakes.append(Mistake(at + path, _unknown(path, [*_keys_at(model, path[:-1]), *also], owner)))
        elif detail["type"] == "missing":
            mistakes.append(Mistake(at + path, "needed, and missing"))
        elif detail["type"] in EXPECTED:
            expected.setdefault(path, []).append(EXPECTED[detail["type"]].format(**detail.get("ctx", {})))
        else:
            mistakes.append(Mistake(at + path, f"{_own_words(detail['msg'])}, found {shown(found)}"))
    for path in expected.keys() & {other[:-1] for other in expected}:  # of a union, the branch that fits further
        del expected[path]
    for path, wanted in expected.items():
        found = _locate(path, given, missing=False)[1]
        mistakes.append(Mistake(at + path, f"expected {' or '.join(dict.fromkeys(wanted))}, found {shown(found)}"))
    return mistakes


def shown(value: Any) -> str:
    """A value as JSON, cut to a readable length."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(loc: Sequence[str | int], given: Any, *, missing: bool) -> tuple[Path, Any]:
    """The part of pydantic's location that exists in the file (it also names branches of unions), and its value."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        if child(given, part) is not MISSING:
            given = child(given, part)
            path.append(part)
        elif missing and position == len(loc) - 1:
            path.append(part)
    return tuple(path), given


def _unknown(path: Path, keys: Iterable[str], owner: str) -> str:
    return f"no such key{f' for {json.dumps(owner)}' if owner else ''}{did_you_mean(str(path[-1]), keys)}"


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys of the model nested at a path, for the did-you-mean."""
    schema = model.model_json_schema()
    node: Mapping[str, Any] = schema
    for part in path:
        node = _resolved(node, schema)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_resolved(node, schema).get("properties", {}))


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow $ref, and of alternatives take the object."""
    for branch in node.get("anyOf", []):
        if _resolved(branch, schema).get("properties"):
            return _resolved(branch, schema)
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    return node


def _own_words(message: str) -> str:
    return message.removeprefix("Value error, ")
