"""Codecs: whole files without the source's metadata, and real strings."""

import io

import numpy as np
import PIL.features
import pytest
import torch
from compressai.models import CompressionModel, FactorizedPrior, MeanScaleHyperprior
from PIL import Image
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import pil_to_tensor

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from misc.evaluation import codecs
from misc.evaluation.codecs import CODECS, CodedImages, available_settings, from_strings, to_file, to_strings

FORMATS = [name for name in ("JPEG", "WebP", "AVIF") if name != "AVIF" or PIL.features.check("avif")]
SETTINGS = available_settings(FORMATS)


@pytest.fixture
def photo() -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 90, np.uint8), np.tile(ramp[::-1], (48, 1))], 2)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.codec} {setting.quality}")
def test_a_round_trip_keeps_size_and_mode_and_roughly_the_picture(photo, setting):
    _, decoded = setting.round_trip(photo)
    assert (decoded.size, decoded.mode) == (photo.size, "RGB")
    assert np.abs(np.asarray(decoded, float) - np.asarray(photo, float)).mean() < 40


@pytest.mark.parametrize("name", FORMATS)
def test_better_quality_is_larger(photo, name):
    settings = available_settings([name])
    assert [setting.quality for setting in settings] == sorted({setting.quality for setting in settings})
    assert settings[0].round_trip(photo).num_bytes < settings[-1].round_trip(photo).num_bytes


@pytest.mark.parametrize("setting", SETTINGS[::4], ids=lambda setting: f"{setting.codec} {setting.quality}")
def test_the_bytes_are_those_of_the_whole_file(photo, setting, monkeypatch):
    files = []

    def kept(file: io.BytesIO) -> Image.Image:
        files.append(file.getvalue())
        return photo

    with monkeypatch.context() as patch:
        patch.setattr(codecs.Image, "open", kept)
        num_bytes = setting.round_trip(photo).num_bytes
    assert num_bytes == len(files[0])
    with Image.open(io.BytesIO(files[0])) as image:
        assert image.format == setting.codec.upper()
        if image.format == "JPEG":
            assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]  # 4:2:0


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_of_the_source_is_not_counted(photo, name):
    plain = to_file(name, {"quality": 20}, photo)
    photo.info = {"comment": b"x" * 500, "icc_profile": b"x" * 500, "exif": b"Exif\x00\x00" + b"x" * 500}
    assert to_file(name, {"quality": 20}, photo).num_bytes == plain.num_bytes
    assert photo.info


def small(model: CompressionModel) -> CompressionModel:
    """Return an untrained model, ready to code, whose images are not all black."""
    torch.manual_seed(0)
    for parameter in model.g_s[-1].parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.2)
    model.eval().update()
    return model


@pytest.mark.parametrize("model", [FactorizedPrior, MeanScaleHyperprior])
@pytest.mark.parametrize("size", [(64, 64), (70, 45), (9, 130)])
def test_a_learned_codec_goes_through_its_strings(model, size):
    model = small(model(8, 12))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    num_bytes, content = to_strings(model, image)
    decoded = from_strings(model, content)
    factor = model.downsampling_factor
    width, height = (-(-side // factor) * factor for side in size)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    margins = (left, width - size[0] - left, top, height - size[1] - top)
    x = pad(pil_to_tensor(image)[None] / 255, margins, mode="replicate")
    with torch.inference_mode():
        assert num_bytes == sum(len(strings[0]) for strings in model.compress(x)["strings"])
        x_hat = model(x)["x_hat"][0, :, top : top + size[1], left : left + size[0]]
    expected = x_hat.clamp(0, 1).mul(255).movedim(0, 2).numpy()
    assert decoded.size == size and decoded.mode == "RGB"
    assert expected.std() > 10
    assert np.abs(np.asarray(decoded, float) - expected).max() <= 1.01


def test_pretrained_models_are_loaded_by_quality_and_ready_to_code(photo, monkeypatch):
    asked = []

    def load(quality: int, pretrained: bool, progress: bool) -> CompressionModel:
        asked.append((quality, pretrained))
        return FactorizedPrior(4, 6)

    monkeypatch.setitem(codecs.image_models, "bmshj2018-factorized", load)
    settings = available_settings(["bmshj2018-factorized"])
    assert asked == [(setting.quality, True) for setting in settings]
    assert settings[0].round_trip(photo).image.size == photo.size


def test_codecs_that_cannot_be_used_are_skipped_with_a_line_each(monkeypatch, capsys):
    def offline(quality: int, pretrained: bool, progress: bool) -> None:
        raise OSError("no network")

    Image.init()
    monkeypatch.delitem(Image.SAVE, "AVIF", raising=False)
    monkeypatch.setitem(codecs.image_models, "mbt2018-mean", offline)
    settings = available_settings(["AVIF", "JPEG", "mbt2018-mean"])
    assert {setting.codec for setting in settings} == {"JPEG"}
    avif, mean_scale = capsys.readouterr().out.splitlines()
    assert avif.startswith("AVIF is skipped: Pillow ") and avif.endswith("built without it; 11.3 and later have it")
    assert mean_scale == "mbt2018-mean is skipped: its weights cannot be loaded (no network)"
    with pytest.raises(UserError, match="none of the codecs can be used here: mbt2018-mean, AVIF"):
        available_settings(["mbt2018-mean", "AVIF"])


def test_an_unknown_codec_is_named():
    assert set(FORMATS) < set(CODECS) <= {"JPEG", "WebP", "AVIF", *codecs.image_models}
    with pytest.raises(UserError, match=r"no codec 'Webp'; did you mean 'WebP'\?"):
        available_settings(["Webp"])


def test_an_item_holds_every_setting_of_an_image(photo, tmp_path):
    (tmp_path / "ant").mkdir()
    photo.save(tmp_path / "ant" / "0.png")
    (tmp_path / "classes.yaml").write_text("ant: 5")
    x, label, sizes = CodedImages(ImageFolder(tmp_path, pil_to_tensor), SETTINGS)[0]
    assert x.shape == (len(SETTINGS), 3, 48, 64)
    assert label == 0
    of_classifier = ImageFolder(tmp_path, pil_to_tensor)
    of_classifier.set_labels(8, tmp_path / "classes.yaml")
    assert CodedImages(of_classifier, SETTINGS)[0][1] == 5
    coded = [setting.round_trip(photo) for setting in SETTINGS]
    assert sizes.tolist() == [one.num_bytes for one in coded]
    assert torch.equal(x[-1], pil_to_tensor(coded[-1].image))
