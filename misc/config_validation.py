"""What an experiment config may say, as data, and its check on the YAML nodes: all mistakes at once, nothing is built.

torchdistill reads most keys with `.get`, so a misspelt one is ignored, and it sets a stage up only when the stage
begins, so a mistake in stage 2 would show after stage 1 has been trained. Hence the check of everything beforehand.
"""

import importlib
import inspect
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import yaml
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader
from torchdistill.core.interfaces import registry as processes
from torchdistill.datasets import registry as datasets
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from misc.errors import UserError, did_you_mean

Mode = Literal["train", "test", "dry_run"]

TEXT_TAGS = frozenset({"!path", "!join", "!pathjoin", "!expanduser", "!abspath"})
_LIST_TAGS = frozenset({"!join", "!pathjoin", "!getattr", "!setattr"})
_STANDARD_TAG = "tag:yaml.org,2002:"
OBJECT = "an object from a tag"

# ---------------------------------------------------------------------------------------------------------------------
# Looking at nodes
# ---------------------------------------------------------------------------------------------------------------------


def edges(node: Node) -> list[tuple[Node | int, Node]]:
    """Returns (key node or index, child) of every child; a scalar has none."""
    if isinstance(node, MappingNode):
        return list(node.value)
    return list(enumerate(node.value)) if isinstance(node, SequenceNode) else []


def text_of(node: Node | None) -> str | None:
    """Returns the text of a scalar or of a `!join` of scalars; None for everything else."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode) and node.tag == "!join":
        parts = [text_of(part) for part in node.value]
        return None if None in parts else "".join(parts)
    return None


def name_of(index: Node | int) -> str:
    """Returns the name of an edge as a path writes it.

    Raises:
        UserError: the key is itself a mapping or a list.
    """
    name = str(index) if isinstance(index, int) else text_of(index)
    if name is None:
        raise UserError(f"{place(index)}: a key must be a scalar")
    return name


def lookup(node: Node | None, *names: str) -> Node | None:
    """Returns the node under the path `names`, or None where there is none."""
    for name in names:
        children = node.value if isinstance(node, MappingNode) else []
        node = next((child for key, child in children if name_of(key) == name), None)
    return node


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yields (path, node) for `node` and everything under it; a node that aliases share comes once."""
    seen, waiting = set(), [(path, node)]
    while waiting:
        path, node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield path, node
            waiting += [(_join(path, name_of(index)), child) for index, child in reversed(edges(node))]


def dataset_ids(node: Node | None) -> list[tuple[str, Node]]:
    """Returns (path, node) of every `dataset_id` under `node`."""
    mappings = walk(node) if node is not None else ()
    found = ((_join(path, "dataset_id"), lookup(mapping, "dataset_id")) for path, mapping in mappings)
    return [(path, value) for path, value in found if value is not None]


def place(node: Node) -> str:
    """Returns `FILE:LINE` of a node; `--set path=value` has no lines."""
    mark = node.start_mark
    return mark.name if mark.name.startswith("--set ") else f"{mark.name}:{mark.line + 1}"


def kind_of(node: Node) -> str:
    """Returns the type of a node's value: null, bool, int, float, str, mapping, list; `OBJECT` if it is built."""
    if node.tag in TEXT_TAGS:
        return "str"
    if not node.tag.startswith(_STANDARD_TAG):
        return OBJECT
    name = node.tag.removeprefix(_STANDARD_TAG)
    return {"map": "mapping", "seq": "list"}.get(name, name)


def described(node: Node) -> str:
    """Returns a node for an error message: `'x' (str)`, `a mapping`, `an !import_call`."""
    if isinstance(node, ScalarNode):
        return f"{node.value!r} ({kind_of(node)})" if kind_of(node) != "null" else "null"
    return f"a {node.tag}" if kind_of(node) == OBJECT else f"a {kind_of(node)}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# ---------------------------------------------------------------------------------------------------------------------
