"""The config loader: base and difference on YAML nodes, overrides, the check before anything is built."""

import sys
import types
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.config import compose_config, load_config
from misc.config.nodes import TEXT_TAGS
from misc.config.reading import CONSTRUCTORS
from misc.config.schema import LIST_TAGS, MAPPING_TAGS
from misc.errors import UserError
from misc.files import ROOT

MODULE = "config_test_objects"

LOADER = "{dataset_id: %s, sampler: {class_or_func: !import_get {key: torch.utils.data.SequentialSampler}}, kwargs: {}}"

COMPLETE = f"""\
lmbda: &lmbda 0.05
epochs: &epochs 3
name: &name digits
vars:
  optimizer: &optimizer
    key: Adam
    kwargs: {{lr: 0.001, betas: [0.9, 0.999]}}
datasets:
  train: &train !import_call
    key: {MODULE}.Photos
    init: {{kwargs: {{root: &root some/folder, size: 64}}}}
  test: !import_call {{key: {MODULE}.Photos, init: {{kwargs: {{root: *root, size: 8}}}}}}
  unused: !import_call {{key: {MODULE}.Unbuildable}}
models:
  student_model: {{key: resnet20, kwargs: {{num_classes: 10}}, src_ckpt: !join [runs/, *name, .pt]}}
train:
  stage1: &stage1
    num_epochs: *epochs
    train_data_loader: {LOADER % "train"}
    model: {{forward_proc: forward_batch_only}}
    criterion:
      key: WeightedSumLoss
      kwargs:
        sub_terms:
          ce:
            criterion: {{key: CrossEntropyLoss, kwargs: {{}}}}
            weight: *lmbda
    optimizer: *optimizer
  stage2:
    <<: *stage1
    scheduler: {{key: MultiStepLR, kwargs: {{milestones: [1]}}}}
test:
  test_data_loader: {LOADER % "test"}
"""


@pytest.fixture(autouse=True)
def objects(monkeypatch):
    """A module for `!import_call` whose data sets record with what they were built."""

    class Photos:
        built: ClassVar = []

        def __init__(self, root: str, size: int = 32) -> None:
            self.root, self.size = root, size
            self.built.append(self)

    class Unbuildable:
        def __init__(self) -> None:
            raise AssertionError("built a data set that the run does not need")

    class Missing:
        def __init__(self) -> None:
            raise FileNotFoundError(2, "No such file or directory", "photos/")

    module = types.ModuleType(MODULE)
    module.Photos, module.Unbuildable, module.Missing = Photos, Unbuildable, Missing
    monkeypatch.setitem(sys.modules, MODULE, module)
    return module


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "leaf.yaml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def base(write):
    return write(COMPLETE, "base.yaml")


