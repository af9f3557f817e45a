"""The command from end to end on a small tree of images, and what it says to mistakes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from misc.errors import UserError
from saliency_maps.cam_prep import cam_map_generation, map_output, teacher
from saliency_maps.cam_prep.saliency import SaliencyMapper

SCRIPT = str(Path(cam_map_generation.__file__).resolve())
MODEL = "resnet10t"
FLAGS = ["--mix_layers", "--eigen_smooth", "--patch_cam", "--target_dim", "28", "--device", "cpu", "--num_workers", "0"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    save_file(timm.create_model(MODEL, num_classes=3, zero_init_last=False).state_dict(), path)
    return path


@pytest.fixture
def command(photos, weights, tmp_path) -> list[str]:
    paths = ["--weights_path", str(weights), "--input", str(photos), "--output", str(tmp_path / "maps")]
    return ["--model", MODEL, "--num_classes", "3", "--input_size", "64", *paths, *FLAGS]


def refused(command, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cam_map_generation.main(command)
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def replaced(command, flag, value) -> list[str]:
    position = command.index(flag) + 1
    return [*command[:position], str(value), *command[position + 1 :]]


def modification_times(maps: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in maps.rglob("*.npy")}


def test_every_image_gets_a_map_of_its_name(command, photos, tmp_path, capsys):
    cam_map_generation.main(command)
    maps = tmp_path / "maps"
    for image in photos.rglob("*.*"):
        saliency = np.load((maps / image.relative_to(photos)).with_suffix(".npy"))
        assert saliency.shape == (28, 28) and saliency.dtype == np.float32
        assert saliency.min() == 0 and 0.99 < saliency.max() <= 1
    assert len(list(maps.rglob("*.npy"))) == 6
    assert {path.name for path in maps.iterdir()} == {"ant", "bee", "cat", "settings.json", "manifest.json"}
    assert "6 maps in" in capsys.readouterr().out


def test_the_manifest_says_where_the_maps_come_from(command, tmp_path):
    cam_map_generation.main(command)
    manifest = json.loads((tmp_path / "maps" / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings == json.loads((tmp_path / "maps" / "settings.json").read_text())
    assert settings["layers"] == ["layer1.0", "layer2.0", "layer3.0"]
    assert (settings["map_size"], settings["input_size"]) == ([28, 28], [64, 64])
    assert settings["saliency_type"] == "XGradCAM" and settings["eigen_smooth"]
    assert manifest["num_maps"] == 6
    assert manifest["uniform_maps"] == {"count": 0, "names": []}
    assert len(manifest["weights_sha256"]) == 64
    assert manifest["versions"]["timm"] == timm.__version__
    assert "--eigen_smooth" in manifest["command"] and manifest["flags"]["batch_size"] == 16


def test_a_map_is_the_mappers(command, photos, tmp_path):
    """Batches, workers and files in between change nothing."""
    cam_map_generation.main([*command, "--batch_size", "4"])
    args = cam_map_generation.parse_args(command)
    teacher_ = cam_map_generation.load_teacher(args)
    layers = cam_map_generation.select_target_layers(teacher_.model, mix_layers=True)
    mapper = SaliencyMapper(teacher_.model, layers, "XGradCAM", (28, 28), eigen_smooth=True)
    image = teacher.input_format(teacher_.model, 64).preprocessing()(Image.open(photos / "cat" / "0.png"))
    expected = mapper(image[None], torch.tensor([2]))[0].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "maps" / "cat" / "0.npy"), expected, atol=1e-4)


def test_a_second_run_makes_nothing_again(command, tmp_path, capsys):
    cam_map_generation.main(command)
    before = modification_times(tmp_path / "maps")
    capsys.readouterr()
    cam_map_generation.main(command)
    assert modification_times(tmp_path / "maps") == before
    assert "0 maps in" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(command, tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    cam_map_generation.main(command)
    whole = {path.relative_to(maps): np.load(path) for path in maps.rglob("*.npy")}
    shutil.rmtree(maps)

    def stop_at_bee(path, *args):
        if path.parent.name == "bee":
            raise KeyboardInterrupt
        write_map(path, *args)

    write_map = map_output.write_map
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(map_output, "write_map", stop_at_bee)
        cam_map_generation.main([*command, "--batch_size", "1"])
    before = modification_times(maps)
    assert len(before) == 2 and not (maps / "manifest.json").exists()

    cam_map_generation.main(command)
    assert before.items() <= modification_times(maps).items()
    assert (maps / "manifest.json").exists()
    for name, saliency in whole.items():
        np.testing.assert_allclose(np.load(maps / name), saliency, atol=1e-4)


def test_a_limited_run_can_be_completed(command, tmp_path):
    cam_map_generation.main([*command, "--limit", "3"])
    assert len(modification_times(tmp_path / "maps")) == 3
    cam_map_generation.main(command)
    assert len(modification_times(tmp_path / "maps")) == 6


def test_without_patch_cam_maps_have_the_size_of_the_input(command, tmp_path):
    command = [flag for flag in command if flag not in ("--patch_cam", "--target_dim", "28")]
    cam_map_generation.main([*command, "--saliency_type", "EigenCAM", "--limit", "1"])
    assert np.load(tmp_path / "maps" / "ant" / "0.npy").shape == (64, 64)


def test_maps_that_say_nothing_are_uniform_and_named(command, photos, tmp_path, capsys):
    """A black image and no gradient: the last layer's weights are zero."""
    weights = Path(command[command.index("--weights_path") + 1])
    silent = {**teacher.teacher_by_name(MODEL, str(weights), 3).model.state_dict()}
    silent["fc.weight"] = torch.zeros_like(silent["fc.weight"])
    save_file(silent, tmp_path / "silent.safetensors")
    cam_map_generation.main(replaced(command, "--weights_path", tmp_path / "silent.safetensors"))
    assert (np.load(tmp_path / "maps" / "ant" / "0.npy") == 0.5).all()
    uniform = json.loads((tmp_path / "maps" / "manifest.json").read_text())["uniform_maps"]
    assert uniform["count"] == 6 and uniform["names"][0] == "ant/0.npy"
    assert "6 maps were empty" in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(command, capsys):
    cam_map_generation.main(command)
    message = refused(replaced(command, "--target_dim", 14), capsys)
    assert "map_size is [28, 28] there and [14, 14] now" in message


