from pathlib import Path

import pytest

from misc.config import compose_config

CONFIGS = Path(__file__).resolve().parents[2] / "config"
LEAVES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base" not in path.parts)


def test_there_are_configs():
    assert len(LEAVES) >= 7


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
@pytest.mark.parametrize("mode", ["train", "test"])
def test_every_config_is_valid(leaf, mode):
    compose_config(leaf, mode=mode)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_opens_with_what_it_is_and_its_command(leaf):
    header = [line for line in leaf.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config config/{leaf.relative_to(CONFIGS)}" in line for line in header)
    assert any(line.startswith("# Result: ") for line in header)


def test_every_config_is_in_the_index():
    index = (CONFIGS / "README.md").read_text()
    for leaf in LEAVES:
        family, _, backbone = leaf.stem.partition("_")
        assert leaf.name in index or (f"{family}_{{resnet,swin}}.yaml" in index and backbone in ("resnet", "swin"))