def error_of(path: Path, *overrides: str, mode: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        compose_config(path, overrides, mode)
    message = str(caught.value)
    assert "\n" not in message
    return message


def replaced(write, old: str, new: str) -> Path:
    assert COMPLETE.count(old) == 1
    return write(COMPLETE.replace(old, new))


def line_of(text: str) -> int:
    return 1 + next(number for number, line in enumerate(COMPLETE.splitlines()) if text in line)


# Base and difference -------------------------------------------------------------------------------------------------


def test_leaf_changes_its_base(write, base):
    leaf = write("base: base.yaml\nset:\n  lmbda: 0.08\n  train.stage1.num_epochs: 7\n")
    data = load_config(leaf).data
    assert data["lmbda"] == 0.08
    assert data["train"]["stage1"]["num_epochs"] == 7


def test_command_line_wins_over_set(write, base):
    leaf = write("base: base.yaml\nset: {lmbda: 0.08}\n")
    assert load_config(leaf, ["lmbda=0.5"]).data["lmbda"] == 0.5


def test_bases_share_anchors_and_are_united(write, base):
    write("name2: &more 12\n", "first.yaml")
    write("models:\n  student_model:\n    kwargs: {last_gamma: *more}\n", "second.yaml")
    # The key is resnet20's own **kwargs, hence free.
    leaf = write("base: [first.yaml, base.yaml, second.yaml]\nset: {name2: 13}\n")
    assert load_config(leaf).data["models"]["student_model"]["kwargs"] == {"num_classes": 10, "last_gamma": 13}


def test_merge_key_sees_what_another_base_adds(write, base):
    write("train: {stage1: {autocast: null}}\n", "more.yaml")
    train = load_config(write("base: [base.yaml, more.yaml]\n")).data["train"]
    assert train["stage1"]["autocast"] is train["stage2"]["autocast"] is None


def test_a_leaf_may_be_a_base_and_passes_its_anchors_on(write, base, tmp_path):
    (tmp_path / "middle.yaml").write_text("base: base.yaml\nset: {lmbda: 0.07, train.stage1.num_epochs: 7}\n")
    (tmp_path / "more.yaml").write_text("vars: {another: *train}\n")
    config = load_config(write("base: [middle.yaml, more.yaml]\nset: {lmbda: 0.08}\n")).data
    assert config["lmbda"] == 0.08 and config["train"]["stage1"]["num_epochs"] == 7


def test_leaves_that_build_on_each_other_are_refused(write, tmp_path):
    (tmp_path / "middle.yaml").write_text("base: leaf.yaml\n")
    assert "leaf.yaml is, directly or indirectly, its own base" in error_of(write("base: middle.yaml\n"))


def test_scalar_in_two_bases_names_both_places(write, base):
    other = write("\ntrain:\n  stage1:\n    num_epochs: 5\n", "other.yaml")
    message = error_of(write("base: [base.yaml, other.yaml]\n"))
    line = line_of("num_epochs")
    assert message == f"{other}:4: duplicate key 'train.stage1.num_epochs', first set in {base}:{line}"


def test_duplicate_key_in_one_file(write):
    path = write("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert error_of(path) == f"{path}:5: duplicate key 'c', first set in {path}:3"


# What follows an override, and what does not -------------------------------------------------------------------------


def test_aliases_follow_their_anchor(base):
    train = load_config(base, ["epochs=9", "lmbda=2"]).data["train"]
    assert [train[stage]["num_epochs"] for stage in ("stage1", "stage2")] == [9, 9]
    weight = train["stage2"]["criterion"]["kwargs"]["sub_terms"]["ce"]["weight"]
    assert (weight, type(weight)) == (2.0, float)


def test_join_and_import_call_follow(base):
    data = load_config(base, ["name=faces", "datasets.train.init.kwargs.root=elsewhere"]).data
    assert data["models"]["student_model"]["src_ckpt"] == "runs/faces.pt"
    assert data["datasets"]["train"].root == data["datasets"]["test"].root == "elsewhere"


def test_alias_as_key_follows(write):
    path = replaced(write, "datasets:\n", "id: &id a\ndatasets:\n  *id : 1\n").read_text()
    path = write(path.replace("dataset_id: test", "dataset_id: *id"))
    assert load_config(path, ["id=b"], mode="test").data["datasets"] == {"b": 1}


def test_override_through_an_alias_leaves_the_anchor(base):
    data = load_config(base, ["train.stage1.num_epochs=1", "datasets.test.init.kwargs.root=x"]).data
    assert data["epochs"] == 3
    assert (data["datasets"]["train"].root, data["datasets"]["test"].root) == ("some/folder", "x")


def test_override_through_a_merge_key_copies_on_write(base):
    overrides = ["train.stage2.optimizer.kwargs.lr=0.5", "vars.optimizer.kwargs.betas.0=0.8"]
    train = load_config(base, overrides).data["train"]
    assert train["stage1"]["optimizer"]["kwargs"] == {"lr": 0.001, "betas": [0.8, 0.999]}
    assert train["stage2"]["optimizer"]["kwargs"] == {"lr": 0.5, "betas": [0.8, 0.999]}


def test_override_at_home_reaches_merge_and_alias(base):
    train = load_config(base, ["vars.optimizer.kwargs={lr: 1, weight_decay: 0.1}"]).data["train"]
    assert train["stage2"]["optimizer"]["kwargs"] == {"lr": 1, "weight_decay": 0.1}


def test_list_of_merges_takes_the_first(write):
    scratch = "vars:\n  a: &a {x: 1, y: 2}\n  b: &b {y: 3, z: 4}\n"
    path = replaced(write, "vars:\n", scratch).read_text()
    path = write(path.replace("kwargs: {num_classes: 10}", "kwargs: {<<: [*a, *b], z: 5}"))
    kwargs = load_config(path, ["vars.a.x=9", "vars.b.z=9"]).data["models"]["student_model"]["kwargs"]
    assert kwargs == {"x": 9, "y": 2, "z": 5}


def test_override_of_the_home_spares_a_changed_copy(base):
    overrides = ["train.stage2.optimizer.key=SGD", "vars.optimizer.key=AdamW"]
    train = load_config(base, ["vars.optimizer.kwargs={lr: 1.0}", *overrides]).data["train"]
    assert (train["stage1"]["optimizer"]["key"], train["stage2"]["optimizer"]["key"]) == ("AdamW", "SGD")


def test_one_value_in_two_places_stays_two(write, base):
    text = "base: base.yaml\nset:\n  lmbda: &v 2\n  epochs: *v\n"
    data = load_config(write(text), ["epochs=4"]).data
    assert (data["lmbda"], data["epochs"]) == (2.0, 4)


def test_key_with_dots_is_addressed_as_written(write):
    adaptations = "adaptations: {layer.1: {key: Linear, kwargs: {in_features: 1, out_features: 2}}}"
    path = replaced(write, "    model: {", f"    model: {{{adaptations}, ")
    train = load_config(path, ["train.stage1.model.adaptations.layer.1.kwargs.in_features=5"]).data["train"]
    assert train["stage1"]["model"]["adaptations"]["layer.1"]["kwargs"]["in_features"] == 5


# Scalars and tags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e-3", "1e4", "-2E+5", ".5e1", "1.e3", "1.0e-3", "1_0e1"])
def test_exponents_are_floats(base, text):
    assert load_config(base, [f"lmbda={text}"]).data["lmbda"] == float(text)


@pytest.mark.parametrize("text", ["e3", "1e", "0x1e3", "a1e3"])
def test_other_words_stay_strings(base, text):
    assert load_config(base, [f"name='{text}'"]).data["name"] == text
    if text != "0x1e3":
        assert load_config(base, [f"name={text}"]).data["name"] == text


def test_path_starts_at_the_repository_root_and_keeps_its_tag(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    path = replaced(write, "&root some/folder", "&root !path resources/photos")
    roots = {
        "resources/photos": str(ROOT / "resources" / "photos"),
        "./a/../b": str(ROOT / "b"),
        "~/photos": "/home/someone/photos",
        "/data": "/data",
    }
    for text, expected in roots.items():
        assert load_config(path, [f"datasets.train.init.kwargs.root={text}"]).data["datasets"]["test"].root == expected


def test_global_full_loader_is_left_alone(base):
    load_config(base)
    assert "!path" not in yaml.FullLoader.yaml_constructors
    assert yaml.load("1e-3", yaml.FullLoader) == "1e-3"


def test_every_tag_has_a_form_and_a_constructor():
    assert set(CONSTRUCTORS) == TEXT_TAGS | LIST_TAGS | set(MAPPING_TAGS)


# Overrides that do not fit -------------------------------------------------------------------------------------------


def test_unknown_path_in_set(write, base):
    leaf = write("base: base.yaml\nset:\n  lmbda: 1\n  train.stage1.num_1s: 13\n")
    expected = f"{leaf}:4: no 'train.stage1.num_1s': 'train.stage1' has no 'num_1s'; did you mean 'num_epochs'?"
    assert error_of(leaf) == expected


def test_unknown_path_on_the_command_line(base):
    message = error_of(base, "trian.stage1=1")
    assert message == "--set trian.stage1=1: no 'trian.stage1': the config has no 'trian'; did you mean 'train'?"


def test_list_index_out_of_range(base):
    assert "'vars.optimizer.kwargs.betas' has no '2'" in error_of(base, "vars.optimizer.kwargs.betas.2=1.0")


def test_nothing_lies_under_a_scalar(base):
    assert "'lmbda' is '0.05' (float), nothing lies under it" in error_of(base, "lmbda.x=1")


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("epochs=1.5", "'1.5' (float) would change the type of '3' (int)"),
        ("epochs=true", "'true' (bool) would change the type of '3' (int)"),
        ("lmbda=abc", "'abc' (str) would change the type of '0.05' (float)"),
        ("name=5", "'5' (int) would change the type of 'digits' (str)"),
        ("vars.optimizer=5", "'5' (int) would change the type of a mapping"),
        ("vars.optimizer.kwargs.betas={a: 1}", "a mapping would change the type of a list"),
        ("epochs=auto", "'auto' (str) would change the type of '3' (int)"),
        ("vars.optimizer=auto", "'auto' (str) would change the type of a mapping"),
        ("datasets.train={root: x}", "a mapping would change the type of a !import_call"),
    ],
)
def test_type_change(base, override, change):
    assert error_of(base, override) == f"--set {override}: {change}"


def test_null_replaces_anything_and_anything_null(write):
    path = replaced(write, "name: &name digits", "name: &name digits\nnothing: null")
    data = load_config(path, ["nothing=5", "train.stage2.scheduler=null"]).data
    assert data["nothing"] == 5
    assert data["train"]["stage2"]["scheduler"] is None


def test_auto_and_a_call_replace_each_other(write):
    call = "!import_call {key: collections.Counter, init: {kwargs: {size: 8}}}"
    path = replaced(write, "num_classes: 10", f"decoder: auto, encoder: {call}")
    student = "models.student_model.kwargs"
    data = load_config(path, [f"{student}.decoder={call}", f"{student}.encoder=auto"]).data
    assert data["models"]["student_model"]["kwargs"] == {"decoder": {"size": 8}, "encoder": "auto"}


def test_text_of_join_may_be_given_whole(base):
    model = "models.student_model"
    assert load_config(base, [f"{model}.src_ckpt=a.pt"]).data["models"]["student_model"]["src_ckpt"] == "a.pt"


@pytest.mark.parametrize(("override", "cause"), [("lmbda", "path=value"), ("=1", "path=value"), ("name=", "missing")])
def test_malformed_override(base, override, cause):
    assert cause in error_of(base, override)


# What a run does not need --------------------------------------------------------------------------------------------


def test_training_builds_what_train_and_test_name(base, objects):
    data = load_config(base).data
    assert set(data["datasets"]) == {"train", "test"}
    assert set(data) == {"lmbda", "epochs", "name", "datasets", "models", "train", "test"}
    assert len(objects.Photos.built) == 2


def test_objects_are_shared_and_dictionaries_are_not(write):
    path = replaced(write, "  unused: !import_call {key: config_test_objects.Unbuildable}", "  twin: *train")
    data = load_config(path, ["test.test_data_loader.dataset_id=twin"]).data
    assert data["datasets"]["twin"] is data["datasets"]["train"]
    data["train"]["stage1"]["optimizer"]["kwargs"]["lr"] *= 2
    assert data["train"]["stage2"]["optimizer"]["kwargs"]["lr"] == 0.001


def test_testing_builds_what_test_names(base, objects):
    data = load_config(base, mode="test").data
    assert set(data["datasets"]) == {"test"}
    assert "train" not in data
    assert [photos.root for photos in objects.Photos.built] == ["some/folder"]  # its anchor lies in the dropped one


def test_a_dry_run_gets_the_classes_in_place_of_the_data_sets(base, objects):
    config = load_config(base, mode="dry_run")
    assert config.data["datasets"] == {"train": objects.Photos, "test": objects.Photos}
    assert not objects.Photos.built


def test_scratch_is_not_built(write):
    path = replaced(write, "vars:\n", f"vars:\n  scratch: !import_call {{key: {MODULE}.Unbuildable}}\n")
    assert "vars" not in load_config(path).data


def test_joined_dataset_id(write):
    path = replaced(write, "dataset_id: test", "dataset_id: !join [te, st]")
    assert set(load_config(path, mode="test").data["datasets"]) == {"test"}


def test_unknown_dataset_id(base):
    message = error_of(base, "test.test_data_loader.dataset_id=tset")
    assert message.endswith("test.test_data_loader.dataset_id: no data set 'tset'; did you mean 'test'?")


def test_missing_file_of_a_data_set_is_one_line(write):
    path = replaced(write, "unused: !import_call {", "unused: &u !import_call {").read_text()
    path = path.replace("Unbuildable", "Missing").replace("dataset_id: test", "dataset_id: unused")
    with pytest.raises(UserError, match=r"leaf.yaml:\d+: config_test_objects.Missing: .*'photos/'"):
        load_config(write(path))


# The check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("num_epochs: *epochs", "num_epoch: 1", "train.stage1.num_epoch: unknown key; did you mean 'num_epochs'?"),
        ("num_epochs: *epochs", "num_epochs: 0", "train.stage1.num_epochs: must be positive, not 0"),
        ("num_epochs: *epochs", "num_epochs: many", "must be int, not 'many' (str)"),
        ("  stage2:", "  stage3:", "train.stage3: unknown key; did you mean 'stage2'?"),
        ("vars:\n", "modles: {}\nvars:\n", "modles: unknown key; did you mean 'models'?"),
        ("vars:\n", "scratch: [1]\nvars:\n", "live under 'vars'"),
        ("student_model", "studnet_model", "did you mean 'student_model'?"),
        (
            "key: resnet20",
            "key: resnet200",
            "models.student_model.key: unknown name 'resnet200'; did you mean 'resnet20'?",
        ),
        ("forward_batch_only", "forward_batch", "unknown name 'forward_batch'; did you mean"),
        ("    model: {forward_proc: forward_batch_only}\n", "", "missing 'model' or 'teacher' and 'student'"),
        (
            "{forward_proc: forward_batch_only}",
            "{requires_grad: true}",
            "train.stage1.model: missing key 'forward_proc'",
        ),
        ("key: Adam\n", "key: Adamm\n", "train.stage1.optimizer.key: unknown name 'Adamm'; did you mean 'Adam'?"),
        (
            "{milestones: [1]}",
            "{milestone: [1]}",
            "MultiStepLR has no argument 'milestone'; did you mean 'milestones'?",
        ),
        ("{milestones: [1]}", "{}", "train.stage2.scheduler: MultiStepLR needs the argument 'milestones'"),
        ("key: CrossEntropyLoss", "key: CrossEntropyLos", "did you mean 'CrossEntropyLoss'?"),
        ("weight: *lmbda", "wieght: *lmbda", "unknown key; did you mean 'weight'?"),
        ("init: {kwargs: {root: &root", "inti: {kwargs: {root: &root", "datasets.train.inti: unknown key"),
        ("size: 64", "sise: 64", "datasets.train: Photos has no argument 'sise'; did you mean 'size'?"),
        ("Unbuildable}", "Unbuildabel}", "has no 'Unbuildabel'; did you mean 'Unbuildable'?"),
        (
            f"{MODULE}.Unbuildable",
            "no.such.Thing",
            "datasets.unused: cannot import module 'no.such': No module named 'no'",
        ),
        (f"{MODULE}.Unbuildable", "Unbuildable", "'Unbuildable' names no module"),
        ("unused: !import_call", "unused: !import_cal", "unknown tag '!import_cal'; did you mean '!import_call'?"),
        ("!join [runs/, *name, .pt]", "!join runs", "!join needs a sequence"),
    ],
)
def test_mistakes_are_reported(write, old, new, mistake):
    assert mistake in error_of(replaced(write, old, new))


