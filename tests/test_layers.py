"""The house's rules: imports run one way, the ground floor stays small, scripts are doors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from misc.files import ROOT

ROOMS = ("misc", "model", "saliency_maps", "scripts")


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """Runs the layers contract of pyproject.toml on the packages in a folder."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)})


@pytest.fixture
def copy(tmp_path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_run_one_way(copy):
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout
    assert "1 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("model/layers.py", "import misc.training.loop"),
        ("misc/errors.py", "import misc.files"),
        ("misc/evaluation/accuracy.py", "def late():\n    from saliency_maps import map_folder"),
    ],
)
def test_an_import_that_runs_the_other_way_is_found(copy, file, line):
    path = copy / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1 and "0 kept, 1 broken" in result.stdout
    assert file.removesuffix(".py").replace("/", ".") in result.stdout


def test_nothing_imports_the_entry_point_but_checks():
    importing = {
        path.relative_to(ROOT).parts[:2]
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "main_classification_torchdistill import" in path.read_text()
    }
    assert importing <= {("scripts", "checks")}


def test_the_ground_floor_is_five_files():
    names = {path.name for path in (ROOT / "misc").glob("*.py")}
    assert names == {"__init__.py", "errors.py", "files.py", "devices.py", "tables.py", "progress.py"}


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_doors(script):
    assert len(script.read_text().splitlines()) <= 120
