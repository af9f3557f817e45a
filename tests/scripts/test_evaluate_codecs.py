"""The reference curves on a small data set and a random teacher."""

import pytest
import torch
from compressai.models import FactorizedPrior

from misc.config.entries import images_of_test
from misc.datasets.digits import write_data_set
from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from misc.evaluation import codecs
from misc.evaluation.codec_table import read_points
from misc.evaluation.codecs import available_settings
from scripts.evaluate_codecs import main

CONFIG = """
datasets:
  val: !import_call
    key: misc.datasets.ImageFolder
    init:
      kwargs:
        root: {root}
        transform: !import_call {{key: torchvision.transforms.ToTensor}}
models:
  {name}:
    key: timm_classifier
    kwargs: {{name: resnet18, layers: [1, 1, 1, 1], channels: [8, 16, 24, 32], num_classes: 10}}
test:
  test_data_loader:
    dataset_id: val
    sampler: {{class_or_func: !import_get {{key: torch.utils.data.SequentialSampler}}}}
    kwargs: {{batch_size: 10}}
"""


@pytest.fixture
def config(tmp_path):
    """Write a config of twelve images and a model with the given name."""

    def write(name: str = "teacher_model") -> str:
        write_data_set(tmp_path / "digits", num_train=10, num_val=12)
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG.format(root=tmp_path / "digits" / "val", name=name))
        return str(path)

    return write


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_codec_and_quality_gets_a_row(config, tmp_path, capsys, num_workers):
    torch.manual_seed(0)
    output = tmp_path / "codecs.csv"
    arguments = ["--config", config(), "--output", str(output), "--device", "cpu", "--num_workers", str(num_workers)]
    main([*arguments, "--codecs", "WebP", "JPEG"])
    points = read_points(output)
    settings = available_settings(["WebP", "JPEG"])
    assert [(point.codec, point.quality) for point in points] == [setting[:2] for setting in settings]
    for point in points:
        assert point.images == 12
        assert point.kb_per_image == pytest.approx(point.bytes_per_image / 1024, abs=1e-6)
        assert point.bpp == pytest.approx(8 * point.bytes_per_image / 64**2, abs=1e-6)
        assert 0 <= point.top1 <= point.top5 <= 100 and 0 <= point.teacher_top1 <= 100
        assert point.encode_ms > 0 and point.decode_ms > 0
    printed = capsys.readouterr().out
    assert "  JPEG  " in printed and "  WebP  " in printed
    stored = [path.stat().st_size for path in (tmp_path / "digits" / "val").rglob("*.png")]
    assert f"on 12 images as they are, files of {sum(stored) / 12:,.0f} bytes on average: top-1" in printed
    assert str(output) in printed


def test_the_figures_are_the_means_over_the_images(config, tmp_path):
    output = tmp_path / "codecs.csv"
    main(["--config", config(), "--output", str(output), "--device", "cpu", "--num_workers", "0", "--codecs", "JPEG"])
    images = ImageFolder(tmp_path / "digits" / "val")
    for point, setting in zip(read_points(output), available_settings(["JPEG"]), strict=True):
        sizes = [setting.round_trip(image).num_bytes for image, _ in images]
        assert point.bytes_per_image == pytest.approx(sum(sizes) / 12, abs=1e-6)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_learned_codec_gets_its_rows_and_one_that_cannot_be_loaded_a_line(
    config, tmp_path, capsys, monkeypatch, num_workers
):
    def load(quality: int, pretrained: bool, progress: bool) -> FactorizedPrior:
        return FactorizedPrior(4, 6)

    def offline(quality: int, pretrained: bool, progress: bool) -> None:
        raise OSError("no network")

    unavailable = ["mbt2018-mean", "cheng2020-anchor"]
    for name in unavailable:
        monkeypatch.setitem(codecs.image_models, name, offline)
    monkeypatch.setitem(codecs.image_models, "bmshj2018-factorized", load)
    output = tmp_path / "codecs.csv"
    arguments = ["--config", config(), "--output", str(output), "--device", "cpu", "--num_workers", str(num_workers)]
    main([*arguments, "--codecs", *unavailable, "bmshj2018-factorized"])
    points = read_points(output)
    assert [(point.codec, point.quality) for point in points] == [
        ("bmshj2018-factorized", quality) for quality in (1, 2, 3, 4, 6, 8)
    ]
    assert all(point.bytes_per_image > 0 for point in points)
    printed = capsys.readouterr().out.splitlines()
    for name in unavailable:
        assert f"{name} is skipped: its weights cannot be loaded (no network)" in printed


def test_an_unknown_codec_is_refused(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--config", config(), "--output", str(tmp_path / "codecs.csv"), "--device", "cpu", "--codecs", "avif"])
    assert stop.value.code == 2
    assert "no codec 'avif'" in capsys.readouterr().err


def test_a_config_without_a_teacher_is_refused(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--config", config("model"), "--output", str(tmp_path / "codecs.csv"), "--device", "cpu"])
    assert stop.value.code == 2
    assert "names no teacher_model" in capsys.readouterr().err
    assert not (tmp_path / "codecs.csv").exists()


def test_images_without_a_transform_are_refused(tmp_path):
    write_data_set(tmp_path, num_train=10, num_val=10)
    config = {"datasets": {"val": ImageFolder(tmp_path / "val")}, "test": {"test_data_loader": {"dataset_id": "val"}}}
    with pytest.raises(UserError, match="an ImageFolder with a transform"):
        images_of_test(config)
