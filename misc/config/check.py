"""Check of a config's YAML nodes against the schema: reports all mistakes at once, builds nothing.

torchdistill reads most keys with `.get`, so it ignores misspelt ones, and it sets a stage up only when the stage
begins, so a mistake in stage 2 would surface after stage 1 has been trained. Hence everything is checked beforehand.
"""

import inspect
from collections.abc import Callable, Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from misc.config.nodes import (
    OBJECT,
    STANDARD_TAG,
    TEXT_TAGS,
    Mode,
    dataset_ids,
    described,
    edges,
    join_path,
    kind_of,
    lookup,
    name_of,
    place,
    text_of,
    walk,
)
from misc.config.schema import (
    ANY,
    LATER_STAGE,
    LIST_TAGS,
    MAPPING_TAGS,
    STAGE,
    TOP_LEVEL,
    Rule,
    imported,
    nearest_choice,
)
from misc.errors import did_you_mean


def validate(root: MappingNode, mode: Mode) -> list[str]:
    """Check a whole config without building anything; modules that it names are imported.

    Args:
        root: the top-level mapping, merge keys resolved.
        mode: "test" requires the mapping `test`, the others `train`.

    Returns:
        One line per mistake, `FILE:LINE: path: what is wrong`; empty for a valid config.
    """
    check = _Check()
    for path, node in walk(root):
        check.tag(path, node)
    check.top_level(root, mode)
    check.dataset_ids(root)
    return list(check.mistakes.values())


