"""From files and overrides to one tree of YAML nodes."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
import yaml
from torchdistill.common import yaml_util
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

import misc.datasets.mixed_pairs  # noqa: F401  registers a data set wrapper
import model.losses  # registers losses with torchdistill
import model.split  # noqa: F401  registers models
from misc.config.nodes import (
    TEXT_TAGS,
    described,
    edges,
    kind_of,
    lookup,
    name_of,
    place,
    text_of,
)
from misc.errors import UserError, did_you_mean
from misc.files import ROOT

_FLOAT_TAG = "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class _Loader(yaml.FullLoader):
    """A loader of our own: constructors registered on yaml.FullLoader would change every other user of PyYAML."""

    def compose_node(self, parent: Node | None, index: Node | int | None) -> Node:
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if not is_alias:
            node.home = (parent, index)
        elif not isinstance(node, ScalarNode) and node.end_mark is None:  # its end has not been read yet
            raise yaml.composer.ComposerError(None, None, "an alias inside its own anchor", mark)
        return node

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        first = {}
        for key, _ in node.value:
            earlier = first.setdefault(name_of(key), key)
            if earlier is not key:
                problem = f"duplicate key '{name_of(key)}', first set in {place(earlier)}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    """Writes numbers the way _Loader reads them."""


def _construct_path(loader: _Loader, node: ScalarNode) -> str:
    """`!path`: ~ is expanded, and a relative path starts at the repository root, whatever the working directory."""
    return os.path.normpath(ROOT / os.path.expanduser(loader.construct_scalar(node)))


def _construct_import_call(loader: _Loader, node: MappingNode) -> Any:
    """`!import_call`; a file that the object misses, or a value that it refuses, is the user's to mend."""
    try:
        return yaml_util.yaml_import_call(loader, node)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        key = text_of(lookup(node, "key"))
        raise UserError(f"{place(node)}: {key}: {' '.join(str(error).split())}") from error


_CONSTRUCTORS = {
    "!path": _construct_path,
    "!join": yaml_util.yaml_join,
    "!pathjoin": yaml_util.yaml_pathjoin,
    "!expanduser": yaml_util.yaml_expanduser,
    "!abspath": yaml_util.yaml_abspath,
    "!import_get": yaml_util.yaml_import_get,
    "!import_call": _construct_import_call,
    "!import_call_method": yaml_util.yaml_import_call_method,
    "!call_method": yaml_util.yaml_call_method,
    "!getattr": yaml_util.yaml_getattr,
    "!setattr": yaml_util.yaml_setattr,
    "!access_by_index_or_key": yaml_util.yaml_access_by_index_or_key,
}
for _tag, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(_tag, _constructor)
# YAML 1.1 wants a point and a signed exponent and reads 1e-3 as a string: a silent trap.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def _read(path: Path, wanted_by: str = "", anchors: dict[str, Node] | None = None) -> MappingNode:
    """Composes one file; `wanted_by` is the place that names it, for the error message."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{wanted_by}no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{wanted_by}cannot read {path}: {error}") from error
    root = _compose(text, str(path), anchors)
    if root is None:
        raise UserError(f"{path}: empty file")
    if not isinstance(root, MappingNode):
        raise UserError(f"{place(root)}: a config must be a mapping, not {described(root)}")
    return root


def _compose(text: str, name: str, anchors: dict[str, Node] | None = None) -> Node | None:
    """Composes a YAML text; `name` stands in its marks, `anchors` are seen by it and get its own added."""
    try:
        loader = _Loader(text)
        loader.name = name
        loader.anchors = {} if anchors is None else anchors
        return loader.get_single_node()
    except yaml.YAMLError as error:
        raise UserError(_one_line(error, name)) from error


def _one_line(error: yaml.YAMLError, name: str) -> str:
    """Returns `FILE:LINE: problem`; PyYAML's own message spreads over several lines and quotes the text."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{name}: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}" if mark else name
    return f"{where}: {' '.join(' '.join(filter(None, (error.context, error.problem))).split())}"


def _complete(leaf: MappingNode, path: Path, anchors: dict[str, Node], chain: tuple[Path, ...] = ()) -> MappingNode:
    """Returns the leaf's bases with its difference applied, merge keys resolved.

    `anchors` are shared by all files that are put together, `chain` are the leaves built on this one.
    """
    root, settings = _compose_base(leaf, path, anchors, (*chain, path.resolve()))
    _flatten_merges(root, set())
    for key, value in settings:
        _override(root, name_of(key), value, place(key))
    return root


def _compose_base(
    leaf: MappingNode, path: Path, anchors: dict[str, Node], chain: tuple[Path, ...]
) -> tuple[MappingNode, list[tuple[Node, Node]]]:
    """Returns the union of the leaf's base files and the entries of its `set`; a complete config is its own base."""
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
        root = _read(path, f"{place(file)}: base: ", anchors)
        if lookup(root, "base") is not None:
            if path.resolve() in chain:
                raise UserError(f"{place(file)}: base: {path} is, in the end, its own base")
            root = _complete(root, path, anchors, chain)
        united = root if united is None else _unite(united, root, "")
    return united


