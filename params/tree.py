"""JSON trees and the paths in them."""

from collections.abc import Iterable, Iterator
from typing import Any

from params.errors import Path

MISSING = object()


def child(node: Any, part: str | int) -> Any:
    """What stands at one key or place of a node; MISSING when nothing does."""
    if isinstance(node, dict):
        return node.get(part, MISSING)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return MISSING


def get(node: Any, path: Path) -> Any:
    """What stands at a path; MISSING when nothing does."""
    for part in path:
        node = child(node, part)
    return node


def put(node: Any, path: Path, value: Any) -> bool:
    """Set what stands at a path, making objects on the way; whether there is such a place."""
    part, *rest = path
    if isinstance(node, list):
        if child(node, part) is MISSING:
            return False
    elif not isinstance(node, dict) or not isinstance(part, str):
        return False
    elif rest and isinstance(rest[0], str) and child(node, part) in (MISSING, None):
        node[part] = {}
    if rest:
        return put(child(node, part), tuple(rest), value)
    node[part] = value
    return True


def cut(node: Any, path: Path) -> None:
    """Remove what stands at a path; of a list, the whole list, since its later places must keep their numbers."""
    for part, following in zip(path, (*path[1:], None), strict=True):
        if child(node, part) is MISSING:
            return
        if following is None or isinstance(following, int):
            del node[part]
            return
        node = child(node, part)


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value of a tree with its path; empty objects and lists of plain values are values."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        children = enumerate(node)
    found = False
    for key, below in children:
        found = True
        yield from leaves(below, (*path, key))
    if not found:
        yield path, node
