"""What a params.json says beyond its plug-ins' and its own defaults."""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from params.errors import dotted
from params.plugin import Table
from params.reader import Loaded
from params.schema import Plugin, Section
from params.tree import leaves

FREE = ("about", "$schema")  # keys without effect


def changed(loaded: Loaded, tables: Mapping[str, Table]) -> set[str]:
    """Of a params.json as it is in force, the keys whose value is not their default, as "losses[0].margin".

    A plug-in's keys are held against that plug-in's defaults, and a section's beside the same plug-in.
    """
    usual = flat(_defaults(loaded.params, tables))
    return {key for key, value in flat(loaded.resolved).items() if key not in usual or usual[key] != value}


def different(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys at which two runs' resolved params are not the same: key -> both values, None where there is none."""
    one, other = flat(first), flat(second)
    pairs = {key: (one.get(key), other.get(key)) for key in one | other if key != "working_dir"}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def flat(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of params that have an effect, as "losses[0].margin", with their values."""
    return {dotted(path): value for path, value in leaves(resolved) if path[0] not in FREE}


def _defaults(section: Section, tables: Mapping[str, Table]) -> dict[str, Any]:
    """A section as it were with nothing given but what its plug-ins are; keys that must be given are left out."""
    tree = _values(type(section).model_fields)
    if isinstance(section, Plugin):
        tree = _values(tables[section.table].options(section.choice.type).model_fields) | tree
    for name, value in section:
        if isinstance(value, Section):
            tree[name] = _defaults(value, tables)
        elif isinstance(value, list) and any(isinstance(item, Section) for item in value):
            usual = [*tree.get(name, []), *({} for _ in value)]  # entries that the default list has not
            tree[name] = [known | _defaults(item, tables) for known, item in zip(usual, value, strict=False)]
    return tree


def _values(fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    return {field.alias or name: to_jsonable_python(field.get_default(call_default_factory=True))
            for name, field in fields.items() if not field.is_required()}
