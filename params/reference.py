"""params.schema.json for editors and parameters.md for people, both made from the models and the plug-ins."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import CoreSchema

from params.plugin import Table
from params.schema import ParameterRule, Params, Plugin, Section, Stage

Tables = Mapping[str, Table]
Node = dict[str, Any]


class _Honest(GenerateJsonSchema):
    """Marks what validators of our own check further, since the schema cannot say it."""

    def generate_inner(self, schema: CoreSchema) -> Node:
        node = super().generate_inner(schema)
        return {**node, "$comment": "checked further by code"} if schema["type"].startswith("function-") else node


def json_schema(tables: Tables) -> Node:
    """A JSON Schema of params.json; each section that names a plug-in is one alternative per plug-in."""
    schema = Params.model_json_schema(by_alias=True, schema_generator=_Honest)
    for section in _sections():
        definition = schema["$defs"][section.__name__]
        schema["$defs"][section.__name__] = _alternatives(section, definition, tables[section.table], schema["$defs"])
    schema["title"] = "params.json of Kiln"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"].update(_sugar())
    schema["properties"]["pretrain_snapshot"]["anyOf"].append({"type": "string", "description": "its path alone"})
    return schema


def _alternatives(section: type[Plugin], definition: Node, table: Table, defs: Node) -> Node:
    own = dict(definition.get("properties", {}))
    own.pop(section.selector, None)
    branches = []
    for name in table:
        options = table.options(name).model_json_schema(ref_template="#/$defs/{model}", schema_generator=_Honest)
        defs.update(options.pop("$defs", {}))
        branch: Node = {"type": "object", "additionalProperties": options.get("additionalProperties", False),
                        "properties": {**own, **options.get("properties", {})}}
        required = list(options.get("required", []))
        if section.selector in section.model_fields:
            branch["properties"][section.selector] = {"const": name}
            if section.selector == "type" and section.model_fields["type"].default != name:
                required.append(section.selector)
        branches.append({**branch, **({"required": required} if required else {})})
    names = [{"enum": list(table)}] if section.selector == "type" else []
    return {"description": section.__doc__, "anyOf": [*branches, *names, *_further(section, own)]}


def _further(section: type[Plugin], own: Node) -> list[Node]:
    """What no table lists: timm's backbones, evaluators of the user's own, the switch class_balanced."""
    needed, properties = {
        "backbone": ("backbone", {"type": "string", "pattern": "^timm/"}),
        "evaluator": ("type", {"type": "string", "pattern": "\\."}),
        "sampler": ("class_balanced", {"type": "boolean"}),
    }.get(section.table, ("", {}))
    if not needed:
        return []
    return [{"type": "object", "required": [needed], "properties": {**own, needed: properties}}]


def _sugar() -> Node:
    """The short and historical keys, for editors."""
    number = {"type": "number", "minimum": 0}
    return {
        "epochs": {"type": "integer", "minimum": 1, "description": "another spelling of epoch"},
        "tri_loss_margin": {"anyOf": [number, {"const": "soft_margin"}],
                            "description": "short for a triplet in losses; 0 = off"},
        "fine_tune": {"type": "boolean", "description": "short for one of the stages: the backbone rests to the end"},
        "tri_loss_lambda_cls": {**number, "description": "short for the weight of softmax beside the triplet; 0 = off"},
    }


def markdown(tables: Tables) -> str:
    """docs/parameters.md: every key with type, default and meaning, section by section."""
    lines = ["# params.json", "",
             "Made from the code by `make reference`; a test keeps it in step. Paths are relative to the file.", "",
             *_table(Params), "", *_SUGAR]
    for section in _sections():
        lines += ["", f"## {_where(section)}", "", section.__doc__ or ""]
        if set(section.model_fields) - {section.selector} or section.selector in section.model_fields:
            lines += ["", *_table(section)]
        lines += _plugins(section, tables[section.table])
    for part in (ParameterRule, Stage):
        lines += ["", f"## {_where(part)}", "", part.__doc__ or "", "", *_table(part)]
    return "\n".join(lines) + "\n"


_SUGAR = [
    "Short and historical spellings:", "",
    "| spelling | stands for |", "|---|---|",
    "| `epochs` | `epoch` |",
    '| `tri_loss_margin` | a `triplet` in `losses` with that margin (a number or `"soft_margin"`); 0 = off |',
    "| `tri_loss_lambda_cls` | the weight of `softmax` beside that triplet; 0 = triplet alone |",
    '| `batch_sampling_params.class_balanced` | `"type": "pk"` when true, `"random"` when false |',
    '| `"fine_tune": true` | `"stages": [{"freeze": ["^backbone"]}]` |',
    '| `lr.decay_step` without `lr.schedule` | `"schedule": "step"`, or `"multistep"` for a list |',
    "| `lr.warmup_epoch` | `lr.warmup` |",
    '| `"optimizer": "adam"`, and so `model_params.neck`, `pooling`, `margin` | `{"type": "adam"}` |',
    '| `"pretrain_snapshot": "last.pth"` | `{"path": "last.pth"}`; `""` = null |',
    "| `model_params.model`, `model_params.last_conv_stride` | `model_params.backbone`, `model_params.last_stride` |",
    "| `model_params.random_drop_branchs`, `feature_gobal_dim` | `random_drop_branches`, `pcb_global_dim` |",
    "| `data_augmentation.colour_jitering`, `colour_jiterring` | `data_augmentation.colour_jitter` |",
]


def _plugins(section: type[Plugin], table: Table) -> Iterator[str]:
    for name in table:
        told = (table.load(name).__doc__ or "").strip().splitlines()
        rows = _table(table.options(name))
        named = section.selector in section.model_fields
        if named:
            yield from ("", f"### {_where(section)}: {name}", "", told[0] if told else "")
        if len(rows) > 2:
            yield from ("", *rows)


def _table(model: type[BaseModel]) -> list[str]:
    properties = model.model_json_schema(by_alias=True).get("properties", {})
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        meaning = field.description or "see its own section"
        rows.append(f"| `{key}` | {_type(properties[key])} | {_default(field)} | {meaning} |")
    return rows


def _type(node: Node) -> str:
    if "anyOf" in node:
        return " or ".join(_type(branch) for branch in node["anyOf"])
    if "$ref" in node:
        return "object"
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    if node.get("type") == "array":
        return f"list of {_type(node.get('items', {}))}"
    kind = str(node.get("type", "any"))
    if kind == "integer":
        kind, node = "whole number", _inclusive(node)
    return kind + _range(node)


def _inclusive(node: Node) -> Node:
    """A range of whole numbers by its ends."""
    steps = {"exclusiveMinimum": ("minimum", 1), "exclusiveMaximum": ("maximum", -1)}
    return node | {end: node[key] + step for key, (end, step) in steps.items() if key in node}


def _range(node: Node) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    ends = {key: f"{node[key]:.15g}" for key in words if key in node}
    if {"minimum", "maximum"} <= ends.keys():
        return f", {ends['minimum']} to {ends['maximum']}"
    return " and".join(f" {words[key]} {end}" for key, end in ends.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, BaseModel) or isinstance(value, list) and value and isinstance(value[0], BaseModel):
        value = json.loads(json.dumps(value, default=lambda model: model.model_dump()))
    return f"`{json.dumps(value)}`"


def _sections() -> list[type[Plugin]]:
    return Plugin.__subclasses__()


def _where(section: type[Section]) -> str:
    """The path of a section in params.json."""
    return {
        "Optimizer": "optimizer", "Lr": "lr", "Margin": "model_params.margin", "Pooling": "model_params.pooling",
        "Neck": "model_params.neck", "ModelParams": "model_params", "Sampling": "batch_sampling_params",
        "LossSection": "losses[]", "Evaluation": "evaluation_params", "Augmentation": "data_augmentation",
        "Preprocess": "preprocess", "ParameterRule": "parameter_rules[]", "Stage": "stages[]",
    }[section.__name__]
