import ast
import json
import shutil
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from misc.datasets.image_folder import read_rgb
from misc.deploy import edge_client
from misc.deploy.edge_client import EdgeEncoder, EdgeError, PythonStack, Tables, _push
from misc.deploy.sample_images import generated_samples
from misc.errors import UserError
from model.coding import ans
from model.coding.bitstream import MAX_POSITIONS, Stream, pack, unpack
from tests.golden.make_edges import FOLDER, IMAGES, PRIORS, RATES, VARIABLE_RATE

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")


@pytest.fixture
def exported(tmp_path):
    shutil.copytree(FOLDER / "MeanScaleHyperprior", tmp_path / "edge")
    return tmp_path / "edge"


def change(folder: Path, **values) -> None:
    path = folder / "edge.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def photo(mode: str, size=(50, 70)) -> Image.Image:
    rng = np.random.default_rng(3)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, size[::-1], dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("coder", ["constriction", "python"])
@pytest.mark.parametrize("prior", PRIORS)
def test_golden_exports_give_the_golden_streams(prior, coder):
    encoder = EdgeEncoder(FOLDER / prior, coder=coder)
    for number, image in enumerate(generated_samples(IMAGES).images):
        assert encoder.encode(image) == (FOLDER / prior / f"{number}.fsb").read_bytes()


@pytest.mark.parametrize("prior", VARIABLE_RATE)
def test_golden_exports_of_variable_rate_give_the_golden_streams(prior):
    encoder = EdgeEncoder(FOLDER / prior)
    for number, (image, rate) in enumerate(zip(generated_samples(IMAGES).images, RATES, strict=True)):
        stream = encoder.encode(image, rate)
        assert stream == (FOLDER / prior / f"{number}.fsb").read_bytes()
        assert unpack(stream).level == round(rate * encoder.last_level)


