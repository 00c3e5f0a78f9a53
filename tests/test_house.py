"""The plan of the house: who may import whom, and that the names are ours."""

import ast
import importlib
from pathlib import Path

import pytest

from docs.generate import files

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "params": set(),
    "deploy": set(),
    "data": {"params", "deploy"},
    "trainer": {"params", "data", "deploy"},
    "evaluate": {"params", "data", "deploy"},
}
SHARED = {f"deploy.{name}" for name in ("preprocess", "files", "sealed", "cores", "command_line")}  # with all others


def imported(path):
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        ours = {name for name in imported(path) if name.split(".")[0] in {*ALLOWED, "train", "export"}}
        foreign = {name for name in ours if name.split(".")[0] not in {package, *ALLOWED[package]}}
        assert not foreign, path


def test_others_take_from_deploy_only_what_is_shared():
    for path in (path for package in ("data", "trainer", "evaluate") for path in (ROOT / package).rglob("*.py")):
        assert {name for name in imported(path) if name.startswith("deploy")} <= SHARED, path


@pytest.mark.parametrize("package", ALLOWED)
def test_the_packages_are_ours_and_not_their_namesakes(package):
    assert Path(importlib.import_module(package).__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_generated_files_are_in_step_with_the_code(path):
    assert path.read_text() == files()[path], "run make reference"
