"""Every command answers --help, in a process of its own and from another folder."""

import os
import subprocess
import sys

import pytest

from misc.files import ROOT

SCRIPTS = sorted(path for path in (ROOT / "scripts").rglob("*.py") if path.name != "__init__.py")
COMMANDS = [
    ROOT / "main_classification_torchdistill.py",
    ROOT / "saliency_maps/cam_prep/cam_map_generation.py",
    *SCRIPTS,
]


@pytest.mark.slow
@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_help(path, tmp_path):
    if path.name == "ray_replicas.py":
        pytest.importorskip("ray", reason="misc/deploy/requirements-ray.txt is not installed")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("usage: "), run.stderr
