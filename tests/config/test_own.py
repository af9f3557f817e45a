"""config/own: from a checkpoint of timm's training script and photographs to a stream that is classified."""

import argparse
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.utils import CheckpointSaver

from main_classification_torchdistill import main
from misc.config.load import compose_config
from misc.deploy import edge_client
from misc.deploy.load import load_server
from misc.files import ROOT
from misc.training.run_folder import load_student
from saliency_maps.cam_prep import cam_map_generation
from scripts import export

WNIDS = ("n01443537", "n15075141")  # goldfish and toilet tissue, classes 1 and 999
MAPS = ["--saliency_type", "XGradCAM", "--eigen_smooth", "--mix_layers", "--patch_cam", "--target_dim", "28"]
SIZE = {"resnet10t": {"pretrained_cfg_overlay": {"input_size": [3, 64, 64]}}}


@pytest.fixture
def photos(tmp_path):
    """Eight training images in folders that mean nothing, and two validation images in folders named by wnid."""
    random = np.random.default_rng(0)
    folders = ["train/trip", "train/trip/day two", *(f"val/{wnid}" for wnid in WNIDS)]
    for folder, count in zip(folders, (4, 4, 1, 1), strict=True):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            photo = Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)
            photo.save(tmp_path / "photos" / folder / f"{number}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def checkpoint(tmp_path):
    model = timm.create_model("resnet10t")
    folder, arguments = str(tmp_path), argparse.Namespace(model="resnet10t")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CheckpointSaver(model, optimizer, arguments, checkpoint_dir=folder, recovery_dir=folder).save_checkpoint(
        0, metric=1.0
    )
    return tmp_path / "model_best.pth.tar"


@pytest.fixture
def own(photos, checkpoint):
    backbone = {"name": "resnet10t", "weights_path": str(checkpoint), **SIZE["resnet10t"]}
    settings = {"dataset_root": photos, "vars.backbone": json.dumps(backbone), "num_workers": 0, "batch_size": 4}
    settings["train.stage1.num_epochs"] = 1
    return [f"{key}={value}" for key, value in settings.items()]


def flags(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_the_whole_path(own, photos, checkpoint, tmp_path, capsys):
    paths = ["--weights_path", str(checkpoint), "--input", str(photos / "train"), "--output", str(tmp_path / "maps")]
    cam_map_generation.main(["--model", "resnet10t", "--target", "predicted", *MAPS, *paths, "--device", "cpu"])

    own = [*own, f"map_root={tmp_path / 'maps'}", "train.stage2.num_epochs=1"]
    command = ["--config", str(ROOT / "config/own/sg.yaml"), "--run_dir", str(tmp_path / "run"), *flags(own)]
    main([*command, "--device", "cpu", "--skip_ckpt"])
    capsys.readouterr()
    main([*command, "--device", "cpu", "--test_only"])
    assert "Test on 2 images" in capsys.readouterr().out

    export.main([*command, "-o", str(tmp_path / "edge")])
    edge = edge_client.EdgeEncoder(tmp_path / "edge")
    photo = photos / "val" / WNIDS[0] / "0.jpg"
    stream = edge.encode(photo)
    weights = tmp_path / "run" / "weights.safetensors"
    logits = load_server(compose_config(ROOT / "config/own/sg.yaml", own, mode="test"), weights).decode([stream])
    student, _ = load_student(tmp_path / "run", torch.device("cpu"))
    with torch.inference_mode():
        assert torch.allclose(logits, student.decode([stream]), atol=1e-5) and logits.std() > 1e-3
    assert edge.classes[1] == "goldfish"


def test_validation_folders_have_imagenets_labels(own):
    config = compose_config(ROOT / "config/own/phd.yaml", own, mode="test")
    assert [label for _, label in config.construct("datasets.val")] == [1, 999]


@pytest.mark.parametrize("name", ["phd", "hyperprior"])
def test_the_others_train(own, tmp_path, name):
    command = ["--config", str(ROOT / f"config/own/{name}.yaml"), "--run_dir", str(tmp_path / "run"), *flags(own)]
    main([*command, "--device", "cpu", "--skip_ckpt"])
    assert json.loads((tmp_path / "run" / "feature_variance.json").read_text())["images"] == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dataset_root=nowhere", "no data set at"),
        ("vars.backbone.name=resnet10", "timm has no model 'resnet10'; did you mean 'resnet10"),
        ("vars.backbone.name=resnet14t", "does not fit resnet14t: "),
        ("vars.backbone.weights_path=nowhere.pth", "no weights at nowhere.pth"),
        ("class_map=nowhere.yaml", "nowhere.yaml cannot be read"),
        ("models.student_model.kwargs.decoder=atuo", "decoder is 'atuo'; expected a decoder or 'auto'"),
    ],
)
def test_mistakes_are_one_line(own, tmp_path, capsys, setting, message):
    command = [
        "--config",
        str(ROOT / "config/own/phd.yaml"),
        "--run_dir",
        str(tmp_path / "run"),
        *flags([*own, setting]),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--device", "cpu", "--skip_ckpt"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and not (tmp_path / "run").exists()
