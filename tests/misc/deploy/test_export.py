import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from misc.config import compose_config, image_transform
from misc.deploy import check_export, edge_client, edge_directory, export, load_edge
from misc.deploy.check_export import check_streams
from misc.deploy.edge_client import EdgeEncoder
from misc.deploy.quantize import quantized
from misc.deploy.sample_images import Samples, generated_samples, samples_of
from misc.errors import UserError
from model import entropy
from model.coding.bitstream import unpack
from model.coding.channel import Call
from model.encoder import ResidualEncoder
from model.halves import EdgeHalf
from scripts import encode
from scripts.export import main
from tests.golden.make_edges import FOLDER, PRIORS, TRANSFORM, edge_of

CONFIG = "config/quickstart/sg_resnet.yaml"
IMAGES = 1000
FILES = ["encoder.onnx", "edge.json", "edge_client.py", "requirements-edge.txt"]


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A data set that is not on disk, and few images."""
    monkeypatch.setattr(export, "CHECKED", 5)
    return ["--set", f"dataset_root={tmp_path / 'none'}"]


def test_an_export_encodes_as_the_model_does(tmp_path, no_data, capsys):
    main(["--config", CONFIG, "-o", str(tmp_path / "edge"), *no_data])
    assert {path.name for path in (tmp_path / "edge").iterdir()} == set(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["edge"]
    out = capsys.readouterr().out
    assert "5 generated images: all streams equal those of scripts/encode.py" in out
    fingerprint = EdgeEncoder(tmp_path / "edge").fingerprint
    assert f"float32 encoder of {(tmp_path / 'edge' / 'encoder.onnx').stat().st_size:,} bytes" in out
    assert f"fingerprint {fingerprint}" in out

    paths = write_images(tmp_path / "images", 12)
    encode.main(["--config", CONFIG, "-o", str(tmp_path / "expected"), *map(str, paths)])
    edge_client.main(["encode", str(tmp_path / "edge"), *map(str, paths), "-o", str(tmp_path / "got")])
    assert streams_of(tmp_path / "got") == streams_of(tmp_path / "expected")


def test_a_student_of_another_backbone_is_refused(tmp_path, no_data, capsys):
    weights = tmp_path / "other.safetensors"
    facts = {"facts": json.dumps({"backbone": "resnet34"})}
    save_file(load_file("resources/weights/quickstart/sg_resnet.safetensors"), weights, facts)
    with pytest.raises(SystemExit):
        main(["--config", CONFIG, "--weights", str(weights), "-o", str(tmp_path / "edge"), *no_data])
    line = capsys.readouterr().err
    assert "was trained for the backbone 'resnet34', the config's is 'resnet18'" in line
    assert not (tmp_path / "edge").exists()


def test_an_int8_export_keeps_the_fingerprint_and_tells_the_difference(tmp_path, no_data, capsys, monkeypatch):
    monkeypatch.setattr(export, "CALIBRATED", 4)
    write_images(tmp_path / "photos" / "deep", 6)
    images = ["--calibration", str(tmp_path / "photos")]
    main(["--config", CONFIG, "-o", str(tmp_path / "edge"), "--int8", *images, *no_data])
    edge = json.loads((tmp_path / "edge" / "edge.json").read_text())
    out = capsys.readouterr().out
    assert edge["precision"] == "int8" and f"fingerprint {edge['fingerprint']}" in out
    assert f"calibrated on 4 images of {tmp_path / 'photos'}" in out
    assert "of the symbols differ from float32's" in out and "top-1 not measured: the images have no labels" in out
    operators = {node.op_type for node in onnx.load(tmp_path / "edge" / "encoder.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert EdgeEncoder(tmp_path / "edge").encode(Image.new("RGB", (80, 90)))[2:6].hex() == edge["fingerprint"]


def test_a_float_encoder_that_differs_is_not_exported(tmp_path, no_data, monkeypatch):
    true_graph = export.onnx_graph

    def wrong(*args):
        model = true_graph(*args)
        bias = next(each for each in model.graph.initializer if each.dims == [48])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 9, bias.name))
        return model

    monkeypatch.setattr(export, "onnx_graph", wrong)
    with pytest.raises(SystemExit) as exit_:
        main(["--config", CONFIG, "-o", str(tmp_path / "edge"), *no_data])
    assert exit_.value.code == 2 and not list(tmp_path.iterdir())


def test_mistakes_are_one_line(tmp_path, no_data, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    for args, message in [
        (["-o", str(tmp_path / "full")], "holds other files, notes.txt among them"),
        (["-o", str(tmp_path / "full" / "notes.txt")], "cannot be written"),
        (["-o", str(tmp_path / "a"), "--weights", "none.safetensors"], "no weights at none.safetensors"),
        (["-o", str(tmp_path / "a"), "--int8", "--calibration", str(tmp_path / "full")], "no images below"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            main(["--config", CONFIG, *args, *no_data])
        error = capsys.readouterr().err.strip().splitlines()
        assert exit_.value.code == 2 and len(error) == 1 and message in error[0]


def test_a_prior_without_a_graph_is_refused(tmp_path, no_data):
    weights = write_weights(tmp_path, "JointAutoregressive")
    config = ["--set", "models.student_model.kwargs.entropy_model.key=model.entropy.JointAutoregressive"]
    with pytest.raises(SystemExit):
        main(["--config", CONFIG, "--weights", str(weights), "-o", str(tmp_path / "edge"), *config, *no_data])
    assert not (tmp_path / "edge").exists()


def test_generated_images_are_always_the_same_and_samples_are_spaced(tmp_path):
    first, second = (generated_samples(3).images for _ in range(2))
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second] and len({a.size for a in first}) > 1
    write_images(tmp_path / "images", 7)
    assert [path.stem for path in samples_of(tmp_path).some(3).images] == ["0000", "0002", "0004"]
    assert len(samples_of(tmp_path).some(9).images) == 7
    with pytest.raises(UserError, match="no images below"):
        samples_of(tmp_path / "none")


class OneHigher(EdgeEncoder):
    """A client whose first symbol is one higher than the model's."""

    model: EdgeHalf

    def symbols(self, x, level=None):
        size, [(part, _, indexes)] = super().symbols(x, level)
        with torch.no_grad():
            (call,) = self.model.entropy_model.recorder()(self.model.encoder(torch.from_numpy(x)[None]))
        symbols = call.symbols.int().flatten().numpy()
        symbols[0] += 1
        return size, [(part, symbols, indexes)]


