"""The command from end to end on a small tree of images, and what it says to mistakes."""

import errno
import json
import os
import re
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
from saliency_maps.cam_loaders import ImageFolderWithMaps
from saliency_maps.cam_prep import cam_map_generation, map_output, teacher
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.target_layers import select_target_layers
from saliency_maps.map_folder import DTYPES, MapFolder

SCRIPT = str(Path(cam_map_generation.__file__).resolve())
REPOSITORY = Path(SCRIPT).parents[2]
MODEL = "resnet10t"
CLASSES = ("ant", "bee", "cat")
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
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == [f"nothing to do, 6 maps were there already: {tmp_path / 'maps'}"]
    assert not printed.err


def test_an_interrupted_run_is_resumed(command, tmp_path, monkeypatch):
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
    cam_map_generation.main([*command, "--limit", "3"])
    assert MapFolder(tmp_path / "maps").manifest["num_maps"] == 6


def packed_names(maps: Path) -> dict[str, list[str]]:
    return {path.stem: json.loads(path.read_text())["names"] for path in maps.glob("*.json") if path.stem in CLASSES}


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_maps_are_the_single_ones(command, tmp_path, dtype, capsys):
    cam_map_generation.main([*command, "--dtype", dtype])
    packed = replaced([*command, "--dtype", dtype, "--format", "packed"], "--output", tmp_path / "packed")
    cam_map_generation.main(packed)
    files = {f"{name}.{suffix}" for name in CLASSES for suffix in ("npy", "json")}
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {*files, "settings.json", "manifest.json"}
    assert np.load(tmp_path / "packed" / "bee.npy").dtype == dtype
    single, together = MapFolder(tmp_path / "maps"), MapFolder(tmp_path / "packed")
    assert single.names == together.names and len(single.names) == 6
    assert all(np.array_equal(single.read(name), together.read(name)) for name in single.names)

    before = modification_times(tmp_path / "packed")
    capsys.readouterr()
    cam_map_generation.main(packed)
    assert modification_times(tmp_path / "packed") == before
    assert "nothing to do" in capsys.readouterr().out


def test_a_class_is_packed_as_soon_as_it_is_complete(command, tmp_path, monkeypatch):
    def stop_at_cat(path, *args):
        if path.parent.name == "cat":
            raise KeyboardInterrupt
        write_map(path, *args)

    write_map = map_output.write_map
    monkeypatch.setattr(map_output, "write_map", stop_at_cat)
    with pytest.raises(KeyboardInterrupt):
        cam_map_generation.main([*command, "--format", "packed", "--batch_size", "2"])
    assert packed_names(tmp_path / "maps") == {"ant": ["0.npy", "1.npy"], "bee": ["0.npy", "1.npy"]}


def test_a_limited_pack_is_completed(command, tmp_path):
    command += ["--format", "packed", "--batch_size", "1"]
    cam_map_generation.main([*command, "--limit", "3"])
    assert packed_names(tmp_path / "maps") == {"ant": ["0.npy", "1.npy"], "bee": ["0.npy"]}
    cam_map_generation.main(command)
    assert packed_names(tmp_path / "maps") == {name: ["0.npy", "1.npy"] for name in CLASSES}
    cam_map_generation.main(replaced(command, "--output", tmp_path / "at_once"))
    for path in (tmp_path / "at_once").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "maps" / path.name).read_bytes()


