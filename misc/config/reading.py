"""Reading YAML into nodes, and the constructors of a config's tags."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from torchdistill.common import yaml_util
from yaml.nodes import MappingNode, Node, ScalarNode

from misc.config.nodes import FLOAT_TAG, described, lookup, name_of, place, text_of
from misc.errors import UserError
from misc.files import ROOT

_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class Loader(yaml.FullLoader):
    """A loader for configs: constructors registered on yaml.FullLoader would affect all other users of PyYAML."""

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
        first: dict[str, Node] = {}
        for key, _ in node.value:
            earlier = first.setdefault(name_of(key), key)
            if earlier is not key:
                problem = f"duplicate key '{name_of(key)}', first set in {place(earlier)}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        return node


class Dumper(yaml.SafeDumper):
    """A dumper that writes numbers as Loader reads them."""


def _construct_path(loader: Loader, node: ScalarNode) -> str:
    """Construct `!path`: ~ is expanded, and a relative path starts at the repository's root."""
    return os.path.normpath(ROOT / os.path.expanduser(loader.construct_scalar(node)))


def _construct_import_call(loader: Loader, node: MappingNode) -> Any:
    """Construct `!import_call`; a missing file or a value that the object rejects is a UserError."""
    try:
        return yaml_util.yaml_import_call(loader, node)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        key = text_of(lookup(node, "key"))
        raise UserError(f"{place(node)}: {key}: {' '.join(str(error).split())}") from error


CONSTRUCTORS = {
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
for _tag, _constructor in CONSTRUCTORS.items():
    Loader.add_constructor(_tag, _constructor)
# YAML 1.1 requires a dot and a signed exponent, and would read 1e-3 as a string.
for _class in (Loader, Dumper):
    _class.add_implicit_resolver(FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def read(path: Path, wanted_by: str = "", anchors: dict[str, Node] | None = None) -> MappingNode:
    """Compose one file.

    Args:
        path: of the file.
        wanted_by: the place that names it, as a prefix for errors.
        anchors: as in `compose`.

    Raises:
        UserError: the file is missing or malformed, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{wanted_by}no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{wanted_by}cannot read {path}: {error}") from error
    root = compose(text, str(path), anchors)
    if root is None:
        raise UserError(f"{path}: empty file")
    if not isinstance(root, MappingNode):
        raise UserError(f"{place(root)}: a config must be a mapping, not {described(root)}")
    return root


def compose(text: str, name: str, anchors: dict[str, Node] | None = None) -> Node | None:
    """Compose a YAML text; return None if it is empty.

    Args:
        text: one document.
        name: where it is from, for errors.
        anchors: of earlier texts, which this one may alias; its own are added.

    Raises:
        UserError: the text is malformed.
    """
    try:
        loader = Loader(text)
        loader.name = name
        loader.anchors = {} if anchors is None else anchors
        return loader.get_single_node()
    except yaml.YAMLError as error:
        raise UserError(one_line(error, name)) from error


def one_line(error: yaml.YAMLError, name: str) -> str:
    """Return `FILE:LINE: problem`; PyYAML's own message has several lines and quotes the text."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{name}: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}" if mark else name
    return f"{where}: {' '.join(' '.join(filter(None, (error.context, error.problem))).split())}"
