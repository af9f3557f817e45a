"""What a run does, from its flags and what its folder holds."""

import json

import pytest

from misc.errors import UserError
from misc.training.checkpoint import save_checkpoint
from misc.training.run_folder import CONFIG, FACTS, WEIGHTS
from misc.training.run_plan import Plan, plan_run

SEED = 3
CONFIG_TEXT = "lmbda: 1\n"


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that has begun."""
    (tmp_path / CONFIG).write_text(CONFIG_TEXT)
    (tmp_path / FACTS).write_text(json.dumps({"seed": SEED}))
    return tmp_path


def plan(folder, entry=None, seed=SEED, config=CONFIG_TEXT, **flags) -> Plan:
    return plan_run(entry or {"key": "split_classifier"}, folder, config, seed, **flags)


def test_a_new_run_trains_from_what_the_config_gives(tmp_path):
    assert plan(tmp_path / "run") == plan(tmp_path / "run", resume=True) == Plan(train=True)
    source = tmp_path / "source.safetensors"
    entry = {"src_ckpt": str(source)}
    assert plan(tmp_path / "run", entry, skip_ckpt=True) == Plan(train=True)
    with pytest.raises(UserError, match=r"nor at .*source.safetensors, the config's src_ckpt"):
        plan(tmp_path / "run", entry)
    source.touch()
    assert plan(tmp_path / "run", entry) == Plan(train=True, weights=source)
    assert plan(tmp_path / "run", entry, test_only=True) == Plan(train=False, weights=source)


def test_weights_of_an_ended_run_are_trained_on_or_tested(begun):
    weights = begun / WEIGHTS
    with pytest.raises(UserError, match="nothing to test"):
        plan(begun, test_only=True)
    weights.touch()
    assert plan(begun) == Plan(train=True, weights=weights)
    assert plan(begun, test_only=True) == Plan(train=False, weights=weights)
    assert plan(begun, skip_ckpt=True) == Plan(train=True)
    for skip_ckpt in (False, True):
        assert plan(begun, skip_ckpt=skip_ckpt, resume=True) == Plan(train=False, weights=weights)


def test_a_checkpoint_is_resumed_whatever_weights_there_are(begun):
    save_checkpoint(begun, {"random_states": [{}]})
    for skip_ckpt in (False, True):
        resumed = plan(begun, skip_ckpt=skip_ckpt, resume=True)
        assert resumed == Plan(train=True, checkpoint={"random_states": [{}]}) and resumed.overwrites_parameters
    (begun / WEIGHTS).touch()
    assert plan(begun, resume=True) == resumed
    assert not plan(begun, skip_ckpt=True).overwrites_parameters


def test_another_config_seed_or_number_of_processes_is_refused(begun):
    save_checkpoint(begun, {"random_states": [{}, {}]})
    with pytest.raises(UserError, match=r"the same config: line 1 of .* is 'lmbda: 1', now it would be 'lmbda: 2'"):
        plan(begun, config="lmbda: 2\n", resume=True)
    with pytest.raises(UserError, match="the same seed: the run has 3, now it is 4"):
        plan(begun, seed=4, resume=True)
    with pytest.raises(UserError, match="the same number of processes: the run has 2, now there are 1"):
        plan(begun, resume=True)


def test_nothing_is_changed(begun):
    entry = {"key": "split_classifier", "kwargs": {"trained_parts": {"modules": ["encoder"]}}}
    before, files = json.dumps(entry), sorted(begun.iterdir())
    (begun / WEIGHTS).touch()
    plan(begun, entry)
    assert json.dumps(entry) == before and sorted(begun.iterdir()) == sorted([*files, begun / WEIGHTS])
