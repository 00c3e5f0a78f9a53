"""params.json -> Params: read, override, rewrite, validate, and say every mistake at once."""

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from pydantic import ValidationError

from params.describe import mistakes_of, shown
from params.errors import Mistake, ParamsError, Path, did_you_mean, dotted
from params.plugin import Table
from params.schema import Params, Plugin
from params.sugar import SHORT_FOR, Rewritten, derive, make_way, spell_out, today
from params.tree import MISSING, cut, get, leaves, put

Rule = Callable[[Params], Iterable[Mistake]]
PATHS: tuple[Path, ...] = (("batches_dir",), ("working_dir",), ("imagenet_pretrain",), ("pretrain_snapshot", "path"))
DEPTH = 64  # objects and lists within each other


@dataclass(frozen=True)
class Loaded:
    """A params.json that holds, with where each value came from."""

    params: Params
    resolved: dict[str, Any]  # every key, plug-ins' defaults included, paths absolute
    origins: Mapping[str, str]  # "lr.base_lr" -> "file" | "override" | "sugar" | "default"
    notices: tuple[str, ...]


def load(
    path: FilePath, tables: Mapping[str, Table] | None, *, overrides: Sequence[str] = (), rules: Sequence[Rule] = (),
) -> Loaded:
    """Read and check a params.json against the schema, the plug-ins' tables and cross-field rules.

    `overrides` are "dotted.key=JSON" (a bare word is a string). Relative paths are taken from the file's
    folder. Without tables the plug-ins' keys are let through unseen: enough to find a run, and nothing of
    theirs is imported. Raises ParamsError with every mistake; nothing is written.
    """
    return whole(draft(path, overrides), tables, rules)


class Draft(NamedTuple):
    """A params.json checked as far as no plug-in is needed."""

    path: FilePath
    rewritten: Rewritten  # with the mistakes so far
    overridden: set[Path]
    params: Params | None  # what is left of it without mistakes


def draft(path: FilePath, overrides: Sequence[str]) -> Draft:
    """Read, override, rewrite and validate; ParamsError where the file holds no JSON object."""
    rewritten = Rewritten(read_json(path), set(), [], [])
    spell_out(rewritten)
    overridden = override(rewritten, overrides)
    derive(rewritten)
    return Draft(path, rewritten, overridden, _validated(rewritten.raw, rewritten.mistakes))


def whole(drafted: Draft, tables: Mapping[str, Table] | None, rules: Sequence[Rule] = ()) -> Loaded:
    """What `load` makes of a draft, which stays as it is."""
    path, rewritten, overridden, params = drafted
    mistakes = list(rewritten.mistakes)
    resolved = _with_plugins(params, tables or {}, mistakes) if params else {}
    _absolute(resolved, path.parent, mistakes)
    if params and not mistakes:
        for rule in rules:
            mistakes.extend(rule(params))
    if mistakes or params is None:
        raise ParamsError(path.name, sorted(mistakes, key=lambda mistake: dotted(mistake.path)))
    return Loaded(
        Params.model_validate(resolved), resolved, _origins(resolved, rewritten, overridden), tuple(rewritten.notices),
    )


def read_json(path: FilePath) -> dict[str, Any]:
    """The object in a JSON file; ParamsError with line and column where it is none."""
    try:
        value = _decoded(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = _reason(error)
    else:
        if isinstance(value, dict):
            return value
        reason = f"expected an object, found {type(value).__name__}"
    raise ParamsError(path.name, [Mistake((), reason)])


def _reason(error: OSError | ValueError) -> str:
    """Why a file is no JSON, in one line."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}; give the file's path with --config_path"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text at byte {error.start}; save it as UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} column {error.colno}: not JSON: {error.msg}"
    return str(error)


def _decoded(text: str) -> Any:
    """The value of a JSON text; ValueError for what is none, and for what could not be written back as JSON."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
        deep = _depth(value) > DEPTH
    except RecursionError:
        deep = True
    if deep:
        raise ValueError("nested too deeply to be a params.json")
    _only_characters(json.dumps(value, ensure_ascii=False))
    return value


def _depth(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, below), default=0)


def _only_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[error.start]!a} is half of a surrogate pair, no character") from None


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in items]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'the key "{name}" is given twice in one object; keep one')
    return dict(items)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number; give a finite one")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits} is too large for a number; give a finite one")
    return value


