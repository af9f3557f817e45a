"""Experiment configs: a base and a difference, put together as YAML nodes; objects are built last.

A leaf names its base and what it changes; a file without `base` is a complete config:

    base: ../_base/digits.yaml      # a file (another leaf, too), or a list of files united key by key; relative to it
    set:
      lmbda: 0.08
      train.stage1.num_epochs: 3

torchdistill's tags build data sets while a file is read, so at first the files are only composed to nodes. `set` and
then the command line's `--set path=value` change nodes in place; aliases, `!join` paths and `!import_call` arguments
follow because they share the node. Then everything is checked, what the run does not need is dropped, and the rest is
constructed.

A composed node carries one attribute beyond PyYAML's: `home`, the (container, key or index) where it was written. Any
other edge that leads to it is an alias or came through a merge key.
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
from misc.config.compose import (
    _CONSTRUCTORS,
    _EXPONENT,
    _FLOAT_TAG,
    _complete,
    _Dumper,
    _Loader,
    _one_line,
    _override,
    _own,
    _parse_override,
    _read,
    _step,
)
from misc.config.nodes import (
    OBJECT,
    Mode,
    dataset_ids,
    kind_of,
    lookup,
    name_of,
    text_of,
)
from misc.errors import UserError


class LoadedConfig(NamedTuple):
    """A config ready for use.

    Attributes:
        data: The constructed top-level mapping, without `vars` and without what the mode does not need.
        resolved: The same as YAML text, aliases expanded and overrides applied: itself a complete config.
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
        return yaml.serialize(_expanded(self._root), Dumper=_Dumper, width=120, allow_unicode=True)

    def has(self, path: str) -> bool:
        """Whether there is a value at a path like "models.student_model"."""
        node = self._root
        for name in path.split("."):
            node = lookup(node, name)
        return node is not None

    def construct(self, path: str = "") -> Any:
        """Builds the config, data sets included, or the value at a path alone ("models.student_model.kwargs.encoder").

        An object is shared by its aliases, a dictionary or list is not: torchdistill writes into them (it scales `lr`
        in place), which stage 2 would inherit from stage 1.

        Raises:
            UserError: There is nothing at the path, a file or folder that a data set needs is missing, or a value does
                not fit its tag.
        """
        node, rest = self._root, path
        while rest:
            index, node = _step(node, rest, path, "the config")
            rest = rest[len(name_of(index)) + 1 :]
        loader = _Loader("")
        try:
            return loader.construct_document(_expanded(node, shares_objects=True))
        except yaml.MarkedYAMLError as error:
            raise UserError(_one_line(error, "config")) from error
        finally:
            loader.dispose()


def read_plain(path: str | Path) -> dict[str, Any]:
    """Returns a YAML mapping without tags, read like a config: 1e-3 is a number.

    Raises:
        UserError: the file is missing or malformed.
    """
    return Config(_read(Path(path))).construct()


def load_config(path: str | Path, overrides: Iterable[str] = (), mode: Mode = "train") -> LoadedConfig:
    """Composes, checks and constructs a config.

    Arguments and errors are those of `compose_config` and of `Config.construct`.
    """
    config = compose_config(path, overrides, mode)
    return LoadedConfig(config.construct(), config.resolved)


def compose_config(path: str | Path, overrides: Iterable[str] = (), mode: Mode = "train") -> Config:
    """Composes and checks a config without building anything.

    Args:
        path: A leaf or a complete config.
        overrides: The command line's `path=value` strings, applied after the leaf's `set`; a value is YAML.
        mode: "train" keeps the data sets that `train` and `test` name; "test" those of `test`, and no `train`;
            "dry_run" is "train" with the names of the data sets' classes in place of the data sets.

    Raises:
        UserError: A file is missing or malformed, an override does not fit, or the check finds mistakes (all of them
            in one message).
    """
    root = _complete(_read(Path(path)), Path(path), {})
    for override in overrides:
        _override(root, *_parse_override(override), f"--set {override}")
    mistakes = validate(root, mode)
    if mistakes:
        numbered = "; ".join(f"{number}) {mistake}" for number, mistake in enumerate(mistakes, start=1))
        raise UserError(mistakes[0] if len(mistakes) == 1 else f"{len(mistakes)} mistakes in {path}: {numbered}")
    _drop_unneeded(root, mode)
    return Config(root)


# ---------------------------------------------------------------------------------------------------------------------
# Text to nodes
# ---------------------------------------------------------------------------------------------------------------------


for _tag, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(_tag, _constructor)
# YAML 1.1 wants a point and a signed exponent and reads 1e-3 as a string: a silent trap.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


# ---------------------------------------------------------------------------------------------------------------------
# What is left
# ---------------------------------------------------------------------------------------------------------------------


def _drop_unneeded(root: MappingNode, mode: Mode) -> None:
    """Takes out what would be built for nothing; a node that something else aliases stays with that.

    `vars` goes too: it is scratch, reached only through aliases.
    """
    parts = ("test",) if mode == "test" else ("train", "test")
    needed = {text_of(node) for part in parts for _, node in dataset_ids(lookup(root, part))}
    dropped = {"vars", "train"} if mode == "test" else {"vars"}
    root.value = [(key, node) for key, node in root.value if name_of(key) not in dropped]
    for key, node in root.value:
        if name_of(key) == "datasets" and kind_of(node) == "mapping":
            entries = _own(root, key, node)
            kept = [(name, entry) for name, entry in entries.value if name_of(name) in needed]
            entries.value = (
                [(name, lookup(entry, "key") or entry) for name, entry in kept] if mode == "dry_run" else kept
            )


def _expanded(node: Node, shares_objects: bool = False) -> Node:
    """Returns a copy in which no two edges share a node, or none but an object's."""
    if shares_objects and kind_of(node) == OBJECT:
        return node
    twin = copy.copy(node)
    if isinstance(node, MappingNode):
        twin.value = [(_expanded(key, shares_objects), _expanded(value, shares_objects)) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        twin.value = [_expanded(item, shares_objects) for item in node.value]
    return twin
