"""Queries on YAML nodes: children, paths, kinds, places."""

from collections.abc import Iterator
from typing import Literal

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from misc.errors import UserError

Mode = Literal["train", "test", "dry_run"]
TEXT_TAGS = frozenset({"!path", "!join", "!pathjoin", "!expanduser", "!abspath"})
STANDARD_TAG = "tag:yaml.org,2002:"
FLOAT_TAG = f"{STANDARD_TAG}float"
MERGE_TAG = f"{STANDARD_TAG}merge"
OBJECT = "an object from a tag"


def edges(node: Node) -> list[tuple[Node | int, Node]]:
    """Return (key node or index, child) of every child; a scalar has none."""
    if isinstance(node, MappingNode):
        return list(node.value)
    return list(enumerate(node.value)) if isinstance(node, SequenceNode) else []


def text_of(node: Node | None) -> str | None:
    """Return the text of a scalar or of a `!join` of scalars; None for everything else."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode) and node.tag == "!join":
        parts = [text_of(part) for part in node.value]
        return None if None in parts else "".join(parts)
    return None


def name_of(index: Node | int) -> str:
    """Return the name of an edge as it appears in a path.

    Raises:
        UserError: the key is itself a mapping or a list.
    """
    name = str(index) if isinstance(index, int) else text_of(index)
    if name is None:
        raise UserError(f"{place(index)}: a key must be a scalar")
    return name


def lookup(node: Node | None, *names: str) -> Node | None:
    """Return the node under the keys `names`, or None."""
    for name in names:
        children = node.value if isinstance(node, MappingNode) else []
        node = next((child for key, child in children if name_of(key) == name), None)
    return node


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (path, node) for `node` and everything under it; an aliased node once."""
    seen, waiting = set(), [(path, node)]
    while waiting:
        path, node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield path, node
            waiting += [(join_path(path, name_of(index)), child) for index, child in reversed(edges(node))]


def dataset_ids(node: Node | None) -> list[tuple[str, Node]]:
    """Return (path, node) of every `dataset_id` under `node`."""
    mappings = walk(node) if node is not None else ()
    found = ((join_path(path, "dataset_id"), lookup(mapping, "dataset_id")) for path, mapping in mappings)
    return [(path, value) for path, value in found if value is not None]


def place(node: Node) -> str:
    """Return `FILE:LINE` of a node, or its `--set path=value`, which has no lines."""
    mark = node.start_mark
    return mark.name if mark.name.startswith("--set ") else f"{mark.name}:{mark.line + 1}"


def kind_of(node: Node) -> str:
    """Return the type of a node's value: null, bool, int, float, str, mapping, list, or `OBJECT` if a tag builds it."""
    if node.tag in TEXT_TAGS:
        return "str"
    if not node.tag.startswith(STANDARD_TAG):
        return OBJECT
    name = node.tag.removeprefix(STANDARD_TAG)
    return {"map": "mapping", "seq": "list"}.get(name, name)


def described(node: Node) -> str:
    """Return a node for an error message: `'x' (str)`, `a mapping`, `a !import_call`."""
    if isinstance(node, ScalarNode):
        return f"{node.value!r} ({kind_of(node)})" if kind_of(node) != "null" else "null"
    return f"a {node.tag}" if kind_of(node) == OBJECT else f"a {kind_of(node)}"


def join_path(path: str, name: str) -> str:
    """Return the path of a child."""
    return f"{path}.{name}" if path else name
