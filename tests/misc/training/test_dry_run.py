"""Dry runs of one config of each family, at full image size, with shallow backbones except in slow tests."""

import pytest

from main_classification_torchdistill import main
from misc.datasets.image_folder import ImageFolder
from misc.files import ROOT
from misc.training.dry_run import shrink, without_weights
from misc.training.run_folder import default_run_dir
from saliency_maps.cam_loaders import ImageFolderWithMaps

SWIN = "vars.backbone={pretrained: true, name: swin_tiny_patch4_window7_224, depths: [1, 1, 1, 1]}"
RESNET = "vars.backbone={pretrained: true, name: resnet50, layers: [1, 1, 1, 1]}"
ENTROPIC_STUDENT = "vars.backbone={pretrained: true, name: resnet50, layers: [1, 1, 1, 1], split_idx: 1}"
CONVNEXT = "vars.backbone={pretrained: true, name: convnext_base, depths: [1, 1, 1, 1], dims: [128, 256, 64, 64]}"
VIT = "vars.backbone={pretrained: true, name: deit_small_patch16_224, depth: 4, split_idx: 3}"
NEW_CLASSIFIER = (
    "models.model.kwargs.backbone={name: swin_tiny_patch4_window7_224, depths: [1, 1, 1, 1], new_classifier: 37}"
)


def printed_by(config: str, capsys, *overrides: str) -> str:
    flat = [part for override in overrides for part in ("--set", override)]
    main(["--config", str(ROOT / "config" / config), "--dry_run", "--device", "cpu", *flat])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "override", "wanted"),
    [
        ("main_experiments/phd/lmbda_0.032.yaml", SWIN, ["latent y   48x28x28", "target h   196x384"]),
        ("main_experiments/sg_15_epochs/lmbda_0.015.yaml", SWIN, ["stage 1", "stage 2", "141,696", "2,058,974"]),
        pytest.param("cam-variants/gradcam-withbackprop/lmbda_0.016.yaml", SWIN, ["stage 2"], marks=pytest.mark.slow),
        pytest.param("cam-variants/published_encoder/lmbda_0.032.yaml", SWIN, ["141,696"], marks=pytest.mark.slow),
        ("quickstart/reuse_swin_from_resnet.yaml", "lmbda=0.1", ["target h   16x128"]),
        ("cam-variants/multi_resolution/lmbda_0.032.yaml", SWIN, ["deep_distortion"]),
        ("limitations-direct-optimization/ce/lmbda_0.008.yaml", SWIN, ["cross_entropy", "rate"]),
        pytest.param(
            "limitations-direct-optimization/kd/lmbda_0.yaml", SWIN, ["distillation", "rate 0 "], marks=pytest.mark.slow
        ),
        ("hyperprior/checkerboard_lmbda_0.032.yaml", SWIN, ["355,840 of them networks that the device runs too"]),
        ("backbones/convnext_base.yaml", CONVNEXT, ["target h   784x256"]),
        ("backbones/resnet50.yaml", RESNET, ["target h   784x512"]),
        ("backbones/deit_small_patch16_224.yaml", VIT, ["target h   197x384"]),
        ("finetune/decoder_and_tail.yaml", SWIN, ["distillation"]),
        pytest.param("finetune/encoder_for_resnet50.yaml", RESNET, ["target h   784x512"], marks=pytest.mark.slow),
        ("finetune/new_classifier.yaml", NEW_CLASSIFIER, ["cross_entropy"]),
        ("baselines/entropic_student/lmbda_0.32.yaml", ENTROPIC_STUDENT, ["138,672", "24x55x55, 72,600", "layer4"]),
        ("quickstart/sg_resnet.yaml", "lmbda=0.1", ["target h   64x64", "stage 2"]),
        ("quickstart/teacher_swin.yaml", "train.stage1.num_epochs=2", ["stage 3 epoch 1/1"]),
    ],
)
def test_a_config_of_each_family_is_sound(config, override, wanted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_dir = default_run_dir(ROOT / "config" / config)
    was_there = run_dir.exists()
    printed = printed_by(config, capsys, override)
    for text in [*wanted, "Sound."]:
        assert text in printed
    assert not list(tmp_path.iterdir()) and run_dir.exists() == was_there


@pytest.mark.slow
def test_the_main_config_has_the_papers_numbers(capsys):
    printed = printed_by("main_experiments/sg/lmbda_0.032.yaml", capsys)
    for number in (
        "141,696",
        "2,058,974",
        "48x28x28, 37,632 symbols",
        "196x384",
        "69,633,472",
        "71,125,762",
        "530.5 M",
    ):
        assert number in printed


def test_a_mistake_is_found_without_data_or_weights(capsys):
    with pytest.raises(SystemExit):
        printed_by(
            "quickstart/phd_resnet.yaml", capsys, "models.student_model.kwargs.decoder.init.kwargs.out_channels=7"
        )
    assert "decoder gives h_hat of (7, 8, 8)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.teacher_model.kwargs.weights_path=null", "untrained"),
        ("models.student_model.kwargs.trained_parts={weights_path: x, modles: [encoder]}", "did you mean 'modules'"),
        ("models.student_model.kwargs.backbone.new_clasifier=3", "new_clasifier"),
    ],
)
def test_what_would_fail_with_weights_fails_without_them(override, message, capsys):
    with pytest.raises(SystemExit):
        printed_by("quickstart/phd_resnet.yaml", capsys, override)
    assert message in capsys.readouterr().err


def test_two_purposes_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(["--config", str(ROOT / "config/quickstart/phd_resnet.yaml"), "--dry_run", "--test_only"])
    assert "drop --test_only" in capsys.readouterr().err


def test_entries_lose_their_weights_and_are_not_changed():
    backbone = {"name": "resnet18", "pretrained": True}
    kwargs = {"encoder": "g_a", "backbone": backbone, "trained_parts": {"modules": ["encoder"]}}
    entry = {"key": "split_classifier", "src_ckpt": "w.pt", "kwargs": kwargs}
    bare = without_weights(entry)
    assert bare == {"key": "split_classifier", "kwargs": {"encoder": "g_a", "backbone": {"name": "resnet18"}}}
    assert set(entry) == {"key", "src_ckpt", "kwargs"} and len(kwargs) == 3 and len(backbone) == 2
    assert without_weights({"key": "timm", "kwargs": {"weights_path": "w.pt"}}) == {"key": "timm", "kwargs": {}}


def test_only_a_data_set_with_maps_gets_random_maps():
    loader = {"dataset_id": "train", "kwargs": {"batch_size": 64}}
    config = {
        "datasets": {"train": ImageFolderWithMaps, "val": ImageFolder},
        "train": {"stage1": {"num_epochs": 9, "train_data_loader": loader}},
        "test": {"test_data_loader": {"dataset_id": "val", "kwargs": {}}},
    }
    shrink(config, (3, 8, 8), num_classes=4)
    assert set(config["datasets"]["train"][0][1]) == {"label", "saliency"}
    assert isinstance(config["datasets"]["val"][0][1], int)
    assert config["train"]["stage1"]["num_epochs"] == 1 and loader["kwargs"] == {"batch_size": 2}
