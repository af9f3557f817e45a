"""Editing composed nodes in place: merge keys resolved, values overridden, aliases kept intact."""

import copy
from collections.abc import Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from misc.config.nodes import FLOAT_TAG, MERGE_TAG, OBJECT, TEXT_TAGS, described, edges, kind_of, name_of, place
from misc.config.reading import compose
from misc.errors import UserError, did_you_mean

AUTO = "auto"  # stands for an object that the program chooses


def flatten_merges(node: Node, done: set[int]) -> None:
    """Replace every `<<: *x` by x's own entries, so that only aliases remain.

    PyYAML does so on construction, which is too late: overrides need the entries' edges.

    Args:
        node: the root of what to change.
        done: ids of nodes that have been dealt with; initially empty.

    Raises:
        UserError: `<<` merges something other than mappings.
    """
    if id(node) in done:
        return
    done.add(id(node))
    for _, child in edges(node):
        flatten_merges(child, done)
    if not isinstance(node, MappingNode):
        return
    written_here = [(key, child) for key, child in node.value if key.tag != MERGE_TAG]
    names = {name_of(key) for key, _ in written_here}
    inherited = []
    for key, merged in node.value:
        if key.tag != MERGE_TAG:
            continue
        for source in merged.value if isinstance(merged, SequenceNode) else [merged]:
            if not isinstance(source, MappingNode):
                raise UserError(f"{place(key)}: '<<' merges mappings, not {described(source)}")
            fresh = [edge for edge in source.value if name_of(edge[0]) not in names]
            names.update(name_of(key) for key, _ in fresh)
            inherited += fresh
    node.value = inherited + written_here


def parse_override(override: str) -> tuple[str, Node]:
    """Split `path=value` into the path and the composed value.

    Raises:
        UserError: not of this form, or the value is not YAML.
    """
    path, equals, text = override.partition("=")
    source = f"--set {override}"
    if not equals or not path.strip():
        raise UserError(f"{source}: write --set path=value")
    value = compose(text, source)
    if value is None:
        raise UserError(f"{source}: the value is missing; write null or '' for nothing")
    return path.strip(), value


def override_value(root: MappingNode, path: str, value: Node, source: str) -> None:
    """Replace the value at `path`, which must exist and be of the same type.

    Every container on the way, and the node itself, is copied if it is an alias, whose target stays as it is.

    Args:
        root: the config.
        path: like "train.stage1.num_epochs".
        value: the new node.
        source: where the override was written, for errors.

    Raises:
        UserError: there is no such path, or the types differ.
    """
    flatten_merges(value, set())
    node = root
    for index, child in path_edges(root, path, source):
        node = writable_child(node, index, child)
    kept = _kept(node, value, source if path in source else f"{source}: {path}")
    _become(node, value, kept)


def path_edges(root: Node, path: str, source: str) -> Iterator[tuple[Node | int, Node]]:
    """Yield (key node or index, child) of every step on the way from `root` to `path`.

    Raises:
        UserError: the path ends early; `source` says who named it.
    """
    node, rest = root, path
    while rest:
        index, node = _step(node, rest, path, source)
        rest = rest[len(name_of(index)) + 1 :]
        yield index, node


def _step(node: Node, rest: str, path: str, source: str) -> tuple[Node | int, Node]:
    """Return the edge of `node` with which `rest` begins; the longest one, as a key may contain dots."""
    names = {name_of(index): (index, child) for index, child in edges(node)}
    fitting = [name for name in names if f"{rest}.".startswith(f"{name}.")]
    if fitting:
        return names[max(fitting, key=len)]
    parent, wrong = path.removesuffix(rest).rstrip("."), rest.partition(".")[0]
    where = f"'{parent}'" if parent else "the config"
    if not names:
        raise UserError(f"{source}: no '{path}': {where} is {described(node)}, nothing lies under it")
    raise UserError(f"{source}: no '{path}': {where} has no '{wrong}'{did_you_mean(wrong, names)}")


def writable_child(container: Node, index: Node | int, child: Node) -> Node:
    """Return a child that may be changed: itself if it was written here, else a shallow copy put in its place."""
    if child.home == (container, index):
        return child
    twin = copy.copy(child)
    twin.home = (container, index)
    if not isinstance(twin, ScalarNode):
        twin.value = list(child.value)
    position = next(i for i, edge in enumerate(edges(container)) if edge[0] == index)
    container.value[position] = twin if isinstance(container, SequenceNode) else (index, twin)
    return twin


def _kept(old: Node, new: Node, source: str) -> dict[str, str]:
    """Return the attributes that `new` must take over from `old`: the tag of a text, or being a float.

    Raises:
        UserError: the types differ; only null may replace, or be replaced by, anything, and `auto` an object.
    """
    was, now = kind_of(old), kind_of(new)
    if "null" in (was, now) or (AUTO in (old.value, new.value) and OBJECT in (was, now)):
        return {}
    if isinstance(new, ScalarNode) and isinstance(old, ScalarNode) and old.tag in TEXT_TAGS:
        return {} if new.tag in TEXT_TAGS else {"tag": old.tag}
    if (was, now) == ("float", "int"):
        return {"tag": FLOAT_TAG, "value": repr(float(yaml.safe_load(new.value)))}
    if was != now:
        raise UserError(f"{source}: {described(new)} would change the type of {described(old)}")
    return {}


def _become(node: Node, new: Node, kept: dict[str, str]) -> None:
    """Turn `node` into `new` in place, so that everything that refers to it follows: aliases, and keys of mappings."""
    home = node.home
    node.__class__ = type(new)
    node.__dict__ = {**vars(new), **kept, "home": home}
    if isinstance(new, ScalarNode):
        return
    node.value = list(new.value)
    for index, child in edges(new):
        if child.home == (new, index):
            child.home = (node, index)