def override(rewritten: Rewritten, overrides: Sequence[str]) -> set[Path]:
    """Put "dotted.key=JSON" values in, by any spelling of the key; the paths that were set."""
    done: set[Path] = set()
    for text in overrides:
        name, separator, value = text.partition("=")
        path = today(tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part
                           for part in re.findall(r"[^.\[\]]+", name)))
        if not separator or not path:
            rewritten.mistakes.append(Mistake((), f"--set {text}: expected key=value, as in --set lr.base_lr=0.02"))
            continue
        try:
            _only_characters(text)
            _put(rewritten, path, _json_or_text(value))
        except ValueError as error:
            rewritten.mistakes.append(Mistake(path, f"--set {text}: {error}"))
        else:
            done.add(SHORT_FOR.get(path, path))
    return done


def _put(rewritten: Rewritten, path: Path, value: Any) -> None:
    make_way(rewritten, path)
    if not put(rewritten.raw, path, value):
        raise ValueError("there is no such place in the file")
    spell_out(rewritten)


def _json_or_text(text: str) -> Any:
    """A value of the command line; ValueError where it is JSON that a file could not hold."""
    try:
        return _decoded(text)
    except json.JSONDecodeError:
        return text


def _validated(raw: dict[str, Any], mistakes: list[Mistake]) -> Params | None:
    """The params; with mistakes, what is left without them, so that plug-ins' mistakes are said as well."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        found = mistakes_of(error, raw, Params)
    mistakes.extend(found)
    left = copy.deepcopy(raw)
    for mistake in found:
        cut(left, mistake.path)
    left.setdefault("batches_dir", "missing")
    try:
        return Params.model_validate(left)
    except ValidationError:
        return None


def _with_plugins(
    params: Params, tables: Mapping[str, Table], mistakes: list[Mistake],
) -> dict[str, Any]:
    """Every key of params.json, with the plug-ins' own keys checked and their defaults filled in."""
    resolved = params.model_dump(mode="json", by_alias=True)
    for path, section in params.plugins() if tables else ():
        table = tables[section.table]
        choice = section.choice
        if choice.type not in table:
            hint = did_you_mean(choice.type, table)
            mistakes.append(Mistake((*path, section.selector), f'no {table.kind} is called "{choice.type}"{hint}'))
            continue
        mistakes.extend(_check_options(table, section, path, resolved))
    return resolved


def _check_options(table: Table, section: Plugin, path: Path, resolved: dict[str, Any]) -> list[Mistake]:
    name, options = section.choice
    try:
        model = table.options(name)
    except ValueError as error:  # what the plug-in stands for is not installed, or is no plug-in
        return [Mistake((*path, section.selector), str(error))]
    owner = name if section.selector in type(section).model_fields else ""
    try:
        checked = model.model_validate(dict(options))
    except ValidationError as error:
        return mistakes_of(error, options, model, at=path, owner=owner, also=type(section).model_fields)
    get(resolved, path).update(checked.model_dump(mode="json"))
    return []


def _absolute(resolved: dict[str, Any], folder: FilePath, mistakes: list[Mistake]) -> None:
    for path in PATHS:
        value = get(resolved, path)
        if isinstance(value, list):
            for i in range(len(value)):
                _absolute_at((*path, i), resolved, folder, mistakes)
            mistakes.extend(_repeated(path, value))
        else:
            _absolute_at(path, resolved, folder, mistakes)


def _absolute_at(path: Path, resolved: dict[str, Any], folder: FilePath, mistakes: list[Mistake]) -> None:
    value = get(resolved, path)
    if isinstance(value, str):
        try:
            put(resolved, path, str(_place(folder, value)))
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            mistakes.append(Mistake(path, f"expected a path of this system, found {shown(value)}: {reason}"))


def _repeated(path: Path, folders: list[str]) -> Iterator[Mistake]:
    for i, folder in enumerate(folders):
        if (first := folders.index(folder)) < i:
            yield Mistake((*path, i), f"the same folder as {dotted((*path, first))}; name it once")


def _place(folder: FilePath, value: str) -> FilePath:
    """The absolute path; raises where the system could have none such, as for NUL, ~nobody or names too long."""
    place = (folder / FilePath(value).expanduser()).resolve()
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # told by whoever opens it
        place.lstat()
    return place


def _origins(resolved: dict[str, Any], rewritten: Rewritten, overridden: set[Path]) -> dict[str, str]:
    def origin(path: Path) -> str:
        prefixes = [path[:n] for n in range(len(path), 0, -1)]
        if get(rewritten.raw, path) is MISSING:
            return "default"
        if any(prefix in overridden for prefix in prefixes):
            return "override"
        return "sugar" if any(prefix in rewritten.sugared for prefix in prefixes) else "file"

    return {dotted(path): origin(path) for path, _ in leaves(resolved)}