@pytest.mark.parametrize("distance, is_accepted", [(1e-4, True), (1e-2, False)])
def test_streams_may_differ_where_a_number_is_a_half(distance, is_accepted):
    client = OneHigher(FOLDER / "FactorizedPrior")
    client.model = edge = edge_of("FactorizedPrior")
    (image,) = generated_samples(1).images
    with torch.no_grad():
        (call,) = edge.entropy_model.recorder()(edge.encoder(TRANSFORM(image)[None]))
        first = call.values.flatten()[0]
        edge.entropy_model.codec.entropy_bottleneck.quantiles[0, 0, 1] += first - (first.round() + 0.5 - distance)
    samples = Samples("images", [image], None)
    if is_accepted:
        checked = check_streams(edge, TRANSFORM, client, samples)
        assert checked == (1, 1) and "in 1, a number is a tie" in checked.text("images")
    else:
        with pytest.raises(UserError, match="not the model: of images, number 0 differs from byte"):
            check_streams(edge, TRANSFORM, client, samples)


@pytest.mark.parametrize("value, is_accepted", [(2.5, True), (2.5 + 2**-16, True), (2.4, False)])
def test_a_tie_may_be_exact(value, is_accepted, monkeypatch):
    """The model's half is rounded to even, 2; the client has 3."""
    edge, client = edge_of("FactorizedPrior"), EdgeEncoder(FOLDER / "FactorizedPrior")
    x = torch.zeros(1, 3, 8, 8)
    values = torch.full((1, 4, 1, 1), value)
    other = 3 if values.round().max() == 2 else 2
    call = Call(values, torch.zeros(1, 4, 1, 1), None, None)
    monkeypatch.setattr(type(edge.entropy_model), "recorder", lambda self: lambda y, levels: [call])
    monkeypatch.setattr(client, "symbols", lambda x, level: ((1, 1), [(None, np.full(4, other), None)]))
    assert check_export._is_tie(edge, client, x, None) is is_accepted


def test_the_networks_of_a_hyperprior_stay_exact_in_int8(tmp_path):
    """Every symbol that differs follows from g_a: with the same y, the float64 part would give the same integers."""
    source = onnx.load(FOLDER / "MeanScaleHyperprior" / "encoder.onnx")
    client = EdgeEncoder(FOLDER / "MeanScaleHyperprior")
    model = quantized(source, [client.transform(image) for image in generated_samples(4).images])
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {each.name: each.type.tensor_type.elem_type for each in inferred.graph.value_info}
    types |= {each.name: each.data_type for each in model.graph.initializer}
    inputs = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(inputs) > 5 and onnx.TensorProto.DOUBLE not in {types.get(name) for name in inputs}
    float64 = {"MatMul"} & {node.op_type for node in source.graph.node}
    assert float64 <= {node.op_type for node in model.graph.node}  # not turned into integer products
    content = json.loads((FOLDER / "MeanScaleHyperprior" / "edge.json").read_text())
    edge_directory.write(tmp_path, model, "int8", content)
    edge = edge_of("MeanScaleHyperprior")
    for image in generated_samples(4).images:
        stream = unpack(EdgeEncoder(tmp_path).encode(image))
        assert edge.entropy_model.decompress([stream.payload], stream.size).isfinite().all()