class _Check:
    """Collects mistakes; one that is reached through several aliases is reported once."""

    def __init__(self) -> None:
        self.mistakes: dict[tuple[str, int, str], str] = {}

    def add(self, node: Node, path: str, mistake: str) -> None:
        """Add a mistake at a node."""
        # The path is no part of the key: stage 2 may be an alias of stage 1.
        key = (node.start_mark.name, node.start_mark.index, mistake)
        self.mistakes.setdefault(key, f"{place(node)}: {path}: {mistake}")

    def tag(self, path: str, node: Node) -> None:
        """Check the form of a tagged node and, for `!import_*`, that the import works and the arguments bind."""
        if node.tag.startswith(STANDARD_TAG):
            return
        known = {*TEXT_TAGS, *LIST_TAGS, *MAPPING_TAGS}
        form = MappingNode if node.tag in MAPPING_TAGS else SequenceNode if node.tag in LIST_TAGS else ScalarNode
        if node.tag not in known:
            self.add(node, path, f"unknown tag '{node.tag}'{nearest_choice(node.tag, known)}")
        elif not isinstance(node, form):
            self.add(node, path, f"{node.tag} needs a {form.id}")
        elif form is MappingNode:
            self.children(node, MAPPING_TAGS[node.tag], path)
            if node.tag in ("!import_get", "!import_call"):
                self.import_tag(node, path)

    def import_tag(self, node: MappingNode, path: str) -> None:
        """Check that the import of an `!import_get` or `!import_call` works, and that a call's arguments bind."""
        target, mistake = imported(node)
        if mistake:
            self.add(lookup(node, "key"), path, mistake)
        elif target is not None and node.tag == "!import_call":
            self.arguments(node, lookup(node, "init"), target, Rule(), path)

    def top_level(self, root: MappingNode, mode: Mode) -> None:
        """Check the top-level keys and, through the schema, everything under them."""
        for key, node in root.value:
            name = name_of(key)
            if name in TOP_LEVEL:
                self.value(node, TOP_LEVEL[name], name)
            elif isinstance(node, MappingNode) or kind_of(node) in ("list", OBJECT):
                hint = did_you_mean(name, TOP_LEVEL)
                self.add(key, name, f"unknown key{hint} (scratch mappings and lists live under 'vars')")
        for name in ("datasets", "models", "test" if mode == "test" else "train"):
            if lookup(root, name) is None:
                self.add(root, name, "missing key")
        train = lookup(root, "train")
        if isinstance(train, MappingNode):
            self.train(train)

    def train(self, train: MappingNode) -> None:
        """Check a single stage, or stage1, stage2, ... without a gap."""
        if not any(name_of(key).startswith("stage") for key, _ in train.value):
            self.value(train, STAGE, "train")
            return
        expected = [f"stage{number}" for number in range(1, len(train.value) + 1)]
        for key, node in train.value:
            name = name_of(key)
            if name in expected:
                self.value(node, STAGE if name == "stage1" else LATER_STAGE, f"train.{name}")
            else:
                choices = [stage for stage in expected if lookup(train, stage) is None]
                self.add(key, f"train.{name}", f"unknown key{did_you_mean(name, choices)}")

    def dataset_ids(self, root: MappingNode) -> None:
        """Check that every `dataset_id` names an entry of `datasets`: torchdistill would silently build no loader."""
        entries = lookup(root, "datasets")
        if entries is None or kind_of(entries) != "mapping":
            return
        names = [name_of(key) for key, _ in entries.value]
        for part in ("train", "test"):
            for path, node in dataset_ids(lookup(root, part)):
                name = text_of(node)
                if name is not None and name not in names:
                    self.add(node, f"{part}.{path}", f"no data set '{name}'{did_you_mean(name, names)}")

    def value(self, node: Node, rule: Rule, path: str) -> None:
        """Check a node, and everything under it, against the rule of its place."""
        kind = kind_of(node)
        if kind == OBJECT or (kind == "null" and rule.nullable):
            return
        if rule.kinds and kind not in rule.kinds:
            self.add(node, path, f"must be {' or '.join(rule.kinds)}, not {described(node)}")
        elif not isinstance(node, ScalarNode):
            self.children(node, rule, path)
        elif rule.positive and yaml.safe_load(node.value) <= 0:
            self.add(node, path, f"must be positive, not {node.value}")
        elif rule.registry is not None and node.value not in rule.registry:
            self.add(node, path, f"unknown name '{node.value}'{nearest_choice(node.value, rule.registry)}")

    def children(self, node: Node, rule: Rule, path: str) -> None:
        """Check the keys of a mapping, or the items of a list, and the call that a mapping describes."""
        for index, child in edges(node):
            name = name_of(index)
            of_child = rule.each or (ANY if rule.keys is None else rule.keys.get(name))
            if of_child is None:
                self.add(index, join_path(path, name), f"unknown key{nearest_choice(name, rule.keys)}")
            else:
                self.value(child, of_child, join_path(path, name))
        self.missing(node, rule, path)
        target = rule.callee(node) if rule.callee else None
        if target is not None:
            self.arguments(node, node, target, rule, path)

    def missing(self, node: Node, rule: Rule, path: str) -> None:
        """Check that a mapping has its required keys."""
        names = {name_of(index) for index, _ in edges(node)}
        for name in rule.required:
            if name not in names:
                self.add(node, path, f"missing key '{name}'")
        if rule.either and not any(names.issuperset(group) for group in rule.either):
            groups = " or ".join(" and ".join(f"'{name}'" for name in group) for group in rule.either)
            self.add(node, path, f"missing {groups}")

    def arguments(self, node: Node, holder: Node | None, target: Callable, rule: Rule, path: str) -> None:
        """Check that `args` and `kwargs` of the mapping `holder` bind to the signature of `target`."""
        args, kwargs = lookup(holder, "args"), lookup(holder, "kwargs")
        if any(kind_of(part) == OBJECT for part in (args, kwargs) if part is not None):
            return  # the number of arguments is known only on construction
        given = rule.given + (len(args.value) if isinstance(args, SequenceNode) else 0)
        named = {name_of(key): key for key, _ in kwargs.value} if isinstance(kwargs, MappingNode) else {}
        for name, mistake in _argument_mistakes(target, given, rule.reserved, list(named)):
            self.add(named.get(name, node), path, mistake)


def _argument_mistakes(
    target: Callable, given: int, reserved: tuple[str, ...], named: list[str]
) -> Iterator[tuple[str | None, str]]:
    """Yield (argument, mistake) for a call with `given` leading arguments and the keyword arguments `named`.

    `inspect.Signature.bind` would stop at the first mistake, and suggest no similar name.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return
    who = getattr(target, "__name__", str(target))
    kinds = {parameter.kind for parameter in parameters}
    ordered = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {*ordered[:given], *reserved}
    free = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken]
    if given > len(ordered) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        yield None, f"{who} takes at most {len(ordered)} positional arguments, not {given}"
    for name in named:
        if name in taken:
            yield name, f"argument '{name}' of {who} is given already"
        elif name not in free and inspect.Parameter.VAR_KEYWORD not in kinds:
            yield name, f"{who} has no argument '{name}'{nearest_choice(name, free)}"
    for p in parameters:
        optional = p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if not optional and p.name not in taken and p.name not in named:
            yield None, f"{who} needs the argument '{p.name}'"