def test_form_of_a_mistake(write):
    path = replaced(write, "num_epochs: *epochs", "num_epochs: *epochs\n    optimiser: null")
    where = f"{path}:{line_of('num_epochs') + 1}"
    assert error_of(path) == f"{where}: train.stage1.optimiser: unknown key; did you mean 'optimizer'?"


def test_loader_arguments_are_checked(write):
    path = write(COMPLETE.replace("kwargs: {}}\n    model", "kwargs: {bach_size: 4, sampler: 1}}\n    model"))
    message = error_of(path)
    assert (
        "train.stage1.train_data_loader: DataLoader has no argument 'bach_size'; did you mean 'batch_size'?" in message
    )
    assert "argument 'sampler' of DataLoader is given already" in message


def test_all_mistakes_at_once_and_each_once(write):
    text = COMPLETE.replace("forward_batch_only", "forward_bach_only")
    path = write(text.replace("key: CrossEntropyLoss", "key: CrossEntropyLos").replace("size: 64", "sise: 64"))
    message = error_of(path)
    assert message.startswith(f"3 mistakes in {path}: 1) {path}:")  # stage 2 shares stage 1's
    assert "; 2) " in message and "; 3) " in message and "; 4) " not in message


def test_later_stage_may_keep_the_optimizer(write):
    path = write(COMPLETE.replace("    optimizer: *optimizer\n", ""))  # stage 2 merges stage 1, so it has none either
    assert error_of(path).endswith("train.stage1: missing key 'optimizer'")


