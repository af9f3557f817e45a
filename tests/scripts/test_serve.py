"""The command: its errors, and a real server with the shipped student."""

import io
import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
import torch

from misc.config.load import compose_config
from misc.deploy.load import load_edge, load_server
from misc.files import ROOT
from scripts import serve

CONFIG = "config/quickstart/sg_resnet.yaml"
SWIN = "config/quickstart/sg_swin.yaml"
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"
SWIN_WEIGHTS = "resources/weights/quickstart/sg_swin.safetensors"
BINARY = {"Content-Type": "application/octet-stream"}


def refused(capsys, *arguments) -> str:
    """Run the command, which must fail with exit code 2 and one line; return that line."""
    with pytest.raises(SystemExit) as exit:
        serve.main(["--config", CONFIG, "--device", "cpu", "--port", "0", *arguments])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token_file", "none/token"], "none/token cannot be read"),
        (["--token_file", os.devnull], "holds no token"),
        (["--device", "toaster"], "not a device"),
        (["--weights", WEIGHTS, "--weights", WEIGHTS], "weights for 2 of 1 configs"),
        (["--weights", "none.safetensors"], "no weights at none.safetensors"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--config", CONFIG, "--weights", WEIGHTS, "--weights", WEIGHTS], "have the same fingerprint"),
        (["--run_dir", "none"], "no weights at none/weights.safetensors"),
        (["--weights", WEIGHTS, "--edge", "config"], "has no edge.json"),
        (["--weights", SWIN_WEIGHTS], "sg_swin.safetensors"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_port_in_use_is_noticed_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(serve, "load", lambda args: pytest.fail("a model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Address already in use" in refused(capsys, "--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_numbers_are_positive(capsys, number):
    with pytest.raises(SystemExit):
        serve.main(["--config", CONFIG, "--max_batch", number])
    assert "--max_batch" in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of two students; yields its process and its URL."""
    folder = tmp_path_factory.mktemp("server")
    token = folder / "token"
    token.write_text("secret\n")
    command = [sys.executable, str(ROOT / "scripts/serve.py"), "--config", CONFIG, "--config", SWIN]
    command += ["--weights", WEIGHTS, "--weights", SWIN_WEIGHTS, "--set", f"dataset_root={folder}/none"]
    command += ["--token_file", str(token), "--port", "0", "--device", "cpu", "--threads", "1"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith(f"serving {CONFIG} ("), (folder / "log").read_text()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def halves():
    """Edge and server half of both students, by config."""
    return {
        config: (
            load_edge(compose_config(config, mode="test"), weights),
            load_server(compose_config(config, mode="test"), weights),
        )
        for config, weights in ((CONFIG, WEIGHTS), (SWIN, SWIN_WEIGHTS))
    }


@pytest.mark.slow
def test_streams_find_their_models(server, halves):
    _, url = server
    with httpx.Client(base_url=url, headers=BINARY | {"Authorization": "Bearer secret"}, timeout=60) as client:
        for edge, half in halves.values():
            for stream in edge.encode(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))):
                answer = client.post("/classify", content=stream).json()
                probabilities = half.decode([stream])[0].softmax(0)
                assert answer["fingerprint"] == half.fingerprint.hex() and answer["bytes_received"] == len(stream)
                assert [entry["index"] for entry in answer["classes"]] == probabilities.topk(5).indices.tolist()
                given = [entry["probability"] for entry in answer["classes"]]
                assert np.allclose(given, probabilities.topk(5).values, atol=1e-5)
                h_hat = np.load(io.BytesIO(client.post("/features", content=stream).content))
                assert np.allclose(h_hat, half.features([stream])[0], atol=1e-4)
        models = client.get("/model").json()["models"]
    assert [(model["config"], model["num_classes"]) for model in models] == [(CONFIG, 10), (SWIN, 10)]


@pytest.mark.slow
def test_an_image_of_another_size_is_taken_or_refused_with_a_reason(server, halves):
    _, url = server
    headers = BINARY | {"Authorization": "Bearer secret"}
    for config, status in ((CONFIG, 200), (SWIN, 400)):
        (stream,) = halves[config][0].encode(torch.zeros(1, 3, 64, 96))
        answer = httpx.post(f"{url}/classify", content=stream, headers=headers, timeout=60)
        assert answer.status_code == status, answer.text
    assert "does not take" in answer.json()["detail"]


@pytest.mark.slow
def test_a_signal_ends_the_server_in_seconds_with_exit_code_0(server, halves):
    """The last test of the module: the server is gone after it."""
    process, url = server
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:  # and a body that never comes does not hold it up
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nAuthorization: Bearer secret\r\n")
        slow.sendall(b"Content-Type: application/octet-stream\r\n\r\nF2")
        httpx.get(f"{url}/healthz")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        answer = slow.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503") and json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
