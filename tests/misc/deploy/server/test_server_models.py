import json
from pathlib import Path

import pytest
import torch

from misc.config.load import compose_config
from misc.deploy.server import models
from misc.deploy.server.models import ModelInfo, check_distinct, load_model, with_edges
from misc.errors import UserError

CONFIG = "config/quickstart/sg_resnet.yaml"
WEIGHTS = Path("resources/weights/quickstart/sg_resnet.safetensors")


def info_of(fingerprint, config="a.yaml"):
    return ModelInfo(fingerprint, config, 10, None, None, [])


@pytest.fixture
def exported(tmp_path):
    """Write a folder as an exporter does; its content can be given."""

    def export(name="edge", encoder=b"onnx", **content):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "edge.json").write_text(json.dumps({"format": 1, "fingerprint": "0a1b2c3d"} | content))
        if encoder is not None:
            (folder / "encoder.onnx").write_bytes(encoder)
        return folder

    return export


def test_a_model_is_loaded_warm_and_described(tmp_path):
    for number in range(10):
        folder = tmp_path / "val" / str(number)
        folder.mkdir(parents=True)
        for name in ("notes.txt", f"{number}b.PNG", f"{number}a.jpg"):
            (folder / name).touch()
    config = compose_config(CONFIG, [f"dataset_root={tmp_path}"], mode="test")
    info, half = load_model(config, CONFIG, WEIGHTS, torch.device("cpu"), with_examples=True)
    assert info.fingerprint == half.fingerprint.hex() and (info.config, info.num_classes) == (CONFIG, 10)
    assert info.class_names == list("0123456789") and info.name_of(3) == "3" and info.edge is None
    assert info.examples == [tmp_path / "val" / str(number) / f"{number}a.jpg" for number in range(8)]
    assert load_model(config, CONFIG, WEIGHTS, torch.device("cpu")).info.examples == []
    assert not any(name.startswith("encoder") for name in half.state_dict())


def test_examples_are_spread_over_many_classes(tmp_path):
    for number in range(33):
        folder = tmp_path / "val" / f"{number:02}"
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    examples = models._examples(compose_config(CONFIG, [f"dataset_root={tmp_path}"], mode="test"))
    assert [path.parent.name for path in examples] == ["00", "04", "08", "12", "16", "20", "24", "28"]


def test_a_data_set_that_is_not_there_gives_neither_names_nor_examples(tmp_path):
    config = compose_config(CONFIG, [f"dataset_root={tmp_path / 'none'}"], mode="test")
    info = load_model(config, CONFIG, WEIGHTS, torch.device("cpu"), with_examples=True).info
    assert info.class_names is None and info.name_of(3) == "class 3" and info.examples == []


def test_models_that_cannot_be_told_apart_are_refused():
    check_distinct([info_of("0a1b2c3d"), info_of("ffffffff")])
    with pytest.raises(UserError, match=r"a\.yaml and b\.yaml have the same fingerprint 0a1b2c3d"):
        check_distinct([info_of("0a1b2c3d"), info_of("ffffffff"), info_of("0a1b2c3d", "b.yaml")])


def test_an_exported_encoder_goes_to_its_model(exported):
    folder = exported()
    infos = with_edges([info_of("ffffffff"), info_of("0a1b2c3d")], [folder])
    assert [info.edge for info in infos] == [None, folder]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fingerprint": "12345678"}, "of model 12345678, which is not served"),
        ({"format": 3}, "of format 3, not 1 or 2"),
        ({"encoder": None}, r"has no encoder\.onnx"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(exported, content, message):
    with pytest.raises(UserError, match=message):
        with_edges([info_of("0a1b2c3d")], [exported(**content)])


def test_a_file_that_is_no_export_is_refused(exported, tmp_path):
    with pytest.raises(UserError, match=r"has no edge\.json"):
        with_edges([info_of("0a1b2c3d")], [tmp_path])
    folder = exported()
    for content in ("{", "[]", "{}"):
        (folder / "edge.json").write_text(content)
        with pytest.raises(UserError, match="cannot be read"):
            with_edges([info_of("0a1b2c3d")], [folder])


def test_two_exports_of_a_model_are_refused(exported):
    with pytest.raises(UserError, match="of one model"):
        with_edges([info_of("0a1b2c3d")], [exported("one"), exported("two")])