def test_single_stage(write):
    head, _, tail = COMPLETE.partition("  stage1: &stage1\n")
    stage, _, rest = tail.partition("  stage2:")
    single = write(head + stage + rest[rest.index("test:\n") :])
    assert load_config(single).data["train"]["num_epochs"] == 3


@pytest.mark.parametrize("missing", ["datasets", "models", "train"])
def test_required_top_level(write, missing):
    nodes = yaml.compose(COMPLETE)
    nodes.value = [(key, value) for key, value in nodes.value if key.value != missing]
    assert f"{missing}: missing key" in error_of(write(yaml.serialize(nodes)))


# Malformed files -----------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert error_of(tmp_path / "none.yaml") == f"no such file: {tmp_path / 'none.yaml'}"


def test_missing_base(write, tmp_path):
    leaf = write("\nbase: none.yaml\n")
    assert error_of(leaf) == f"{leaf}:2: base: no such file: {tmp_path / 'none.yaml'}"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: [1\nb: 2\n", "{path}:2: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("# nothing\n", "{path}: empty file"),
        ("- a\n", "{path}:1: a config must be a mapping, not a list"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: *b\n", "{path}:1: found undefined alias 'b'"),
        ("a: &x {b: *x}\n", "{path}:1: an alias inside its own anchor"),
        ("a: {<<: 5}\n", "'<<' merges mappings, not '5' (int)"),
        ("? [a]\n: 1\n", "{path}:1: a key must be a scalar"),
        ("a: \x07\n", "unacceptable character"),
        ("base: {}\n", "base: must be a file or a list of files"),
        ("base: base.yaml\nset: 5\n", "{path}:2: set: must be a mapping of paths to values, not '5' (int)"),
        ("base: base.yaml\nsett: {}\n", "{path}:2: sett: a config with a base holds only 'base' and 'set'; did you"),
        ("set: {a: 1}\n", "names none under 'base'"),
        ("base: leaf.yaml\n", "leaf.yaml is, directly or indirectly, its own base"),
    ],
)
def test_malformed_file(write, base, text, cause):
    path = write(text)
    assert cause.format(path=path) in error_of(path)


