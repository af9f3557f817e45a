import re
import subprocess

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


def test_the_revision_says_if_code_was_changed_but_not_if_a_table_was(tmp_path):
    assert git_revision(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / "results.csv").write_text("run\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = git_revision(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}", commit)

    (tmp_path / "results.csv").write_text("run\none\n")
    (tmp_path / "notes.txt").write_text("untracked\n")
    assert git_revision(tmp_path) == commit

    (tmp_path / "code.py").write_text("2\n")
    assert git_revision(tmp_path) == f"{commit}+changes"
