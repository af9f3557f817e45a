import pytest

from misc.files import ROOT
from scripts.checks.dry_run_all import experiments, main, trial


def test_every_config_but_bases_and_sweeps_is_tried():
    names = {path.relative_to(ROOT / "config").as_posix() for path in experiments()}
    assert {"quickstart/sg_resnet.yaml", "main_experiments/phd/lmbda_0.128.yaml"} <= names
    assert not any(name.startswith("_base/") or name.endswith("sweep.yaml") for name in names)


def test_a_user_error_is_the_cause_of_a_failure(tmp_path):
    result = trial(tmp_path / "none.yaml")
    assert result.config == str(tmp_path / "none.yaml") and "none.yaml" in result.cause


@pytest.mark.slow
@pytest.mark.parametrize(("is_sound", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_whether_all_are_sound(tmp_path, capsys, is_sound, code):
    config = ROOT / "config" / "quickstart" / "phd_resnet.yaml" if is_sound else tmp_path / "none.yaml"
    with pytest.raises(SystemExit) as ended:
        main([str(config)])
    assert ended.value.code == code
    assert f"{int(is_sound)} of 1 configs are sound" in capsys.readouterr().out