# The schema
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What one place of a config may hold.

    Attributes:
        kinds: The types allowed; empty for any. A built object passes, its type shows only on construction.
        keys: The only keys of a mapping, each with its rule; None for any.
        each: The rule for every value of a mapping with free keys.
        required: Keys that must be there.
        either: Groups of keys of which one must be there as a whole.
        positive: The number must be above zero.
        nullable: `null` stands for "not used".
        registry: The scalar is a name in it.
        callee: Finds what the mapping's `args` and `kwargs` go to, or None where that is a mistake of its own.
        given: How many leading arguments the caller puts before `args`.
        reserved: Arguments the caller passes by name.
    """

    kinds: tuple[str, ...] = ()
    keys: Mapping[str, "Rule"] | None = None
    each: "Rule | None" = None
    required: tuple[str, ...] = ()
    either: tuple[tuple[str, ...], ...] = ()
    positive: bool = False
    nullable: bool = False
    registry: Mapping[str, Any] | None = None
    callee: Callable[[MappingNode], Callable | None] | None = None
    given: int = 0
    reserved: tuple[str, ...] = ()


def _mapping(keys: Mapping[str, Rule], **more: Any) -> Rule:
    return Rule(kinds=("mapping",), keys=keys, **more)


def _name(registry: Mapping[str, Any], nullable: bool = False) -> Rule:
    return Rule(kinds=("str",), registry=registry, nullable=nullable)


def _call(registry: Mapping[str, Any], more: Mapping[str, Rule] | None = None, **options: Any) -> Rule:
    """A mapping whose `key` names an entry of `registry`, which gets `kwargs`; `more` are its other keys."""
    return _mapping(
        {"key": _name(registry), "kwargs": _KWARGS, **(more or {})},
        **{"required": ("key", "kwargs"), "callee": lambda node: registry.get(text_of(lookup(node, "key"))), **options},
    )


def _imported_sampler(node: MappingNode) -> Callable | None:
    tagged = lookup(node, "class_or_func")
    return imported(tagged)[0] if isinstance(tagged, MappingNode) and tagged.tag == "!import_get" else None


_ANY = Rule()
_BOOL = Rule(kinds=("bool",))
_TEXT = Rule(kinds=("str",))
_LIST = Rule(kinds=("list",))
_KWARGS = Rule(kinds=("mapping",))
_NUMBER = Rule(kinds=("int", "float"))
_MODEL_WEIGHT = Rule(kinds=("int", "float", "mapping"), nullable=True)
_PATH = Rule(kinds=("str",), nullable=True)
_COUNT = Rule(kinds=("int",), positive=True)
# torchdistill ignores a wrapper it does not know: the model would stay unwrapped without a word.
_WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "FullyShardedDataParallel": FullyShardedDataParallel,
    "FullyShardedDataParallel2": fully_shard,
}
# The order in which torchdistill looks a name up.
_CRITERIA = ChainMap(losses.MIDDLE_LEVEL_LOSS_DICT, losses.LOSS_DICT, losses.LOW_LEVEL_LOSS_DICT)
_ADAPTATIONS = ChainMap(models.ADAPTATION_MODULE_DICT, models.MODULE_DICT)

_LOADER = _mapping(
    {
        "dataset_id": _TEXT,
        "requires_supp": _BOOL,
        "sampler": _mapping(
            {"class_or_func": Rule(kinds=(OBJECT,)), "kwargs": replace(_KWARGS, nullable=True)},
            required=("class_or_func",),
            callee=_imported_sampler,
            given=1,
        ),
        "batch_sampler": _call(datasets.BATCH_SAMPLER_DICT, given=1, nullable=True),
        "collate_fn": _name(datasets.COLLATE_FUNC_DICT, nullable=True),
        "kwargs": _KWARGS,
        "dataset_wrapper": _call(
            datasets.DATASET_WRAPPER_DICT, {"args": _LIST}, given=1, required=("key",), nullable=True
        ),
    },
    required=("dataset_id", "sampler", "kwargs"),
    callee=lambda node: DataLoader,
    given=1,
    reserved=("sampler", "batch_sampler", "collate_fn"),
)

_STAGE_MODEL = _mapping(
    {
        "sequential": _LIST,
        "forward_hook": _mapping({"input": _LIST, "output": _LIST}),
        "forward_proc": _name(processes.FORWARD_PROC_FUNC_DICT),
        "wrapper": replace(
            _call(_WRAPPERS, given=1, required=("key",)), kinds=("str", "mapping"), registry=_WRAPPERS, nullable=True
        ),
        "requires_grad": _BOOL,
        "frozen_modules": _LIST,
        "adaptations": Rule(kinds=("mapping",), each=_call(_ADAPTATIONS)),
        # Its arguments are partly the framework's own, so only the name is checked.
        "auxiliary_model_wrapper": _mapping(
            {"key": _name(models.AUXILIARY_MODEL_WRAPPER_DICT), "kwargs": _ANY}, required=("key",)
        ),
    },
    required=("forward_proc",),
)

_SUB_TERM = _mapping(
    {
        "criterion": _call(_CRITERIA),
        "criterion_wrapper": _call(
            losses.LOSS_WRAPPER_DICT, {"args": _LIST}, given=1, required=("key",), nullable=True
        ),
        "weight": _NUMBER,
    },
    required=("criterion", "weight"),
)

_CRITERION = _mapping(
    {
        "key": _name(losses.HIGH_LEVEL_LOSS_DICT),
        "kwargs": _mapping(
            {
                "model_term": _mapping({"weight": _MODEL_WEIGHT}, nullable=True),
                "sub_terms": Rule(kinds=("mapping",), each=_SUB_TERM, nullable=True),
            }
        ),
        "func2extract_model_loss": _name(losses.FUNC2EXTRACT_MODEL_OUTPUT_DICT, nullable=True),
    },
    required=("key",),
)

_MODULE_WISE = Rule(kinds=("list",), each=_mapping({"module": _TEXT, "kwargs": _KWARGS, "is_teacher": _BOOL}))

_STAGE = _mapping(
    {
        "num_epochs": _COUNT,
        "train_data_loader": _LOADER,
        "val_data_loader": _LOADER,
        "teacher": _STAGE_MODEL,
        "student": _STAGE_MODEL,
        "model": _STAGE_MODEL,
        "criterion": _CRITERION,
        "optimizer": _call(
            optim.OPTIM_DICT,
            {
                # torchdistill's DistillationBox reads the first name, its TrainingBox the second.
                "module_wise_configs": _MODULE_WISE,
                "module_wise_kwargs": _MODULE_WISE,
                "filters_params": _BOOL,
                "max_grad_norm": replace(_NUMBER, nullable=True),
                "grad_accum_step": _COUNT,
            },
            given=1,
        ),
        "scheduler": _call(optim.SCHEDULER_DICT, {"scheduling_step": Rule(kinds=("int",))}, given=1, nullable=True),
        "autocast": _name({"bfloat16": None}, nullable=True),
        "pre_epoch_process": _name(processes.PRE_EPOCH_PROC_FUNC_DICT),
        "pre_forward_process": _name(processes.PRE_FORWARD_PROC_FUNC_DICT),
        "post_forward_process": _name(processes.POST_FORWARD_PROC_FUNC_DICT),
        "post_epoch_process": _name(processes.POST_EPOCH_PROC_FUNC_DICT),
    },
    required=("num_epochs", "train_data_loader", "criterion", "optimizer"),
    either=(("model",), ("teacher", "student")),
)
_LATER_STAGE = replace(_STAGE, required=("num_epochs", "train_data_loader", "criterion"))

_TEACHER = _call(models.MODEL_DICT, required=("key",))
_TRAINED = _call(models.MODEL_DICT, {"src_ckpt": _PATH}, required=("key",))

_TOP_LEVEL = {
    "datasets": Rule(kinds=("mapping",)),
    "models": _mapping({"model": _TRAINED, "teacher_model": _TEACHER, "student_model": _TRAINED}),
    "train": Rule(kinds=("mapping",)),
    "test": _mapping({"test_data_loader": _LOADER}, required=("test_data_loader",)),
    "vars": Rule(kinds=("mapping",)),
}

_INIT = _mapping({"args": _LIST, "kwargs": _KWARGS}, nullable=True)
_MAPPING_TAGS = {
    "!import_get": Rule(keys={"key": _TEXT, "package": _PATH}, required=("key",)),
    "!import_call": Rule(keys={"key": _TEXT, "package": _PATH, "init": _INIT}, required=("key",)),
    "!import_call_method": Rule(
        keys={"package": _TEXT, "class_name": _PATH, "method_name": _PATH, "init": _INIT}, required=("package",)
    ),
    "!call_method": Rule(
        keys={"obj": _ANY, "method_name": _TEXT, "args": _LIST, "kwargs": _KWARGS, "returns_obj": _BOOL},
        required=("obj", "method_name"),
    ),
    "!access_by_index_or_key": Rule(keys={"data": _ANY, "index_or_key": _ANY}, required=("data", "index_or_key")),
}

# ---------------------------------------------------------------------------------------------------------------------
# The check
# ---------------------------------------------------------------------------------------------------------------------


def validate(root: MappingNode, mode: Mode) -> list[str]:
    """Checks a whole config without building anything; modules that it names are imported.

    Args:
        root: The top-level mapping, merge keys resolved.
        mode: "test" requires the mapping `test`, the others `train`.

    Returns:
        One line for each mistake, `FILE:LINE: path: what is wrong`; empty for a sound config.
    """
    check = _Check()
    for path, node in walk(root):
        check.tag(path, node)
    check.top_level(root, mode)
    check.dataset_ids(root)
    return list(check.mistakes.values())


def imported(node: MappingNode) -> tuple[Any, str | None]:
    """Resolves `key` and `package` of an `!import_*` mapping the way torchdistill does.

    Returns:
        (object, None), or (None, what is wrong); (None, None) where the name is known only on construction.
    """
    key, package = text_of(lookup(node, "key")), text_of(lookup(node, "package"))
    if key is None:
        return None, None
    if package is None:
        package, _, key = key.rpartition(".")
    if not package:
        return None, f"'{key}' names no module; write 'module.{key}'"
    try:
        module = importlib.import_module(package)
    except Exception as error:  # whatever a module raises while it is imported, the config's reader must learn of it
        return None, f"cannot import module '{package}': {' '.join(str(error).split())}"
    if not hasattr(module, key):
        return None, f"module '{package}' has no '{key}'{_nearest(key, dir(module))}"
    return getattr(module, key), None


class _Check:
    """Collects mistakes; one that several aliases lead to is told once."""

    def __init__(self) -> None:
        self.mistakes: dict[tuple[str, int, str], str] = {}

    def add(self, node: Node, path: str, mistake: str) -> None:
        # Line and text tell two mistakes apart; the path would not: stage 2 may be an alias of stage 1.
        key = (node.start_mark.name, node.start_mark.index, mistake)
        self.mistakes.setdefault(key, f"{place(node)}: {path}: {mistake}")

    def tag(self, path: str, node: Node) -> None:
        """Checks the form of a tagged node, and for `!import_*` that it imports and its arguments bind."""
        if node.tag.startswith(_STANDARD_TAG):
            return
        known = {*TEXT_TAGS, *_LIST_TAGS, *_MAPPING_TAGS}
        form = MappingNode if node.tag in _MAPPING_TAGS else SequenceNode if node.tag in _LIST_TAGS else ScalarNode
        if node.tag not in known:
            self.add(node, path, f"unknown tag '{node.tag}'{_nearest(node.tag, known)}")
        elif not isinstance(node, form):
            self.add(node, path, f"{node.tag} needs a {form.id}")
        elif form is MappingNode:
            self.children(node, _MAPPING_TAGS[node.tag], path)
            if node.tag in ("!import_get", "!import_call"):
                self.import_tag(node, path)

    def import_tag(self, node: MappingNode, path: str) -> None:
        target, mistake = imported(node)
        if mistake:
            self.add(lookup(node, "key"), path, mistake)
        elif target is not None and node.tag == "!import_call":
            self.arguments(node, lookup(node, "init"), target, Rule(), path)

    def top_level(self, root: MappingNode, mode: Mode) -> None:
        """Checks the top-level keys and, through the schema, everything under them."""
        for key, node in root.value:
            name = name_of(key)
            if name in _TOP_LEVEL:
                self.value(node, _TOP_LEVEL[name], name)
            elif isinstance(node, MappingNode) or kind_of(node) in ("list", OBJECT):
                hint = did_you_mean(name, _TOP_LEVEL)
                self.add(key, name, f"unknown key{hint} (scratch mappings and lists live under 'vars')")
        for name in ("datasets", "models", "test" if mode == "test" else "train"):
            if lookup(root, name) is None:
                self.add(root, name, "missing key")
        train = lookup(root, "train")
        if isinstance(train, MappingNode):
            self.train(train)

    def train(self, train: MappingNode) -> None:
        """Checks a single stage, or stage1, stage2, ... without a gap."""
        if not any(name_of(key).startswith("stage") for key, _ in train.value):
            self.value(train, _STAGE, "train")
            return
        expected = [f"stage{number}" for number in range(1, len(train.value) + 1)]
        for key, node in train.value:
            name = name_of(key)
            if name in expected:
                self.value(node, _STAGE if name == "stage1" else _LATER_STAGE, f"train.{name}")
            else:
                choices = [stage for stage in expected if lookup(train, stage) is None]
                self.add(key, f"train.{name}", f"unknown key{did_you_mean(name, choices)}")

    def dataset_ids(self, root: MappingNode) -> None:
        """Checks that every `dataset_id` names an entry of `datasets`: torchdistill would go without the loader."""
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
        """Checks the node against the rule of its place, and everything under it."""
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
            self.add(node, path, f"unknown name '{node.value}'{_nearest(node.value, rule.registry)}")

    def children(self, node: Node, rule: Rule, path: str) -> None:
        """Checks the keys of a mapping, or the items of a list, and the call that a mapping stands for."""
        for index, child in edges(node):
            name = name_of(index)
            of_child = rule.each or (_ANY if rule.keys is None else rule.keys.get(name))
            if of_child is None:
                self.add(index, _join(path, name), f"unknown key{_nearest(name, rule.keys)}")
            else:
                self.value(child, of_child, _join(path, name))
        self.missing(node, rule, path)
        target = rule.callee(node) if rule.callee else None
        if target is not None:
            self.arguments(node, node, target, rule, path)

    def missing(self, node: Node, rule: Rule, path: str) -> None:
        names = {name_of(index) for index, _ in edges(node)}
        for name in rule.required:
            if name not in names:
                self.add(node, path, f"missing key '{name}'")
        if rule.either and not any(names.issuperset(group) for group in rule.either):
            groups = " or ".join(" and ".join(f"'{name}'" for name in group) for group in rule.either)
            self.add(node, path, f"missing {groups}")

    def arguments(self, node: Node, holder: Node | None, target: Callable, rule: Rule, path: str) -> None:
        """Checks that `args` and `kwargs` of the mapping `holder` bind to the signature of `target`."""
        args, kwargs = lookup(holder, "args"), lookup(holder, "kwargs")
        if any(kind_of(part) == OBJECT for part in (args, kwargs) if part is not None):
            return  # how many arguments these are shows only on construction
        given = rule.given + (len(args.value) if isinstance(args, SequenceNode) else 0)
        named = {name_of(key): key for key, _ in kwargs.value} if isinstance(kwargs, MappingNode) else {}
        for name, mistake in _argument_mistakes(target, given, rule.reserved, list(named)):
            self.add(named.get(name, node), path, mistake)


def _argument_mistakes(
    target: Callable, given: int, reserved: tuple[str, ...], named: list[str]
) -> Iterator[tuple[str | None, str]]:
    """Yields (argument, mistake) for a call with `given` leading arguments and the keyword arguments `named`.

    `inspect.Signature.bind` stops at the first mistake, and its message knows no nearest name.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # some builtins do not tell
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
            yield name, f"{who} has no argument '{name}'{_nearest(name, free)}"
    for p in parameters:
        optional = p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if not optional and p.name not in taken and p.name not in named:
            yield None, f"{who} needs the argument '{p.name}'"


def _nearest(name: str, choices: Iterable[str]) -> str:
    """`did_you_mean`, without the list where it would fill the screen."""
    choices = list(choices)
    return did_you_mean(name, choices if len(choices) <= 16 else get_close_matches(name, choices, n=1))