def test_binary_file(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\x80\x81")
    assert f"cannot read {path}" in error_of(path)


# The resolved text ---------------------------------------------------------------------------------------------------


def test_resolved_text_is_the_same_config(write, base):
    overrides = ["epochs=9", "name=faces", "train.stage2.optimizer.kwargs.lr=1e-4", "lmbda=2"]
    first = load_config(base, overrides)
    second = load_config(write(first.resolved, "config.resolved.yaml"))
    assert "&" not in first.resolved and "<<" not in first.resolved
    assert "!import_call" in first.resolved
    assert second.resolved == first.resolved
    for part in ("lmbda", "models", "test"):
        assert str(second.data[part]) == str(first.data[part])
    assert second.data["train"] == first.data["train"]


WORDS = st.text("abcxyz_019 é:#-'", min_size=1, max_size=6)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
TREES = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)),
    min_size=1,
)


def leaf_paths(tree, path=()):
    """Yield (path, value) of every leaf of nested dictionaries and lists."""
    if not isinstance(tree, dict | list):
        yield path, tree
        return
    for index, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaf_paths(value, (*path, index))


def same_type(value):
    """A strategy for values that may replace `value`."""
    if value is None:
        return LEAVES
    kinds = {bool: st.booleans(), int: st.integers(), float: st.floats(allow_nan=False), str: WORDS}
    return kinds[type(value)]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tree=TREES)