def test_a_class_whose_pack_would_overwrite_the_settings_is_refused(command, photos, capsys):
    (photos / "cat").rename(photos / "settings")
    assert "overwrite settings.json" in refused([*command, "--format", "packed"], capsys)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole + bytes(1),
        lambda whole: bytes(100) + whole[100:],
    ],
    ids=["empty", "header", "short", "long", "zeros"],
)
def test_damaged_maps_are_made_again(command, tmp_path, capsys, damage):
    cam_map_generation.main(command)
    path = tmp_path / "maps" / "bee" / "1.npy"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    (tmp_path / "maps" / "ant" / "0.npy").unlink()
    capsys.readouterr()
    cam_map_generation.main(command)
    assert "2 maps in" in (out := capsys.readouterr().out)
    assert "4 were there already, 1 damaged ones made again" in out
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda maps: os.truncate(maps / "bee.npy", 200),
        lambda maps: os.truncate(maps / "bee.npy", 100_000),
        lambda maps: (maps / "bee.npy").unlink(),
        lambda maps: (maps / "bee.json").write_text("["),
        lambda maps: (maps / "bee.json").write_text('["0.npy", "1.npy"]'),
        lambda maps: (maps / "bee.json").write_text('{"names": ["0.npy", "0.npy"]}'),
        lambda maps: np.save(maps / "bee.npy", np.zeros((2, 5, 5), np.float32)),
    ],
)
def test_damaged_packs_are_made_again(command, tmp_path, capsys, damage):
    command += ["--format", "packed"]
    cam_map_generation.main(command)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "maps").iterdir()}
    damage(tmp_path / "maps")
    capsys.readouterr()
    cam_map_generation.main(command)
    assert "2 maps in" in (out := capsys.readouterr().out)
    assert "4 were there already, 2 damaged ones made again" in out
    assert {path.name: path.read_bytes() for path in (tmp_path / "maps").iterdir()} == whole


def test_what_a_killed_process_left_is_removed(command, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / ".settings.json.ab_d3fgh").touch()
    cam_map_generation.main([*command, "--limit", "1"])
    (tmp_path / "maps" / "ant" / ".1.npy.ab_d3fgh").touch()
    cam_map_generation.main(command)
    assert not [path for path in (tmp_path / "maps").rglob("*") if path.name.startswith(".")]


def test_disk_use_is_printed_before_the_work(command, capsys, monkeypatch):
    monkeypatch.setattr(map_output.shutil, "disk_usage", lambda path: SimpleNamespace(free=19_584))
    cam_map_generation.main([*command])
    assert capsys.readouterr().out.startswith("6 maps of 28x28 float32: 20 kB on disk, 20 kB free\n")


@pytest.mark.parametrize("form", ["npy", "packed"])
def test_a_full_disk_is_refused_before_any_work(command, tmp_path, capsys, monkeypatch, form):
    """Three classes of two maps of 784 bytes, 128 more for each file; packed, the largest class is there twice."""
    command += ["--dtype", "uint8", "--format", form]
    needed = 6 * (784 + 128) if form == "npy" else 3 * (2 * 784 + 128) + 2 * (784 + 128)
    monkeypatch.setattr(map_output.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    assert "more are needed where" in refused(command, capsys)
    assert not modification_times(tmp_path / "maps")
    monkeypatch.setattr(map_output.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    cam_map_generation.main(command)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (39_168_000, "39 MB"), (999_600_000, "1.0 GB"), (4.18e12, "4.2 TB")],
)
def test_sizes_are_readable(num_bytes, text):
    assert map_output.readable(num_bytes) == text


def explained(monkeypatch) -> list[list[int] | None]:
    """Collects the labels that the mapper is asked for."""
    asked = []

    def call(mapper, images, labels):
        asked.append(None if labels is None else labels.tolist())
        return whole_call(mapper, images, labels)

    whole_call = SaliencyMapper.__call__
    monkeypatch.setattr(SaliencyMapper, "__call__", call)
    return asked


def test_a_class_map_says_what_is_explained(command, tmp_path, monkeypatch):
    (tmp_path / "classes.yaml").write_text("{ant: 2, bee: 0, cat: 2, dog: 1}")
    asked = explained(monkeypatch)
    cam_map_generation.main([*command, "--class_map", str(tmp_path / "classes.yaml")])
    assert asked == [[2, 2, 0, 0, 2, 2]]


def test_another_class_map_in_the_same_folder_is_refused(command, tmp_path, capsys):
    (tmp_path / "classes.json").write_text('{"ant": 2, "bee": 0, "cat": 1}')
    cam_map_generation.main(command)
    message = refused([*command, "--class_map", str(tmp_path / "classes.json")], capsys)
    assert "class_indices_sha256 is" in message