def _unite(first: MappingNode, second: MappingNode, prefix: str) -> MappingNode:
    """Adds the entries of `second` to `first`; mappings that both have are united in turn."""
    for key, value in second.value:
        path = prefix + name_of(key)
        index, mine = next((edge for edge in first.value if name_of(edge[0]) == name_of(key)), (None, None))
        if mine is None:
            first.value.append((key, value))
            if value.home == (second, key):
                value.home = (first, key)
        elif _both_mappings(mine, value) and key.tag != _MERGE_TAG:
            _unite(_own(first, index, mine), value, f"{path}.")
        else:
            raise UserError(f"{place(key)}: duplicate key '{path}', first set in {place(index)}")
    second.value = first.value  # an alias of `second` shows the whole
    return first


def _both_mappings(first: Node, second: Node) -> bool:
    return isinstance(first, MappingNode) and isinstance(second, MappingNode) and first.tag == second.tag


def _flatten_merges(node: Node, done: set[int]) -> None:
    """Replaces every `<<: *x` by x's own entries, so that only aliases are left to care for.

    Unlike PyYAML's own treatment on construction this comes before the overrides, which need the entries' edges.
    """
    if id(node) in done:
        return
    done.add(id(node))
    for _, child in edges(node):
        _flatten_merges(child, done)
    if not isinstance(node, MappingNode):
        return
    own = [(key, child) for key, child in node.value if key.tag != _MERGE_TAG]
    names = {name_of(key) for key, _ in own}
    inherited = []
    for key, merged in node.value:
        if key.tag != _MERGE_TAG:
            continue
        for source in merged.value if isinstance(merged, SequenceNode) else [merged]:
            if not isinstance(source, MappingNode):
                raise UserError(f"{place(key)}: '<<' merges mappings, not {described(source)}")
            fresh = [edge for edge in source.value if name_of(edge[0]) not in names]
            names.update(name_of(key) for key, _ in fresh)
            inherited += fresh
    node.value = inherited + own


def _parse_override(override: str) -> tuple[str, Node]:
    path, equals, text = override.partition("=")
    source = f"--set {override}"
    if not equals or not path.strip():
        raise UserError(f"{source}: write --set path=value")
    value = _compose(text, source)
    if value is None:
        raise UserError(f"{source}: the value is missing; write null or '' for nothing")
    return path.strip(), value


def _override(root: MappingNode, path: str, value: Node, source: str) -> None:
    """Puts `value` in the place `path`, which must exist and have its type.

    Every container on the way, and the node itself, is made this place's own first: an alias's target stays as it is.
    """
    _flatten_merges(value, set())
    node, rest = root, path
    while rest:
        index, child = _step(node, rest, path, source)
        node = _own(node, index, child)
        rest = rest[len(name_of(index)) + 1 :]
    kept = _kept(node, value, source if path in source else f"{source}: {path}")
    _become(node, value, kept)


def _step(node: Node, rest: str, path: str, source: str) -> tuple[Node | int, Node]:
    """Returns the edge of `node` with which `rest` begins; the longest one, since a key may hold points."""
    names = {name_of(index): (index, child) for index, child in edges(node)}
    fitting = [name for name in names if f"{rest}.".startswith(f"{name}.")]
    if fitting:
        return names[max(fitting, key=len)]
    parent, wrong = path.removesuffix(rest).rstrip("."), rest.partition(".")[0]
    where = f"'{parent}'" if parent else "the config"
    if not names:
        raise UserError(f"{source}: no '{path}': {where} is {described(node)}, nothing lies under it")
    raise UserError(f"{source}: no '{path}': {where} has no '{wrong}'{did_you_mean(wrong, names)}")


def _own(container: Node, index: Node | int, child: Node) -> Node:
    """Returns the child for changing: itself where it was written here, else a copy of one level put in its place."""
    if child.home == (container, index):
        return child
    mine = copy.copy(child)
    mine.home = (container, index)
    if not isinstance(mine, ScalarNode):
        mine.value = list(child.value)
    position = next(i for i, edge in enumerate(edges(container)) if edge[0] == index)
    container.value[position] = mine if isinstance(container, SequenceNode) else (index, mine)
    return mine


def _kept(old: Node, new: Node, source: str) -> dict[str, str]:
    """Returns what of `old` stays when `new` replaces it: the tag of a text, and a float's being one.

    Raises:
        UserError: The type differs; only null may replace, or be replaced by, anything.
    """
    was, now = kind_of(old), kind_of(new)
    if "null" in (was, now):
        return {}
    if isinstance(new, ScalarNode) and isinstance(old, ScalarNode) and old.tag in TEXT_TAGS:
        return {} if new.tag in TEXT_TAGS else {"tag": old.tag}
    if (was, now) == ("float", "int"):
        return {"tag": _FLOAT_TAG, "value": repr(float(yaml.safe_load(new.value)))}
    if was != now:
        raise UserError(f"{source}: {described(new)} would change the type of {described(old)}")
    return {}


def _become(node: Node, new: Node, kept: dict[str, str]) -> None:
    """Turns `node` into `new` in place: whatever refers to it follows, aliases and dictionary keys alike."""
    home = node.home
    node.__class__ = type(new)
    node.__dict__ = {**vars(new), **kept, "home": home}
    if isinstance(new, ScalarNode):
        return
    node.value = list(new.value)
    for index, child in edges(new):
        if child.home == (new, index):
            child.home = (node, index)