def test_a_folder_of_something_else_is_refused(command, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "thesis.tex").touch()
    assert "holds no maps" in refused(command, capsys)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--input", "nowhere", "nowhere"),
        ("--num_classes", "4", "does not fit"),
        ("--weights_path", "nowhere.safetensors", "nowhere.safetensors"),
        ("--model", "resnet10", "resnet10"),
        ("--device", "toaster", "is not a device"),
    ],
)
def test_a_wrong_value_is_one_line(command, capsys, flag, value, message):
    assert message in refused(replaced(command, flag, value), capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_one_line(command, capsys):
    assert "torch sees 0 CUDA devices" in refused(replaced(command, "--device", "cuda"), capsys)


def test_class_folders_must_be_the_teachers_classes(command, photos, capsys):
    shutil.rmtree(photos / "bee")
    message = refused(command, capsys)
    assert "2 class folders" in message and "3 classes" in message


def test_pretrained_weights_of_another_number_of_classes_are_refused():
    with pytest.raises(UserError, match="1000 classes, --num_classes is 3"):
        teacher.teacher_by_name(MODEL, None, 3)


def test_images_that_would_share_a_map_are_refused(command, photos, capsys):
    Image.open(photos / "ant" / "0.png").save(photos / "ant" / "0.bmp")
    assert "would share the map ant/0.npy" in refused(command, capsys)


def test_a_truncated_image_is_named(command, photos, capsys):
    path = photos / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:100])
    assert "1.png" in refused(command, capsys)


def test_maps_in_the_data_set_are_refused(command, photos, capsys):
    assert "would be taken for a class" in refused(replaced(command, "--output", photos / "maps"), capsys)


def test_target_dim_needs_patch_cam(command, capsys):
    command.remove("--patch_cam")
    assert "--patch_cam" in refused(command, capsys)


def test_a_size_that_the_teacher_cannot_take_is_refused():
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=24, depths=(1,) * 4)
    assert teacher.input_format(swin).size == (64, 64)
    with pytest.raises(UserError, match="64x64 only"):
        teacher.input_format(swin, 96)


CONFIG = {
    "key": "timm_backbone",
    "kwargs": {"name": MODEL, "num_classes": 3, "split_idx": 2, "pretrained_cfg_overlay": {"input_size": [3, 64, 64]}},
}


@pytest.fixture
def config(monkeypatch):
    """Stands in for the config loader, whose own tests are elsewhere; returns the teacher's kwargs."""
    entry = {**CONFIG, "kwargs": dict(CONFIG["kwargs"])}
    loaded = SimpleNamespace(data={"models": {"teacher_model": entry}})
    monkeypatch.setattr("misc.config.load_config", lambda path, overrides=(), mode="train": loaded)
    return entry["kwargs"]


def test_the_teacher_of_a_config_is_built_uncut(config, weights):
    config["weights_path"] = str(weights)
    found = teacher.teacher_from_config("any.yaml")
    assert (found.name, found.weights_path, found.model.num_classes) == (MODEL, str(weights), 3)
    assert teacher.input_format(found.model).size == (64, 64)
    state = teacher.teacher_by_name(MODEL, str(weights), 3).model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.model.state_dict().items())


def test_an_untrained_teacher_is_refused(config, weights):
    with pytest.raises(UserError, match=r"the teacher of any\.yaml is untrained"):
        teacher.teacher_from_config("any.yaml")
    assert teacher.teacher_from_config("any.yaml", str(weights)).weights_path == str(weights)


def test_a_config_without_a_teacher_is_refused(config):
    config.pop("name")
    with pytest.raises(UserError, match=r"no models\.teacher_model"):
        teacher.teacher_from_config("any.yaml")


def run_alone(*command, folder) -> subprocess.CompletedProcess:
    """Runs a command from another folder, without PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_mistake_exits_with_2_and_one_line(command, tmp_path):
    run = run_alone(sys.executable, SCRIPT, *replaced(command, "--input", "nowhere"), folder=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: no data set at ") and run.stderr.count("\n") == 1


@pytest.mark.slow
def test_ranks_share_the_images(command, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = run_alone(*torchrun, SCRIPT, *replaced(command, "--num_workers", 1), folder=tmp_path)
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "maps" / "manifest.json").read_text())
    assert manifest["num_maps"] == len(modification_times(tmp_path / "maps")) == 6