def test_the_predicted_class_needs_no_labels(command, photos, tmp_path, monkeypatch):
    """Two class folders and three classes; the maps are those of the labels that the model would give."""
    shutil.rmtree(photos / "bee")
    asked = explained(monkeypatch)
    cam_map_generation.main([*command, "--target", "predicted"])
    assert asked == [None]
    settings = json.loads((tmp_path / "maps" / "settings.json").read_text())
    assert settings["target"] == "predicted" and settings["class_indices_sha256"] is None
    model = teacher.teacher_by_name(MODEL, command[command.index("--weights_path") + 1], 3).model.eval()
    preprocessing = teacher.input_format(model, 64).preprocessing()
    pixels = torch.stack([preprocessing(Image.open(photos / "ant" / f"{index}.png")) for index in (0, 1)])
    mapper = SaliencyMapper(model, select_target_layers(model, mix_layers=True), "XGradCAM", (28, 28), True)
    for index, saliency in enumerate(mapper(pixels, model(pixels).argmax(1))):
        np.testing.assert_allclose(np.load(tmp_path / "maps" / "ant" / f"{index}.npy"), saliency, atol=1e-4)


@pytest.mark.parametrize("layout", ["npy", "packed"])
def test_images_in_any_folders_have_maps_and_are_paired_with_them(command, photos, tmp_path, layout):
    (photos / "bee" / "old" / "older").mkdir(parents=True)
    (photos / "bee" / "0.png").rename(photos / "bee" / "old" / "older" / "0.png")
    for _ in range(2):  # the second time there is nothing to do
        cam_map_generation.main([*command, "--target", "predicted", "--format", layout])
    images = ImageFolderWithMaps(photos, tmp_path / "maps", lambda *pair: pair, labelled=False)
    assert len(images) == 6
    assert all(target["saliency"].shape[1:] == image.size[::-1] and target["label"] == -100 for image, target in images)


def test_an_image_outside_of_every_folder_is_refused(command, photos, capsys):
    (photos / "ant" / "0.png").rename(photos / "top.png")
    message = refused([*command, "--target", "predicted"], capsys)
    assert "1 of the images lie in --input itself (top.png)" in message


def test_random_weights_must_be_asked_for(photos, tmp_path, capsys):
    paths = ["--input", str(photos), "--output", str(tmp_path / "maps")]
    command = ["--model", MODEL, "--num_classes", "3", "--input_size", "64", "--random_weights", *paths, *FLAGS]
    cam_map_generation.main(command)
    assert "warning: the teacher has random weights" in capsys.readouterr().err
    torch.rand(1)
    cam_map_generation.main(command)  # the same model, hence no other settings
    assert "nothing to do" in capsys.readouterr().out
    assert "not allowed with" in usage_error([*command, "--weights_path", "x"], capsys)


def usage_error(command, capsys) -> str:
    with pytest.raises(SystemExit):
        cam_map_generation.main(command)
    return capsys.readouterr().err


def test_each_layer_gets_a_folder_of_its_own(command, photos, tmp_path, capsys):
    cam_map_generation.main([*command, "--multires", "--format", "packed"])
    maps = tmp_path / "maps"
    assert {path.name for path in maps.iterdir()} == {"layer1.0", "layer2.0", "layer3.0"}
    assert "18 maps in" in capsys.readouterr().out
    for layer in maps.iterdir():
        saliency = ImageFolderWithMaps(photos, layer, lambda *pair: pair)[5][1]["saliency"]
        assert saliency.min() >= 0 and saliency.max() > 0.5
        assert MapFolder(layer).manifest["settings"]["layers"] == [layer.name]
    with pytest.raises(UserError, match=r"give one of layer1\.0, layer2\.0, layer3\.0 in it"):
        ImageFolderWithMaps(photos, maps, lambda *pair: pair)


