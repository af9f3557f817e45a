"""Composing a config's files into one tree of nodes: bases united, the leaf's `set` applied."""

import os
from pathlib import Path

from yaml.nodes import MappingNode, Node, SequenceNode

from misc.config.editing import flatten_merges, override_value, writable_child
from misc.config.nodes import MERGE_TAG, described, kind_of, lookup, name_of, place, text_of
from misc.config.reading import read
from misc.errors import UserError, did_you_mean


def complete(leaf: MappingNode, path: Path, anchors: dict[str, Node], chain: tuple[Path, ...] = ()) -> MappingNode:
    """Return the leaf's bases with its difference applied, merge keys resolved.

    Args:
        leaf: a composed file.
        path: of the file.
        anchors: of the files composed so far; all files of a config share them.
        chain: leaves that are built on this one.

    Raises:
        UserError: a base is missing or malformed, or the difference does not fit.
    """
    root, settings = _compose_base(leaf, path, anchors, (*chain, path.resolve()))
    flatten_merges(root, set())
    for key, value in settings:
        override_value(root, name_of(key), value, place(key))
    return root


def _compose_base(
    leaf: MappingNode, path: Path, anchors: dict[str, Node], chain: tuple[Path, ...]
) -> tuple[MappingNode, list[tuple[Node, Node]]]:
    """Return the union of the leaf's base files, and the entries of its `set`; a complete config is its own base."""
    base, settings = lookup(leaf, "base"), lookup(leaf, "set")
    if base is None:
        if settings is not None:
            raise UserError(f"{place(settings)}: 'set' changes a base, but the file names none under 'base'")
        return leaf, []
    for key, _ in leaf.value:
        if name_of(key) not in ("base", "set"):
            hint = did_you_mean(name_of(key), ("base", "set"))
            raise UserError(f"{place(key)}: {name_of(key)}: a config with a base holds only 'base' and 'set'{hint}")
    if settings is not None and not isinstance(settings, MappingNode):
        raise UserError(f"{place(settings)}: set: must be a mapping of paths to values, not {described(settings)}")
    return _read_bases(base, path.parent, anchors, chain), settings.value if settings is not None else []


def _read_bases(base: Node, folder: Path, anchors: dict[str, Node], chain: tuple[Path, ...]) -> MappingNode:
    files = base.value if isinstance(base, SequenceNode) else [base]
    if not files or any(kind_of(file) != "str" or text_of(file) is None for file in files):
        raise UserError(f"{place(base)}: base: must be a file or a list of files")
    united = None
    for file in files:
        path = Path(os.path.normpath(folder / text_of(file)))
        root = read(path, f"{place(file)}: base: ", anchors)
        if lookup(root, "base") is not None:
            if path.resolve() in chain:
                raise UserError(f"{place(file)}: base: {path} is, directly or indirectly, its own base")
            root = complete(root, path, anchors, chain)
        united = root if united is None else _unite(united, root, "")
    return united


def _unite(first: MappingNode, second: MappingNode, prefix: str) -> MappingNode:
    """Add the entries of `second` to `first`; mappings that both have are united recursively."""
    for key, value in second.value:
        path = prefix + name_of(key)
        index, mine = next((edge for edge in first.value if name_of(edge[0]) == name_of(key)), (None, None))
        if mine is None:
            first.value.append((key, value))
            if value.home == (second, key):
                value.home = (first, key)
        elif _both_mappings(mine, value) and key.tag != MERGE_TAG:
            _unite(writable_child(first, index, mine), value, f"{path}.")
        else:
            raise UserError(f"{place(key)}: duplicate key '{path}', first set in {place(index)}")
    second.value = first.value  # an alias of `second` sees the union
    return first


def _both_mappings(first: Node, second: Node) -> bool:
    return isinstance(first, MappingNode) and isinstance(second, MappingNode) and first.tag == second.tag