@pytest.mark.parametrize("prior", VARIABLE_RATE)
def test_a_stream_fits_the_bytes_it_is_given(prior):
    encoder, image = EdgeEncoder(FOLDER / prior), generated_samples(1).images[0]
    by_level = [len(encoder.encode(image, level / encoder.last_level)) for level in range(encoder.last_level + 1)]
    assert by_level[0] < by_level[-1]
    for budget in (by_level[0], sum(by_level) // len(by_level), 10_000):
        stream = encoder.encode(image, max_bytes=budget)
        assert len(stream) <= budget and len(stream) == by_level[unpack(stream).level]
    with pytest.raises(EdgeError, match=f"has {by_level[0]} bytes, more than {by_level[0] - 1}"):
        encoder.encode(image, max_bytes=by_level[0] - 1)


def test_rates_that_cannot_be_are_refused(exported):
    variable = EdgeEncoder(FOLDER / VARIABLE_RATE[0])
    for encoder, wanted, message in (
        (variable, {"rate": 1.1}, "the rate is 1.1; expected 0"),
        (variable, {"rate": 0.5, "max_bytes": 80}, "not both"),
        (EdgeEncoder(exported), {"rate": 0.5}, "one rate"),
        (EdgeEncoder(exported), {"max_bytes": 80}, "one rate"),
    ):
        with pytest.raises(EdgeError, match=message):
            encoder.encode(photo("RGB"), **wanted)


def test_rate_on_the_command_line(tmp_path, capsys):
    photo("RGB").save(tmp_path / "photo.png")
    for name, arguments in {"low": ["--rate", "0"], "high": ["--rate", "1"], "fit": ["--max_bytes", "9999"]}.items():
        edge_client.main(
            [
                "encode",
                str(FOLDER / VARIABLE_RATE[0]),
                str(tmp_path / "photo.png"),
                "-o",
                str(tmp_path / name),
                *arguments,
            ]
        )
    low, high, fit = ((tmp_path / name / "photo.fsb").read_bytes() for name in ("low", "high", "fit"))
    assert len(low) < len(high) and fit == high


def test_it_imports_four_libraries_and_nothing_of_the_project():
    tree = ast.parse(Path(edge_client.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "onnxruntime", "PIL", "constriction"}


# Images


@pytest.mark.parametrize("mode", MODES)
def test_images_of_every_mode_are_read_as_the_project_reads_them(mode, tmp_path):
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    photo(mode).save(path)
    expected = read_rgb(path)
    for source in (path, str(path), Image.open(path)):
        read = edge_client.read_rgb(source)
        assert read.mode == "RGB" and read.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size, mode, message", [((3, 301), "RGB", "3 x 301"), ((5, 5), "F", "32 bits")])
def test_images_that_the_project_refuses_are_refused(size, mode, message, tmp_path):
    path = tmp_path / "photo.tif"
    Image.new(mode, size).save(path)
    with pytest.raises(UserError, match=message):
        read_rgb(path)
    with pytest.raises(EdgeError, match=message):
        edge_client.read_rgb(path)


@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(1, 70), crop=st.integers(1, 90))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_pixels_are_those_of_torchvision(width, height, size, crop, interpolation):
    image = photo("RGB", (width, height))
    resized = edge_client.resize(image, size, interpolation)
    mode = getattr(v2.InterpolationMode, interpolation.upper())
    assert resized.tobytes() == v2.Resize(size, mode)(image).tobytes()
    cropped = edge_client.center_crop(image, crop, size)
    assert cropped.size == (size, crop) and cropped.tobytes() == v2.CenterCrop((crop, size))(image).tobytes()


def test_a_size_of_two_numbers_is_height_and_width():
    assert edge_client.resize(photo("RGB"), [30, 20], "bilinear").size == (20, 30)


# Coding


@st.composite
def coded_symbols(draw):
    lengths = draw(st.lists(st.integers(2, 9), min_size=1, max_size=5))
    cdf = np.zeros((len(lengths), 10), np.int32)
    for row, length in zip(cdf, lengths, strict=True):
        cuts = draw(st.sets(st.integers(1, 2**16 - 1), min_size=length - 1, max_size=length - 1))
        row[1:length], row[length] = sorted(cuts), 2**16
    offsets = np.asarray(draw(st.lists(st.integers(-9, 5), min_size=len(lengths), max_size=len(lengths))))
    number = draw(st.integers(1, 60))
    near, far = st.integers(-12, 12), st.integers(-(2**13), 2**13)
    symbols = draw(st.lists(st.one_of(near, near, near, far), min_size=number, max_size=number))
    indexes = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=number, max_size=number))
    return cdf, np.asarray(lengths) + 1, offsets, np.asarray(symbols, np.int32), np.asarray(indexes, np.int32)


@given(coded_symbols())
@settings(max_examples=200, deadline=None)
def test_both_coders_give_the_bytes_of_the_project(coded):
    cdf, lengths, offsets, symbols, indexes = coded
    expected = ans.SymbolStack()
    expected.push(ans.Tables(cdf, lengths, offsets), symbols, indexes)
    tables = Tables(offsets.tolist(), [row[:length].tolist() for row, length in zip(cdf, lengths, strict=True)])
    for stack in (PythonStack(), edge_client.ConstrictionStack()):
        _push(stack, tables, symbols, indexes)
        assert stack.to_bytes() == expected.to_bytes()


@given(height=st.integers(1, MAX_POSITIONS), width=st.integers(1, MAX_POSITIONS))
def test_sizes_are_packed_as_the_project_packs_them(height, width):
    if height * width <= MAX_POSITIONS:
        packed = pack(Stream(b"\1\2\3\4", (height, width), b""))
        assert edge_client._packed_size(height, width) == packed[6:-4]


# What is refused


def refused(folder: Path, message: str) -> None:
    with pytest.raises(EdgeError, match=message):
        EdgeEncoder(folder)


def test_directories_of_other_versions_and_damaged_ones_are_refused(exported, tmp_path):
    refused(tmp_path / "none", "is no exported directory")
    change(exported, format=99)
    refused(exported, "format 99 for streams of version 2; this client reads 1 for 2, 2 for 3")
    change(exported, format=1, stream=9)
    refused(exported, "streams of version 9")
    (exported / "edge.json").write_text("{")
    refused(exported, "damaged")
    (exported / "edge.json").write_text("[]")
    refused(exported, "format None")


