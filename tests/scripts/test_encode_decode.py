import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import model.classifier
import model.decoder
import model.encoder
from misc.config.load import compose_config
from misc.deploy import arguments
from misc.deploy.load import load_edge, load_server
from misc.deploy.results import ranking
from model.coding.bitstream import unpack
from scripts import decode, encode

RESNET = "config/quickstart/sg_resnet.yaml"
SWIN = "config/quickstart/sg_swin.yaml"
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"


@pytest.fixture(autouse=True)
def untouched_runs(monkeypatch, tmp_path):
    """No run of the config may take the place of the shipped weights."""
    monkeypatch.setattr(arguments, "default_run_dir", lambda config: tmp_path / "no run")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path)
    return path


def run_encode(tmp_path, *images, config=RESNET):
    encode.main(["--config", config, "--device", "cpu", "-o", str(tmp_path / "streams"), *map(str, images)])
    return [tmp_path / "streams" / f"{path.stem}.fsb" for path in images]


def run_decode(*streams, config=RESNET, more=()):
    decode.main(["--config", config, "--device", "cpu", *map(str, streams), *more])


def refused(capsys, program, *arguments, **options) -> str:
    """Runs a program that must fail with exit code 2; returns its one line of error."""
    with pytest.raises(SystemExit) as exit:
        program(*arguments, **options)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    return error


def test_stream_becomes_classes_and_a_feature(tmp_path, image, capsys):
    names = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero"]
    for name in names:
        (tmp_path / "digits" / "val" / name).mkdir(parents=True)
    (stream,) = run_encode(tmp_path, image)
    assert capsys.readouterr().out == f"{image} -> {stream}  {stream.stat().st_size} bytes\n"
    options = ["--feature", str(tmp_path / "features"), "--set", f"dataset_root={tmp_path / 'digits'}"]
    run_decode(stream, more=options)
    line = capsys.readouterr().out
    server = load_server(compose_config(RESNET, mode="test"), WEIGHTS).to(memory_format=torch.channels_last)
    h_hat = server.features([stream.read_bytes()])[0]
    assert np.array_equal(np.load(tmp_path / "features" / "photo.npy"), h_hat.numpy())
    assert line == f"{stream}: {ranking(server.logits(h_hat[None])[0], names)}\n"


@pytest.mark.parametrize(("mode", "size"), [("L", (64, 64)), ("RGBA", (100, 37)), ("P", (8, 200)), ("1", (1, 1))])
def test_any_mode_and_size_passes(tmp_path, mode, size):
    path = tmp_path / "odd.png"
    Image.new(mode, size).save(path)
    (stream,) = run_encode(tmp_path, path)
    assert unpack(stream.read_bytes()).size == (8, 8)  # resized and cropped to 64 x 64, as in the config's test
    run_decode(stream)


def test_each_half_is_built_without_the_other(tmp_path, image, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("a part of the other half was built")

    with monkeypatch.context() as edge:
        edge.setattr(model.decoder.ResNetDecoder, "__init__", forbidden)
        edge.setattr(model.classifier.timm, "create_model", forbidden)
        (stream,) = run_encode(tmp_path, image)
    with monkeypatch.context() as server:
        server.setattr(model.encoder.ResidualEncoder, "__init__", forbidden)
        run_decode(stream)


def test_fingerprints_of_both_halves_agree_with_the_shipped_weights():
    config = compose_config(RESNET, mode="test")
    assert load_edge(config, WEIGHTS).fingerprint() == load_server(config, WEIGHTS).fingerprint


def test_stream_of_another_student_is_refused(tmp_path, image, capsys):
    (stream,) = run_encode(tmp_path, image, config=SWIN)
    run_decode(stream, config=SWIN)
    assert "another encoder or entropy model" in refused(capsys, run_decode, stream)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[:-1], "truncated or damaged"),
        (lambda packed: packed[:20] + b"!" + packed[21:], "truncated or damaged"),
        (lambda packed: b"\xff\xd8\xff" + packed, "not a FrankenSplit stream"),
        (lambda packed: b"", "not a FrankenSplit stream"),
    ],
)
def test_streams_that_are_none_are_named(tmp_path, image, capsys, change, message):
    (stream,) = run_encode(tmp_path, image)
    stream.write_bytes(change(stream.read_bytes()))
    error = refused(capsys, run_decode, stream)
    assert error.startswith(f"error: {stream}: ") and message in error


def test_damaged_weights_are_one_line(tmp_path, image, capsys):
    (stream,) = run_encode(tmp_path, image)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.safetensors").write_bytes(Path(WEIGHTS).read_bytes()[:-10])
    more = ["--run_dir", str(tmp_path / "run")]
    assert "weights.safetensors is not a safetensors file" in refused(capsys, run_decode, stream, more=more)


def test_a_size_that_the_server_does_not_take_is_one_line(tmp_path, capsys):
    edge = load_edge(compose_config(SWIN, mode="test"), WEIGHTS.replace("resnet", "swin"))
    stream = tmp_path / "wide.fsb"
    stream.write_bytes(edge.encode(torch.zeros(1, 3, 64, 96))[0])
    assert "does not take" in refused(capsys, run_decode, stream, config=SWIN)


def test_files_that_cannot_be_had_are_named(tmp_path, image, capsys):
    assert "no image at" in refused(capsys, run_encode, tmp_path, tmp_path / "none.png")
    assert "cannot read" in refused(capsys, run_decode, tmp_path / "none.fsb")
    image.write_bytes(image.read_bytes()[:100])
    assert "truncated or not an image" in refused(capsys, run_encode, tmp_path, image)
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / image.name
    twin.write_bytes(b"")
    assert "would be written to" in refused(capsys, run_encode, tmp_path, image, twin)


def test_a_run_that_is_not_there_does_not_give_way_to_shipped_weights(tmp_path, image, capsys):
    arguments = ["--config", RESNET, "-o", str(tmp_path), "--run_dir", str(tmp_path / "no run"), str(image)]
    assert "no weights in" in refused(capsys, encode.main, arguments)
    assert "no weights in" in refused(capsys, decode.main, [*arguments[:2], *arguments[4:]])


def test_config_without_a_student_is_refused(tmp_path, image, capsys):
    teacher = "config/quickstart/teacher_resnet.yaml"
    assert "no split classifier" in refused(capsys, run_encode, tmp_path, image, config=teacher)


@pytest.mark.parametrize("script", ["encode", "decode"])
def test_neither_training_nor_scikit_learn_is_loaded(script):
    program = f"import sys, scripts.{script}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "misc.deploy.load" in loaded
    assert not {"misc.training.loop", "misc.evaluation.accuracy", "sklearn"} & set(loaded)
