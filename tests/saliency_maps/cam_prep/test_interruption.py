"""A run that is killed again and again ends with the files of one that was left alone, and never shows half a map."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_maps.cam_prep import cam_map_generation
from saliency_maps.map_folder import MANIFEST, MapFolder

KILLS = 7
CLASSES, IMAGES = 8, 40  # and images per class


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory) -> Path:
    pixels = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("photos")
    for number in range(CLASSES):
        (root / f"class{number}").mkdir()
        for index in range(IMAGES):
            image = Image.fromarray(pixels.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            image.save(root / f"class{number}" / f"{index:02}.png")
    return root


def command(photos: Path, output: Path, form: str) -> list[str]:
    script = str(Path(cam_map_generation.__file__).resolve())
    teacher = ["--model", "resnet10t", "--num_classes", str(CLASSES), "--random_weights", "--input_size", "64"]
    maps = ["--target_layer", "layer2", "--eigen_smooth", "--patch_cam", "--target_dim", "14", "--format", form]
    batches = ["--batch_size", "2", "--num_workers", "1", "--device", "cpu"]
    return [sys.executable, script, *teacher, *maps, *batches, "--input", str(photos), "--output", str(output)]


def entries(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def start_and_kill(run: list[str], output: Path, moments: random.Random) -> bool:
    """Kills a run after some changes on the disk and a little while; returns whether it was still at work."""
    changes, delay = moments.randint(0, 20), moments.random() * 0.02
    before = entries(output)
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(entries(output) ^ before) <= changes:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    return process.wait() == -9


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but the manifest, which names the folder in its command."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npy", "packed"])
def test_kills_at_random_moments_change_nothing(many_photos, tmp_path, form):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(many_photos, whole, form), check=True, capture_output=True)
    expected = MapFolder(whole)
    assert expected.manifest["uniform_maps"]["count"] == 0
    moments = random.Random(form)
    counts = [0]
    for _ in range(KILLS):
        assert start_and_kill(command(many_photos, killed, form), killed, moments), "the run came to its end"
        visible = MapFolder(killed)
        for name in visible.names:
            assert np.array_equal(visible.read(name), expected.read(name))
        counts.append(len(visible.names))
    assert counts == sorted(counts) and counts[-1] > 0

    run = subprocess.run(command(many_photos, killed, form), check=True, capture_output=True, text=True)
    assert f"{counts[-1]} were there already" in run.stdout
    assert contents(killed) == contents(whole)
    described = [json.loads((folder / MANIFEST).read_text()) for folder in (killed, whole)]
    for key in ("settings", "num_maps", "uniform_maps", "versions"):
        assert described[0][key] == described[1][key]
    assert entries(killed) == {name.replace(str(whole), str(killed)) for name in entries(whole)}