@pytest.mark.parametrize(
    "values",
    [
        {"tables": {}},
        {"tables": {"z": {"offsets": [0], "cdf": [[0, 9, 9, 65536]]}}},
        {"tables": {"z": {"offsets": [], "cdf": [[0, 9, 65536]]}}},
        {"order": [{"symbols": "y"}]},
        {"order": [{"symbols": "none", "indexes": None, "tables": "z", "positions": "all"}]},
        {"order": [{"symbols": "z", "indexes": None, "tables": "z", "positions": "some"}]},
        {"fingerprint": "zz"},
        {"fingerprint": "aa"},
        {"max_positions": "x"},
        {"stride": 0},
        {"transform": [{"op": "scale", "factor": 1, "bias": 2}]},
        {"transform": [{"size": 3}]},
        {"sha256": None},
    ],
)
def test_damaged_descriptions_are_refused_at_once(exported, values):
    change(exported, **values)
    refused(exported, "edge.json")


def test_a_table_that_is_not_there_is_refused(tmp_path):
    shutil.copytree(FOLDER / "FactorizedPrior", tmp_path / "edge")
    tables = json.loads((tmp_path / "edge" / "edge.json").read_text())["tables"]["y"]
    change(tmp_path / "edge", tables={"y": {name: values[:3] for name, values in tables.items()}})
    with pytest.raises(EdgeError, match="asks for a table"):
        EdgeEncoder(tmp_path / "edge").encode(photo("RGB"))


def test_a_truncated_image_in_memory_is_refused(exported, tmp_path):
    photo("RGB", (300, 300)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(EdgeError, match="the image is truncated"):
        EdgeEncoder(exported).encode(Image.open(tmp_path / "a.png"))


def test_unknown_transforms_are_refused(exported):
    change(exported, transform=[{"op": "solarize"}])
    refused(exported, "does not know the transform 'solarize'")
    change(exported, transform=[{"op": "resize", "size": 4, "interpolation": "magic"}])
    refused(exported, "does not know the interpolation 'magic'")


def test_a_graph_that_is_not_the_described_one_is_refused(exported):
    (exported / "encoder.onnx").write_bytes(b"no graph")
    refused(exported, "not the graph that edge.json describes")
    change(exported, sha256="2dc3a1b7ed6e1d02e5a8d4b3e1f4d1b3a9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4")
    refused(exported, "not the graph that edge.json describes")
    (exported / "encoder.onnx").unlink()
    refused(exported, "cannot read")


def constant_graph(folder: Path, nonfinite: int, symbol: int) -> None:
    """Replace the graph by one whose outputs are constants, of the shapes of a factorized prior with four channels."""
    values = {"nonfinite": np.full((1, 2, 2), nonfinite), "y": np.full((1, 4, 2, 2), symbol)}
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value.astype(np.int32)))
        for name, value in values.items()
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None) for name in values]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3, None, None])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "constant", [x], outputs),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    content = model.SerializeToString()
    (folder / "encoder.onnx").write_bytes(content)
    change(folder, sha256=edge_client.hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    "nonfinite, symbol, message",
    [(1, 0, "infinities or NaN"), (0, 8193, "beyond 8192"), (0, -(2**31), "beyond 8192"), (0, -8192, None)],
)
def test_outputs_that_no_sender_sends_are_refused(nonfinite, symbol, message, tmp_path):
    shutil.copytree(FOLDER / "FactorizedPrior", tmp_path / "edge")
    constant_graph(tmp_path / "edge", nonfinite, symbol)
    encoder = EdgeEncoder(tmp_path / "edge")
    if message is None:
        assert encoder.encode(photo("RGB"))
    else:
        with pytest.raises(EdgeError, match=message):
            encoder.encode(photo("RGB"))


