import re

from misc.files import ROOT
from misc.training.run_folder import default_run_dir, git_revision, start_run


def test_the_folder_follows_the_config():
    runs = ROOT / "resources" / "runs"
    assert default_run_dir(ROOT / "config" / "quickstart" / "sg_resnet.yaml") == runs / "quickstart" / "sg_resnet"
    assert default_run_dir("/elsewhere/mine.yaml") == runs / "mine"


def test_earlier_runs_are_kept_whole(tmp_path):
    run = tmp_path / "run"
    start_run(run, "first: 1\n", seed=0)
    start_run(run, "second: 2\n", seed=0)
    start_run(run, "third: 3\n", seed=0)  # within the same second
    written = {path.name: (path / "config.resolved.yaml").read_text() for path in tmp_path.iterdir()}
    assert written == {"run.before-1": "first: 1\n", "run.before-2": "second: 2\n", "run": "third: 3\n"}


def test_the_revision_is_a_commit_or_unknown():
    revision = git_revision()
    assert revision == "unknown" or re.fullmatch(r"[0-9a-f]{12}(\+changes)?", revision)
