"""Scores of a trained network: one `*_evaluate.py` per protocol, pure functions beneath them."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from evaluate.protocol import is_declared
from params.plugin import Table, options_of


class Evaluators(Table):
    """The evaluators of this folder by file name, and modules of the user's own by dotted path.

    A file named `*_evaluate.py` with a `run_eval` in it is on the menu; there is nothing to register.
    """

    def __init__(self) -> None:
        super().__init__("evaluator", {})

    def __iter__(self) -> Iterator[str]:
        return iter(_found())

    def __len__(self) -> int:
        return len(_found())

    def __getitem__(self, name: str) -> str:
        if name in _found():
            return f"{__name__}.{name}:run_eval"
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            return f"{name}:run_eval"
        raise KeyError(name)

    def load(self, name: str) -> Callable[..., Any]:
        """The run_eval behind a name or dotted path; ValueError says what is missing and what there is."""
        if name not in self:
            raise ValueError(f'no evaluator "{name}"; there are {", ".join(self)}, '
                             "or the dotted path of a module of your own")
        module, _, attribute = self[name].partition(":")
        try:
            run_eval: Callable[..., Any] | None = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise ValueError(f'evaluator "{name}" cannot be imported: {error}; '
                             "is it installed, and its folder on PYTHONPATH?") from error
        if run_eval is None:
            raise ValueError(f'evaluator "{name}" has no {attribute}(config, predict); write one')
        return run_eval

    def options(self, name: str) -> type[BaseModel]:
        """The keys of evaluation_params that are the evaluator's; any key for an undeclared run_eval."""
        run_eval = self.load(name)
        return options_of(run_eval if is_declared(run_eval) else _undeclared)


def _found() -> list[str]:
    """Names of the `*_evaluate` modules in this package's folder, as it is now."""
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(name for name in names if name.endswith("_evaluate"))


def _undeclared(**options: Any) -> None:
    """The options of a plain run_eval(config, predict), which reads its section of config itself."""


EVALUATORS = Evaluators()