def test_the_mean_over_the_layers_is_the_mixed_map(command, tmp_path):
    cam_map_generation.main(replaced(command, "--output", tmp_path / "mixed"))
    cam_map_generation.main([*command, "--multires"])
    layers = [MapFolder(layer) for layer in (tmp_path / "maps").iterdir()]
    mixed = MapFolder(tmp_path / "mixed")
    for name in mixed.names:
        mean = np.mean([layer.read(name) for layer in layers], axis=0)
        np.testing.assert_allclose((mean - mean.min()) / (mean.max() - mean.min()), mixed.read(name), atol=1e-5)


def test_one_damaged_layer_is_mended_and_the_others_left(command, tmp_path, capsys):
    command += ["--multires"]
    cam_map_generation.main(command)
    before = modification_times(tmp_path / "maps")
    (tmp_path / "maps" / "layer2.0" / "bee" / "0.npy").write_bytes(b"")
    capsys.readouterr()
    cam_map_generation.main(command)
    after = modification_times(tmp_path / "maps")
    assert {name for name in after if after[name] != before[name]} == {
        str(tmp_path / "maps" / "layer2.0" / "bee" / "0.npy")
    }
    assert "1 maps in" in capsys.readouterr().out


def test_maps_and_folders_of_maps_are_kept_apart(command, capsys):
    cam_map_generation.main(command)
    assert "holds maps, and with --multires" in refused([*command, "--multires"], capsys)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_settings_are_one_line(command, tmp_path, capsys, content):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "settings.json").write_text(content)
    assert "make the maps again in an empty folder" in refused(command, capsys)


@pytest.mark.parametrize("flags", [["--guided_backprop"], ["--autocast", "bfloat16"]])
def test_what_changes_the_maps_is_a_setting(command, tmp_path, capsys, flags):
    cam_map_generation.main([*command, *flags])
    settings = json.loads((tmp_path / "maps" / "settings.json").read_text())
    assert settings[flags[0].removeprefix("--")] in (True, "bfloat16")
    assert flags[0].removeprefix("--") in refused(command, capsys)


