"""The reference curves on a small data set and a random teacher."""

import pytest
import torch

from misc.codecs import CODECS, SETTINGS, read_points
from misc.digits_on_photographs import write_data_set
from misc.errors import UserError
from misc.image_folder import ImageFolder
from scripts.evaluate_codecs import images_of_test, main

CONFIG = """
datasets:
  val: !import_call
    key: misc.image_folder.ImageFolder
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
    """Writes a config with a model of a name, on twelve images."""

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
    main(["--config", config(), "--output", str(output), "--device", "cpu", "--num_workers", str(num_workers)])
    points = read_points(output)
    assert [(point.codec, point.quality) for point in points] == [(codec.name, quality) for codec, quality in SETTINGS]
    for point in points:
        assert point.images == 12
        assert point.kb_per_image == pytest.approx(point.bytes_per_image / 1024, abs=1e-6)
        assert point.bpp == pytest.approx(8 * point.bytes_per_image / 64**2, abs=1e-6)
        assert 0 <= point.top1 <= point.top5 <= 100
    printed = capsys.readouterr().out
    assert all(codec.name in printed for codec in CODECS)
    assert str(output) in printed


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
