"""Plug-ins by name: what params.json may choose, and which keys each choice takes."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, create_model


class Choice(NamedTuple):
    """One plug-in chosen in params.json: its name in the table and the keys given to it."""

    type: str
    options: Mapping[str, Any] = {}


class Table(Mapping[str, str]):
    """The menu of one kind of plug-in: name in params.json -> "module:attribute", imported when first used.

    The constructor is the schema: keyword-only arguments are the keys that params.json may give, with
    their annotations as types and ranges; positional arguments come from the run.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> Callable[..., Any]:
        """The class or function behind a name; KeyError when the table does not hold it."""
        module, _, attribute = self[name].partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return loaded

    def build(self, choice: Choice, **run: Any) -> Any:
        """Call the plug-in with its options and, of what the run knows, the positional arguments it names."""
        plugin = self.load(choice.type)
        parameters = inspect.signature(plugin).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        return plugin(*(run[name] for name in positional), **choice.options)

    def options(self, name: str) -> type[BaseModel]:
        """The keys that params.json may give for `name`, as a strict pydantic model."""
        return options_of(self.load(name))


@cache
def options_of(plugin: Callable[..., Any]) -> type[BaseModel]:
    """A strict pydantic model of the keyword-only arguments of a class or function.

    Every keyword-only argument needs an annotation; a string in Annotated[...] says what the key means;
    `**kwargs` lets any key through.
    """
    parameters = inspect.signature(plugin).parameters.values()
    fields: dict[str, Any] = {p.name: (p.annotation, _field(p)) for p in parameters if p.kind is p.KEYWORD_ONLY}
    free = any(p.kind is p.VAR_KEYWORD for p in parameters)
    config = ConfigDict(extra="allow" if free else "forbid", strict=True, protected_namespaces=())
    return create_model(getattr(plugin, "__name__", "options"), __config__=config, **fields)


def _field(parameter: inspect.Parameter) -> Any:
    meanings = [word for word in getattr(parameter.annotation, "__metadata__", ()) if isinstance(word, str)]
    default = ... if parameter.default is parameter.empty else parameter.default
    return Field(default, description=meanings[0]) if meanings else Field(default)