def test_a_latent_that_is_too_large_is_refused(exported):
    change(exported, max_positions=40)  # 5 x 7 are 35, padded to 8 x 8
    with pytest.raises(EdgeError, match=r"an image of 40 x 56 is too large: its latent of 5 x 7"):
        EdgeEncoder(exported).encode(photo("RGB"))


# The command line, in processes of its own


def run(*args: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, edge_client.__file__, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_writes_streams(exported, tmp_path):
    photo("RGB").save(tmp_path / "a.png")
    photo("L").save(tmp_path / "b.jpg")
    done = run("encode", exported, tmp_path / "a.png", tmp_path / "b.jpg", "-o", tmp_path / "out")
    assert done.returncode == 0 and not done.stderr
    encoder = EdgeEncoder(exported)
    for name in ("a.png", "b.jpg"):
        stream = (tmp_path / "out" / f"{name[0]}.fsb").read_bytes()
        assert stream == encoder.encode(tmp_path / name)
        assert f"{tmp_path / name} -> {tmp_path / 'out'}/{name[0]}.fsb  {len(stream)} bytes" in done.stdout


def test_mistakes_are_one_line_and_exit_code_two(exported, tmp_path):
    photo("RGB").save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_text("no image")
    for args, message in [
        (("encode", exported, tmp_path / "c.png", "-o", tmp_path / "out"), "no image at"),
        (("encode", exported, tmp_path / "a.jpg", "-o", tmp_path / "out"), "truncated or not an image"),
        (("encode", exported, tmp_path / "a.png", tmp_path / "a.jpg", "-o", tmp_path / "out"), "two of the images"),
        (("encode", tmp_path, tmp_path / "a.png", "-o", tmp_path / "out"), "no exported directory"),
        (("encode", exported, tmp_path / "a.png", "-o", tmp_path / "a.jpg"), "cannot write to"),
        (("send", exported, tmp_path / "a.png", "--url", "http://127.0.0.1:9"), "no answer from http://127.0.0.1:9"),
        (("send", exported, tmp_path / "a.png", "--url", "nonsense"), "nonsense"),
    ]:
        done = run(*args)
        assert done.returncode == 2 and message in done.stderr, done
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_tokens_are_one_word(exported, tmp_path):
    photo("RGB").save(tmp_path / "a.png")
    (tmp_path / "token").write_text("two words")
    token = ("--token_file", tmp_path / "token")
    done = run("send", exported, tmp_path / "a.png", "--url", "http://127.0.0.1:9", *token)
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path / 'token'} holds no token: expected one word\n"


@pytest.mark.parametrize("url", ["http://h:abc", "http://h h", "ftp://127.0.0.1:9"])
def test_addresses_that_are_none_are_one_line(url):
    with pytest.raises(EdgeError) as error:
        edge_client.classify(url, b"1234")
    assert "\n" not in str(error.value) and url in str(error.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"classes": [{}]}',
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\n{"detail":"a\\nb"}',
    ],
)
def test_foreign_servers_are_one_line(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(9999)
                connection.sendall(answer)

        Thread(target=serve, daemon=True).start()
        with pytest.raises(EdgeError) as error:
            edge_client.classify(f"http://127.0.0.1:{server.getsockname()[1]}", b"1234")
    assert "\n" not in str(error.value)


class Busy(BaseHTTPRequestHandler):
    """A server that is busy once, then wants a token, and then answers."""

    requests = 0

    def do_POST(self):
        type(self).requests += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.requests == 1:
            return self.answer(503, {"detail": "busy"}, {"Retry-After": "0"})
        if self.headers["Authorization"] != "Bearer word":
            return self.answer(401, {"detail": "a token is wanted"})
        self.answer(200, {"classes": [{"index": 1, "name": f"{len(body)} bytes", "probability": 0.5}]})

    def answer(self, status, content, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


def test_classes_of_a_server_are_returned_and_its_reasons_told():
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert edge_client.classify(url, b"1234", "word") == [{"index": 1, "name": "4 bytes", "probability": 0.5}]
        assert Busy.requests == 2
        with pytest.raises(EdgeError, match="answers 401: a token is wanted"):
            edge_client.classify(url, b"1234")
        server.shutdown()