def test_int8_needs_images(tmp_path, no_data, capsys):
    with pytest.raises(SystemExit):
        main(["--config", CONFIG, "-o", str(tmp_path / "edge"), "--int8", *no_data])
    assert "int8 needs images to calibrate on" in capsys.readouterr().err


def test_an_image_that_the_client_refuses_is_one_line(tmp_path, no_data, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no image")
    with pytest.raises(SystemExit):
        main(["--config", CONFIG, "-o", str(tmp_path / "edge"), "--calibration", str(tmp_path / "photos"), *no_data])
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {tmp_path / 'photos' / 'a.png'} is truncated")


def test_an_export_may_be_repeated_after_its_client_was_imported(tmp_path):
    (tmp_path / "edge" / "__pycache__").mkdir(parents=True)
    with edge_directory.staged(tmp_path / "edge") as folder:
        for name in FILES:
            (folder / name).touch()
    assert {path.name for path in (tmp_path / "edge").iterdir()} == {*FILES, "__pycache__"}


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_a_thousand_images_of_all_kinds_give_equal_bytes(prior, tmp_path, no_data):
    weights = write_weights(tmp_path, prior)
    config = ["--config", CONFIG, "--set", f"models.student_model.kwargs.entropy_model.key=model.entropy.{prior}"]
    main([*config, "--weights", str(weights), "-o", str(tmp_path / "edge"), *no_data])
    paths = write_images(tmp_path / "images", IMAGES)
    encode.main([*config, "--run_dir", str(tmp_path), "-o", str(tmp_path / "expected"), *map(str, paths)])
    edge_client.main(["encode", str(tmp_path / "edge"), *map(str, paths), "-o", str(tmp_path / "got")])
    expected, got = (streams_of(tmp_path / name) for name in ("expected", "got"))
    assert len(got) == IMAGES and len({len(stream) for stream in got.values()}) > 10
    differing = [path for path in paths if got[f"{path.stem}.fsb"] != expected[f"{path.stem}.fsb"]]
    print(f"{prior}: {len(differing)} of {IMAGES} streams differ")
    assert len(differing) <= 5  # of three million numbers, a few lie within rounding errors of a half
    model = load_edge(compose_config(CONFIG, config[3:], mode="test"), weights)
    transform = image_transform(compose_config(CONFIG, mode="test"))
    for path in differing:  # raises unless such a number is the reason
        check_streams(model, transform, EdgeEncoder(tmp_path / "edge"), Samples("images", [path], None))


@pytest.mark.slow
def test_the_client_runs_in_an_environment_of_its_own(tmp_path, no_data):
    main(["--config", CONFIG, "-o", str(tmp_path / "edge"), *no_data])
    venv.create(tmp_path / "slim", with_pip=True)
    python = tmp_path / "slim" / "bin" / "python"
    requirements = tmp_path / "edge" / "requirements-edge.txt"
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", requirements]
    subprocess.run(pip, check=True, timeout=600)
    (path,) = write_images(tmp_path / "images", 1)
    command = [python, tmp_path / "edge" / "edge_client.py", "encode", tmp_path / "edge", path, "-o", tmp_path / "out"]
    for wanted in ("numpy", "constriction==0.5.0"):
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", wanted], check=True)
        subprocess.run(command, check=True, timeout=60, cwd=tmp_path)
        assert (tmp_path / "out" / f"{path.stem}.fsb").read_bytes() == EdgeEncoder(tmp_path / "edge").encode(path)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    installed = {line.split()[0] for line in listed.splitlines()}
    assert "onnxruntime" in installed and not {"torch", "torchvision", "timm", "compressai"} & installed


def write_weights(folder: Path, prior: str) -> Path:
    """Write an untrained student's edge half, with coder tables, as a run's weights."""
    torch.manual_seed(0)
    edge = EdgeHalf(ResidualEncoder(), getattr(entropy, prior)()).eval()
    with torch.no_grad():  # initial means and scales hardly vary, and initial densities need tables of thousands
        for name, parameter in edge.named_parameters():
            parameter.add_(1.0) if "matrices" in name else parameter.mul_(1.5)
    edge.update(force=True, update_quantiles=True)
    save_file(edge.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def write_images(folder: Path, number: int) -> list[Path]:
    """Write PNG and JPEG files of all modes and many sizes."""
    folder.mkdir(parents=True)
    kinds = [("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("I;16", "png"), ("LA", "png"), ("1", "png")]
    kinds += [("RGB", "jpg"), ("CMYK", "jpg"), ("L", "jpg")]
    paths = []
    for place, image in enumerate(generated_samples(number).images):
        mode, suffix = kinds[place % len(kinds)]
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 255)
        paths.append(folder / f"{place:04d}.{suffix}")
        (image if mode == "I;16" else image.convert(mode)).save(paths[-1])
    return paths


def streams_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
