"""Experiment configs: a base and a difference, composed as YAML nodes; objects are built last.

A leaf names its base and what it changes; a file without `base` is a complete config:

    base: ../_base/digits.yaml      # a file, possibly another leaf, or a list of files to unite; relative to the leaf
    set:
      lmbda: 0.08
      train.stage1.num_epochs: 3

torchdistill's tags build data sets while a file is read, so files are first composed to nodes only. `set`, and then the
command line's `--set path=value`, change nodes in place; aliases, `!join` paths and `!import_call` arguments follow,
as they share the node. Then everything is checked, what the run does not need is dropped, and the rest is constructed.

A composed node has one attribute that PyYAML's do not have: `home`, the (container, key or index) where it was written.
Any other edge that leads to it is an alias or came through a merge key.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

import misc.datasets.mixed_pairs  # noqa: F401  registers a data set wrapper
import model.losses  # registers losses with torchdistill
import model.split  # noqa: F401  registers models
from misc.config.check import validate
from misc.config.compose import complete
from misc.config.editing import override_value, parse_override, path_edges, writable_child
from misc.config.nodes import OBJECT, Mode, dataset_ids, kind_of, lookup, name_of, text_of
from misc.config.reading import Dumper, Loader, one_line, read
from misc.errors import UserError


class LoadedConfig(NamedTuple):
    """A config ready for use.

    Attributes:
        data: the constructed top-level mapping, without `vars` and without what the mode does not need.
        resolved: the same as YAML text, aliases expanded and overrides applied: itself a complete config.
    """

    data: dict[str, Any]
    resolved: str


class Config:
    """A composed and checked config of which nothing is built yet."""

    def __init__(self, root: MappingNode) -> None:
        self._root = root

    @property
    def resolved(self) -> str:
        """The config as YAML text: aliases expanded, overrides applied, tags kept; loadable as a complete config."""
        return yaml.serialize(_expanded(self._root), Dumper=Dumper, width=120, allow_unicode=True)

    def has(self, path: str) -> bool:
        """Tell whether there is a value at a path like "models.student_model"."""
        try:
            self._find(path)
        except UserError:
            return False
        return True

    def construct(self, path: str = "") -> Any:
        """Build the config, data sets included, or only the value at a path ("models.student_model.kwargs.encoder").

        Aliases of an object share it, but dictionaries and lists are copied: torchdistill writes into them (it scales
        `lr` in place), which stage 2 would inherit from stage 1.

        Raises:
            UserError: there is nothing at the path, a file or folder that a data set needs is missing, or a value does
                not fit its tag.
        """
        loader = Loader("")
        try:
            return loader.construct_document(_expanded(self._find(path), shares_objects=True))
        except yaml.MarkedYAMLError as error:
            raise UserError(one_line(error, "config")) from error
        finally:
            loader.dispose()

    def _find(self, path: str) -> Node:
        node = self._root
        for _, node in path_edges(self._root, path, "the config"):  # noqa: B007  only the last one is wanted
            pass
        return node


def read_plain(path: str | Path) -> dict[str, Any]:
    """Return a YAML mapping without tags, read like a config: 1e-3 is a number.

    Raises:
        UserError: the file is missing or malformed.
    """
    return Config(read(Path(path))).construct()


def load_config(path: str | Path, overrides: Iterable[str] = (), mode: Mode = "train") -> LoadedConfig:
    """Compose, check and construct a config.

    Arguments and errors are those of `compose_config` and `Config.construct`.
    """
    config = compose_config(path, overrides, mode)
    return LoadedConfig(config.construct(), config.resolved)


def compose_config(path: str | Path, overrides: Iterable[str] = (), mode: Mode = "train") -> Config:
    """Compose and check a config without building anything.

    Args:
        path: a leaf or a complete config.
        overrides: the command line's `path=value` strings, applied after the leaf's `set`; a value is YAML.
        mode: "train" keeps the data sets that `train` and `test` name; "test" those of `test`, and drops `train`;
            "dry_run" is "train" with the classes of the data sets in place of the data sets.

    Raises:
        UserError: a file is missing or malformed, an override does not fit, or the check finds mistakes (all of them
            in one message).
    """
    root = complete(read(Path(path)), Path(path), {})
    for override in overrides:
        override_value(root, *parse_override(override), f"--set {override}")
    mistakes = validate(root, mode)
    if mistakes:
        numbered = "; ".join(f"{number}) {mistake}" for number, mistake in enumerate(mistakes, start=1))
        raise UserError(mistakes[0] if len(mistakes) == 1 else f"{len(mistakes)} mistakes in {path}: {numbered}")
    _drop_unneeded(root, mode)
    return Config(root)


def _drop_unneeded(root: MappingNode, mode: Mode) -> None:
    """Drop what would be built in vain; a node that is aliased elsewhere survives there.

    `vars` is dropped too: it is scratch space, used through aliases alone.
    """
    parts = ("test",) if mode == "test" else ("train", "test")
    needed = {text_of(node) for part in parts for _, node in dataset_ids(lookup(root, part))}
    dropped = {"vars", "train"} if mode == "test" else {"vars"}
    root.value = [(key, node) for key, node in root.value if name_of(key) not in dropped]
    for key, node in root.value:
        if name_of(key) == "datasets" and kind_of(node) == "mapping":
            entries = writable_child(root, key, node)
            kept = [(name, entry) for name, entry in entries.value if name_of(name) in needed]
            entries.value = [(name, _class_of(entry)) for name, entry in kept] if mode == "dry_run" else kept


def _class_of(entry: Node) -> Node:
    """Return a node that constructs the class of an `!import_call` instead of an object of it."""
    if entry.tag != "!import_call":
        return entry
    named = [(key, value) for key, value in entry.value if name_of(key) in ("key", "package")]
    return MappingNode("!import_get", named, entry.start_mark, entry.end_mark, flow_style=True)


def _expanded(node: Node, shares_objects: bool = False) -> Node:
    """Return a copy in which no two edges lead to the same node, except to an object's if those are shared."""
    if shares_objects and kind_of(node) == OBJECT:
        return node
    twin = copy.copy(node)
    if isinstance(node, MappingNode):
        twin.value = [(_expanded(key, shares_objects), _expanded(value, shares_objects)) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        twin.value = [_expanded(item, shares_objects) for item in node.value]
    return twin