def test_any_leaf_can_be_overridden_and_read_back(tmp_path_factory, data, tree):
    folder = tmp_path_factory.mktemp("config")
    model = {"student_model": {"key": "resnet20", "kwargs": {"tree": tree}}}
    loader = yaml.safe_load((LOADER % "a").replace("!import_get", ""))
    loader["sampler"]["class_or_func"] = "SAMPLER"
    text = yaml.safe_dump({"datasets": {"a": 1}, "models": model, "test": {"test_data_loader": loader}})
    path = folder / "config.yaml"
    path.write_text(text.replace("SAMPLER", "!import_get {key: torch.utils.data.SequentialSampler}"))

    leaves = list(leaf_paths(tree))
    overrides = []
    if leaves:
        place, old = data.draw(st.sampled_from(leaves))
        new = data.draw(same_type(old))
        dotted = ".".join(map(str, ("models", "student_model", "kwargs", "tree", *place)))
        overrides = [f"{dotted}={yaml.safe_dump(new, default_flow_style=True, allow_unicode=True)}"]
        container = tree
        for index in place[:-1]:
            container = container[index]
        container[place[-1]] = new

    first = load_config(path, overrides, mode="test")
    assert first.data["models"]["student_model"]["kwargs"]["tree"] == tree
    path.write_text(first.resolved)
    second = load_config(path, mode="test")
    assert second.data["models"] == first.data["models"]


def test_one_value_can_be_built_alone():
    override = "dataset_root=/no/data/set"  # so that building the data set fails
    config = compose_config(ROOT / "config" / "quickstart" / "sg_resnet.yaml", [override], "test")
    path = "models.student_model.kwargs"
    assert type(config.construct(f"{path}.encoder")).__name__ == "ResidualEncoder"
    assert config.construct(f"{path}.backbone")["channels"] == [32, 64, 128, 128]
    assert config.construct("test.test_data_loader.dataset_id") == "val"
    assert config.has(path) and not config.has("models.model.kwargs") and not config.has(f"{path}.encoder.key.name")
    with pytest.raises(UserError, match="'models' has no 'student_modle'; did you mean 'student_model'"):
        config.construct("models.student_modle")


def test_a_path_finds_a_key_with_dots_whoever_asks(write):
    adaptations = "adaptations: {layer.1: {key: Linear, kwargs: {in_features: 1, out_features: 2}}}"
    config = compose_config(replaced(write, "    model: {", f"    model: {{{adaptations}, "))
    path = "train.stage1.model.adaptations.layer.1.kwargs.in_features"
    assert config.has(path) and config.construct(path) == 1 and not config.has(path.replace("layer.1", "layer.2"))
