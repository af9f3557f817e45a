import re
from pathlib import Path

import pytest
import timm
import yaml
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models

import model.decoder
import model.encoder
import model.entropy
from misc.config import compose_config

CONFIGS = Path(__file__).resolve().parents[2] / "config"
LEAVES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base" not in path.parts and path.name != "sweep.yaml")


def test_there_are_configs():
    assert len(LEAVES) >= 100


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_is_valid(leaf):
    compose_config(leaf)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_opens_with_what_it_is_and_its_command(leaf):
    header = [line for line in leaf.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config config/{leaf.relative_to(CONFIGS)}" in line for line in header)
    assert any(line.startswith("# Result: ") for line in header)


def test_every_folder_and_every_file_outside_of_a_series_is_in_the_index():
    index = (CONFIGS / "README.md").read_text()
    for leaf in LEAVES:
        folder = leaf.parent.relative_to(CONFIGS).as_posix()
        assert f"`{folder}/" in index
        assert re.search(rf"`{folder}/(lmbda_\*|{leaf.name})", index) or f"`{folder}/*.yaml`" in index, leaf


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if "lmbda_" in leaf.stem], ids=lambda leaf: str(leaf.parent))
def test_number_in_the_name_is_lmbda(leaf):
    assert float(leaf.stem.rpartition("lmbda_")[2]) == float(compose(leaf)["lmbda"])


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if "lmbda_" in leaf.stem], ids=lambda leaf: str(leaf.parent))
def test_lmbda_weighs_the_rate_of_every_stage_that_has_one(leaf):
    config = compose(leaf)
    stages = [stage["criterion"]["kwargs"]["sub_terms"] for stage in config["train"].values()]
    rates = [terms["rate"]["weight"] for terms in stages if "rate" in terms]
    assert rates and all(rate == config["lmbda"] for rate in rates)


SCHEDULES = {
    "main_experiments/phd/lmbda_0.128": [(5, 16, 1e-3, 0.61054023, "bfloat16")],
    "main_experiments/phd_15_epochs/lmbda_1.024": [(15, 16, 1e-3, 0.61054023, "bfloat16")],
    "main_experiments/sg/lmbda_0.064": [(1, 16, 1e-3, 0.61054023, "bfloat16"), (4, 8, 4e-4, 0.61054023, None)],
    "main_experiments/sg_15_epochs/lmbda_0.015": [
        (2, 16, 1e-3, 0.61054023, "bfloat16"),
        (13, 8, 4e-4, 0.61054023, None),
    ],
    "cam-variants/gradcam-withbackprop/lmbda_0.016": [
        (2, 16, 1e-3, 0.61054023, "bfloat16"),
        (13, 8, 4e-4, 0.61054023, None),
    ],
    "limitations-direct-optimization/ce/lmbda_0.016": [(7, 16, 1e-3, 0.794328235, "bfloat16")],
    "limitations-direct-optimization/kd/lmbda_0.015": [(7, 16, 1e-3, 0.794328235, "bfloat16")],
    "finetune/decoder_and_tail": [(5, 96, 5e-4, 0.562341325, "bfloat16")],
    "baselines/entropic_student/lmbda_0.32": [(10, 64, 1e-3, 0.1, None), (10, 64, 1e-3, 0.1, None)],
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_the_papers(name):
    stages = compose(CONFIGS / f"{name}.yaml")["train"].values()
    assert [
        (
            stage["num_epochs"],
            stage["train_data_loader"]["kwargs"]["batch_size"],
            stage["optimizer"]["kwargs"]["lr"],
            stage["scheduler"]["kwargs"]["gamma"],
            stage.get("autocast"),
        )
        for stage in stages
    ] == SCHEDULES[name]


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if "backbones" in leaf.parts], ids=lambda leaf: leaf.stem)
def test_images_are_normalised_as_the_backbone_was_trained(leaf):
    resolved = compose_config(leaf).resolved
    name = re.search(r"name: (\S+\.\S+_in\S*)", resolved).group(1)
    trained = timm.get_pretrained_cfg(name)
    assert f"mean: [{', '.join(map(str, trained.mean))}]" in resolved
    assert f"std: [{', '.join(map(str, trained.std))}]" in resolved


def compose(leaf: Path) -> dict:
    """Return the resolved config as plain data, without tagged nodes."""
    loader = type("Plain", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda *_: None)
    return yaml.load(compose_config(leaf).resolved, loader)


def test_the_papers_families_are_complete():
    main = {"0.015", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024"}
    ce = {"0", "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128"}
    families = {
        "main_experiments/phd": main,
        "main_experiments/sg": main,
        "main_experiments/phd_15_epochs": main,
        "main_experiments/sg_15_epochs": main,
        "cam-variants/gradcam-withbackprop": main | {"0.016"},
        "limitations-direct-optimization/ce": ce,
        "limitations-direct-optimization/kd": ce - {"0.016"} | {"0.015"},
    }
    for folder, numbers in families.items():
        assert {path.stem.removeprefix("lmbda_") for path in (CONFIGS / folder).glob("*.yaml")} == numbers


def test_every_class_of_the_models_is_named_by_a_config():
    text = "\n".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))
    for module in (model.encoder, model.decoder):
        classes = [name for name, kind in vars(module).items() if isinstance(kind, type) and name[0] != "_"]
        own = [name for name in classes if getattr(module, name).__module__ == module.__name__]
        assert all(f"{module.__name__}.{name}" in text for name in own)
    priors = [kind for kind in subclasses(model.entropy.EntropyModel) if kind is not model.entropy.Hyperprior]
    assert all(f"model.entropy.{kind.__name__}" in text for kind in priors)


def test_every_registered_loss_and_model_is_named_by_a_config():
    text = "\n".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))
    for registry in (losses.MIDDLE_LEVEL_LOSS_DICT, models.MODEL_DICT):
        own = [key for key, kind in registry.items() if kind.__module__.startswith(("misc.", "model."))]
        assert own and all(f"key: {key}" in text for key in own)


def subclasses(kind: type) -> list[type]:
    return [grandchild for child in kind.__subclasses__() for grandchild in [child, *subclasses(child)]]
