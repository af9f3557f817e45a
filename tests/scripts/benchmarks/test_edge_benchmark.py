import asyncio
import json
import re
import shutil

import pytest
import torch
from PIL import Image

from misc.config.load import compose_config
from misc.deploy import load_edge
from misc.deploy.sample_images import generated_samples
from misc.deploy.transform_steps import transform_steps
from misc.errors import UserError
from model.coding.bitstream import BitstreamError, unpack
from scripts.benchmarks import edge, edge_encode
from scripts.benchmarks.edge_encode import NETWORK, cells, node, resized, torch_transform
from scripts.benchmarks.edge_process import environment_size, run
from scripts.benchmarks.edge_serve import Load, load, undecodable
from tests.golden.make_edges import TRANSFORM

CONFIG = ["--config", "config/quickstart/sg_resnet.yaml"]
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"


def test_ratios_are_to_the_first_side_in_the_same_round():
    times = {"torch": [10.0, 20.0, 40.0], "onnx": [5.0, 5.0, 4.0]}
    assert cells(times) == {"torch": "20.00 ms (1.00)", "onnx": "5.00 ms (0.25)"}


def test_the_transform_of_an_export_is_torchvisions():
    steps = transform_steps(TRANSFORM)
    (image,) = generated_samples(1).images
    assert torch_transform(steps)(image).equal(TRANSFORM(image))
    assert steps == transform_steps(TRANSFORM)  # unchanged


@pytest.mark.parametrize("size", [64, [64, 80]])
def test_an_export_of_another_size(size, tmp_path):
    steps = [
        {"op": "resize", "size": size, "interpolation": "bilinear"},
        {"op": "center_crop", "height": 64, "width": 60},
        {"op": "scale", "factor": 1 / 255},
    ]
    original = tmp_path / "float32"
    original.mkdir()
    (original / "edge.json").write_text(json.dumps({"transform": steps}))
    copy = json.loads((resized(original, 224) / "edge.json").read_text())["transform"]
    assert torch_transform(copy)(generated_samples(1).images[0]).shape == (3, 224, 224)
    assert json.loads((original / "edge.json").read_text())["transform"] == steps  # unchanged


def test_processes_are_measured_and_failures_told():
    seconds, mebibytes = run(["python3", "-c", "x = b'1' * (64 * 2**20)"])
    assert seconds > 0 and 64 < mebibytes < 200  # this process's own libraries take more
    with pytest.raises(UserError, match="exit code 3"):
        run(["python3", "-c", "raise SystemExit(3)"])


def test_an_environment_is_measured_where_it_is(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    python.chmod(0o755)
    before = environment_size(str(python))
    (tmp_path / "large").write_bytes(b"1" * 2**20)
    assert 0.9 < environment_size(str(python)) - before < 1.2


@pytest.mark.parametrize("program", ["no/python", "/", "true", "false"])
def test_no_interpreter_is_one_line(program):
    with pytest.raises(UserError, match=program):
        environment_size(program)


@pytest.mark.parametrize("script", ["exit 1", "head -c 4000000 >/dev/null"], ids=["at once", "after the picture"])
def test_node_that_ends_is_one_line(script, tmp_path, monkeypatch):
    program = tmp_path / "node"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match="node ended"), node(tmp_path, Image.new("RGB", (1000, 1000))) as ask:
        ask(NETWORK)


def test_damaged_streams_fail_only_when_they_are_decoded():
    edge_half = load_edge(compose_config(CONFIG[1], mode="test"), WEIGHTS)
    (stream,) = edge_half.encode(torch.zeros(1, 3, 64, 64))
    damaged = unpack(undecodable(stream))
    with pytest.raises(BitstreamError):
        edge_half.entropy_model.decompress([damaged.payload], damaged.size)


def load_on(statuses: list[int | None], clients: int) -> Load:
    """Return the load of good streams on a server that answers with these statuses; None closes the connection."""
    left = iter(statuses)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(1000)).endswith(b"stream") and (status := next(left)):
            writer.write(b"HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    async def both() -> Load:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await load(server.sockets[0].getsockname()[1], [b"stream"], [], clients, len(statuses))

    return asyncio.run(both())


@pytest.mark.parametrize(
    ("statuses", "clients", "lost"),
    [
        ([200] * 9, 3, 0),
        ([200, 400, 503, 200], 2, 2),
        ([200, None, 200, 200], 2, 1),
        ([200, None, 200, 200], 1, 3),
    ],
)
def test_good_streams_without_an_answer_are_lost(statuses, clients, lost):
    found = load_on(statuses, clients)
    assert found.lost == lost and len(found.seconds) == len(statuses) - lost and found.rate > 0


def test_a_server_without_good_answers_is_one_line():
    with pytest.raises(UserError, match="answered none of 3 good streams"):
        load_on([500, None, 503], 2)


@pytest.mark.parametrize(("lost", "code"), [("0", None), ("2", 1)])
def test_lost_streams_end_with_exit_code_1(lost, code, monkeypatch, capsys):
    monkeypatch.setattr(edge, "serve_table", lambda *_: [["", "lost"], ["one", "0"], ["batches", lost]])
    if code is None:
        edge.main(["serve", *CONFIG])
    else:
        with pytest.raises(SystemExit) as ended:
            edge.main(["serve", *CONFIG])
        assert ended.value.code == code
    assert "batches" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--set", "a=1"],
        ["serve", "--slim", "python"],
        ["process", "--requests", "5"],
        ["encode", "--slim", "a"],
    ]
    + [[what, "--rounds", rounds] for what in edge.ROUNDS for rounds in ("0", "-1")],
)
def test_options_without_effect_are_refused(arguments, capsys):
    what, *options = arguments
    with pytest.raises(SystemExit) as ended:
        edge.main([what, *CONFIG, *options])
    assert ended.value.code == 2 and options[0] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("what", edge.ROUNDS)
def test_every_benchmark_prints_a_table(what, tmp_path, capsys):
    generated_samples(1).images[0].save(tmp_path / "image.png")
    options = {
        "encode": ["--calibration", str(tmp_path)],
        "serve": ["--requests", "70"],
        "process": ["--set", "dataset_root=none"],
    }
    edge.main([what, *CONFIG, "--rounds", "1", *options.get(what, [])])
    out = capsys.readouterr().out
    if what == "encode":
        assert re.search(r"ONNX int8 +[\d.]+ ms \([\d.]+\)", out) and "JPEG, quality 20" in out
        assert ("node" in out) == bool(shutil.which("node") and edge_encode.VENDOR.is_dir())
    elif what == "process":
        assert re.search(r"edge_client.py +[\d.]+ +\d+ +[\d,]+", out)
    else:
        assert re.search(r"batches, 5 % damaged streams .+ 0$", out, re.MULTILINE)
