"""Differences of small maps by hand, and what the command imports."""

import subprocess
import sys

import numpy as np
import pytest

from misc.files import ROOT
from saliency_maps.map_folder import write_json, write_map
from scripts import compare_maps


def write(root, **maps):
    for name, values in maps.items():
        write_map(root / "cat" / f"{name}.npy", np.array(values, np.float32))
    write_json(root / "manifest.json", {"settings": {}})
    return str(root)


def test_differences_by_hand(tmp_path, capsys):
    first = write(tmp_path / "a", one=[[0.0, 1.0]], two=[[0.5, 0.5]], three=[[1.0, 1.0]])
    second = write(tmp_path / "b", one=[[0.75, 1.0]], two=[[0.5, 0.25]])
    compare_maps.main([first, second])
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["2", "0.2500", "0.7500", "1"]


def test_maps_of_other_images_are_refused(tmp_path, capsys):
    folders = [write(tmp_path / "a", one=[[0.0, 1.0]]), write(tmp_path / "b", two=[[0.0, 1.0]])]
    with pytest.raises(SystemExit):
        compare_maps.main(folders)
    assert "no map of one name and size" in capsys.readouterr().err


def test_comparing_maps_needs_neither_torch_nor_what_is_built_on_it():
    heavy = {"torch", "torchvision", "torchdistill", "compressai", "timm"}
    code = f"import sys, scripts.compare_maps; print({heavy} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
