"""Schema of experiment configs, as data: which keys and values each place allows."""

import importlib
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader
from torchdistill.core.interfaces import registry as processes
from torchdistill.datasets import registry as datasets
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim
from yaml.nodes import MappingNode

from misc.config.nodes import OBJECT, lookup, text_of
from misc.errors import did_you_mean

LIST_TAGS = frozenset({"!join", "!pathjoin", "!getattr", "!setattr"})


@dataclass(frozen=True)
class Rule:
    """What one place of a config may hold.

    Attributes:
        kinds: the types allowed; empty for any. A tag's object passes: its type is known only on construction.
        keys: the only keys of a mapping, each with its rule; None for any.
        each: the rule for every value of a mapping with free keys.
        required: keys that must be there.
        either: groups of keys, of which one must be there completely.
        positive: whether the number must be above zero.
        nullable: whether `null`, for "not used", is allowed.
        registry: names that a scalar may take.
        callee: finds the function that gets the mapping's `args` and `kwargs`; None if another rule reports its name.
        given: how many leading arguments the caller puts before `args`.
        reserved: arguments that the caller passes by name.
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
    """Return the rule of a mapping whose `key` names an entry of `registry`, which gets `kwargs`.

    Args:
        registry: callables by name.
        more: rules of the mapping's other keys.
        **options: attributes of the rule.
    """
    return _mapping(
        {"key": _name(registry), "kwargs": _KWARGS, **(more or {})},
        **{"required": ("key", "kwargs"), "callee": lambda node: registry.get(text_of(lookup(node, "key"))), **options},
    )


def _imported_sampler(node: MappingNode) -> Callable | None:
    tagged = lookup(node, "class_or_func")
    return imported(tagged)[0] if isinstance(tagged, MappingNode) and tagged.tag == "!import_get" else None


ANY = Rule()
_BOOL = Rule(kinds=("bool",))
_TEXT = Rule(kinds=("str",))
_LIST = Rule(kinds=("list",))
_KWARGS = Rule(kinds=("mapping",))
_NUMBER = Rule(kinds=("int", "float"))
_MODEL_WEIGHT = Rule(kinds=("int", "float", "mapping"), nullable=True)
_PATH = Rule(kinds=("str",), nullable=True)
_COUNT = Rule(kinds=("int",), positive=True)
# torchdistill silently ignores unknown wrappers.
_WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "FullyShardedDataParallel": FullyShardedDataParallel,
    "FullyShardedDataParallel2": fully_shard,
}
# In the order of torchdistill's look-up.
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
        # torchdistill supplies some of its arguments, so only the name is checked.
        "auxiliary_model_wrapper": _mapping(
            {"key": _name(models.AUXILIARY_MODEL_WRAPPER_DICT), "kwargs": ANY}, required=("key",)
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

STAGE = _mapping(
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
                # torchdistill's DistillationBox reads the first key, its TrainingBox the second.
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
        "rate_warmup": replace(_NUMBER, nullable=True),
        "bn_momentum": replace(_NUMBER, nullable=True),
        "pre_epoch_process": _name(processes.PRE_EPOCH_PROC_FUNC_DICT),
        "pre_forward_process": _name(processes.PRE_FORWARD_PROC_FUNC_DICT),
        "post_forward_process": _name(processes.POST_FORWARD_PROC_FUNC_DICT),
        "post_epoch_process": _name(processes.POST_EPOCH_PROC_FUNC_DICT),
    },
    required=("num_epochs", "train_data_loader", "criterion", "optimizer"),
    either=(("model",), ("teacher", "student")),
)
LATER_STAGE = replace(STAGE, required=("num_epochs", "train_data_loader", "criterion"))

_TEACHER = _call(models.MODEL_DICT, required=("key",))
_TRAINED = _call(models.MODEL_DICT, {"src_ckpt": _PATH}, required=("key",))

TOP_LEVEL = {
    "datasets": Rule(kinds=("mapping",)),
    "models": _mapping({"model": _TRAINED, "teacher_model": _TEACHER, "student_model": _TRAINED}),
    "train": Rule(kinds=("mapping",)),
    "test": _mapping({"test_data_loader": _LOADER}, required=("test_data_loader",)),
    "vars": Rule(kinds=("mapping",)),
}

_INIT = _mapping({"args": _LIST, "kwargs": _KWARGS}, nullable=True)
MAPPING_TAGS = {
    "!import_get": Rule(keys={"key": _TEXT, "package": _PATH}, required=("key",)),
    "!import_call": Rule(keys={"key": _TEXT, "package": _PATH, "init": _INIT}, required=("key",)),
    "!import_call_method": Rule(
        keys={"package": _TEXT, "class_name": _PATH, "method_name": _PATH, "init": _INIT}, required=("package",)
    ),
    "!call_method": Rule(
        keys={"obj": ANY, "method_name": _TEXT, "args": _LIST, "kwargs": _KWARGS, "returns_obj": _BOOL},
        required=("obj", "method_name"),
    ),
    "!access_by_index_or_key": Rule(keys={"data": ANY, "index_or_key": ANY}, required=("data", "index_or_key")),
}


def imported(node: MappingNode) -> tuple[Any, str | None]:
    """Import what `key` and `package` of an `!import_*` mapping name, as torchdistill does.

    Returns:
        (object, None), or (None, what is wrong); (None, None) if the name is known only on construction.
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
    except Exception as error:  # a module may raise anything while it is imported
        return None, f"cannot import module '{package}': {' '.join(str(error).split())}"
    if not hasattr(module, key):
        return None, f"module '{package}' has no '{key}'{nearest_choice(key, dir(module))}"
    return getattr(module, key), None


def nearest_choice(name: str, choices: Iterable[str]) -> str:
    """Return `did_you_mean`, without its list of choices if that is long."""
    choices = list(choices)
    return did_you_mean(name, choices if len(choices) <= 16 else get_close_matches(name, choices, n=1))