def test_full_grad_has_no_layers(command, tmp_path, capsys):
    command += ["--saliency_type", "FullGrad"]
    assert "give none of --mix_layers," in refused(command, capsys)
    command.remove("--mix_layers")
    assert "give none of --mix_layers," in refused([*command, "--include_first"], capsys)
    cam_map_generation.main(command)
    assert MapFolder(tmp_path / "maps").manifest["settings"]["layers"] == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--class_map", "x.json", "--target", "predicted"], "give either it or --target predicted"),
        (["--class_map", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_flags_that_say_nothing_together_are_refused(command, capsys, flags, message):
    assert message in refused([*command, *flags], capsys)


def test_multires_needs_mix_layers(command, capsys):
    command.remove("--mix_layers")
    assert "--multires keeps the layers of --mix_layers apart" in refused([*command, "--multires"], capsys)


def test_the_time_is_shared_out(command, capsys):
    cam_map_generation.main(command)
    printed = capsys.readouterr()
    parts = dict(part.split() for part in re.search("time: (.*)", printed.out)[1].split(", "))
    assert list(parts) == ["load", "forward", "backward", "projection", "write"]
    assert abs(sum(int(share.rstrip("%")) for share in parts.values()) - 100) <= 3
    assert "images/s, load" in printed.err


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
    assert "6 maps are uniform, as they were empty" in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(command, capsys):
    cam_map_generation.main(command)
    message = refused(replaced(command, "--target_dim", 14), capsys)
    assert "map_size is [28, 28] there and [14, 14] now" in message


def test_a_folder_of_something_else_is_refused(command, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "thesis.tex").touch()
    assert "is not empty and has no settings.json" in refused(command, capsys)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_as_output_is_one_line(command, tmp_path, capsys, below):
    (tmp_path / "file").touch()
    message = refused(replaced(command, "--output", tmp_path / "file" / below), capsys)
    assert "cannot be written" in message


def test_a_disk_that_fills_up_is_one_line(command, capsys, monkeypatch):
    def fail(file, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(SystemExit):
        cam_map_generation.main(command)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and "ant/0.npy cannot be written (No space left on device)" in said


def test_a_second_run_at_the_same_time_is_refused(command, tmp_path, capsys):
    """The first one's maps, and its hold, are left alone; when it is killed, the folder is free."""
    cam_map_generation.main(command)
    hold = f"with locked(Path({str(tmp_path / 'maps' / '.lock')!r}), ''): print(flush=True); time.sleep(60)"
    code = f"import time; from pathlib import Path; from misc.files import locked\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        assert "another run is making the maps in" in refused(command, capsys)
        assert (tmp_path / "maps" / ".lock").exists()
        first.kill()
    cam_map_generation.main(command)
    assert not (tmp_path / "maps" / ".lock").exists()


def test_a_layer_that_cannot_be_looked_at_leaves_no_folder(command, tmp_path, capsys):
    command.remove("--mix_layers")
    assert "layer 'fc' gives shape (1, 3)" in refused([*command, "--target_layer", "fc"], capsys)
    assert not (tmp_path / "maps").exists()


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


KWARGS = {"name": MODEL, "num_classes": 3, "split_idx": 2, "pretrained_cfg_overlay": {"input_size": [3, 64, 64]}}
WITHOUT_DATA = """
datasets:
  val: !import_call
    key: misc.datasets.ImageFolder
    init: {kwargs: {root: nowhere}}
test:
  test_data_loader:
    dataset_id: val
    sampler: {class_or_func: !import_get {key: torch.utils.data.SequentialSampler}}
    kwargs: {}
"""


@pytest.fixture
def config(tmp_path):
    """Write configs of a teacher, whose data set is not there; returns their paths."""

    def write(**kwargs: object) -> Path:
        path = tmp_path / "any.yaml"
        models = {"models": {"teacher_model": {"key": "timm_backbone", "kwargs": kwargs}}}
        path.write_text(json.dumps(models)[1:-1] + "\n" + WITHOUT_DATA)
        return path

    return write


def test_the_teacher_of_a_config_is_built_uncut_and_without_data(config, weights):
    found = teacher.teacher_from_config(config(**KWARGS, weights_path=str(weights)))
    assert (found.name, found.weights_path, found.model.num_classes) == (MODEL, str(weights), 3)
    assert teacher.input_format(found.model).size == (64, 64)
    state = teacher.teacher_by_name(MODEL, str(weights), 3).model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.model.state_dict().items())


def test_an_untrained_teacher_is_refused(config, weights):
    with pytest.raises(UserError, match=r"the teacher of .*any\.yaml is untrained"):
        teacher.teacher_from_config(config(**KWARGS))
    assert teacher.teacher_from_config(config(**KWARGS), str(weights)).weights_path == str(weights)


def test_a_config_without_a_teacher_is_refused(config):
    path = config(**KWARGS)
    path.write_text(path.read_text().replace("teacher_model", "model"))
    with pytest.raises(UserError, match=r"no models\.teacher_model"):
        teacher.teacher_from_config(path)


def run_alone(*command, folder) -> subprocess.CompletedProcess:
    """Run a command from another folder, without PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_mistake_exits_with_2_and_one_line(command, tmp_path):
    run = run_alone(sys.executable, SCRIPT, *replaced(command, "--input", "nowhere"), folder=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: no data set at ") and run.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npy", "packed"])
def test_ranks_share_the_images(command, tmp_path, form):
    """Packed, the second class is shared and the others are not."""
    command += ["--format", form, "--batch_size", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = run_alone(*torchrun, SCRIPT, *replaced(command, "--num_workers", 1), folder=tmp_path)
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "maps" / "manifest.json").read_text())
    assert manifest["num_maps"] == len(MapFolder(tmp_path / "maps").names) == 6
    assert len(modification_times(tmp_path / "maps")) == (6 if form == "npy" else 3)
