"""The server on Ray Serve: arguments, the way to the replicas, and two replicas on this machine."""

import asyncio
import io
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from misc.config.load import compose_config
from misc.deploy.load import load_edge, load_server
from misc.deploy.server.batcher import OverloadedError
from misc.deploy.server.run import bound_socket
from misc.files import ROOT
from model.coding.bitstream import BitstreamError, pack, unpack

pytestmark = pytest.mark.slow
# Ray reads the second when it is imported: its processes then meet on 127.0.0.1.
ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
os.environ.update(ALONE)
ray = pytest.importorskip("ray", reason="misc/deploy/requirements-ray.txt is not installed")

from ray import serve  # noqa: E402
from ray.exceptions import RayActorError  # noqa: E402
from ray.serve.exceptions import BackPressureError  # noqa: E402

from misc.deploy.ray_app import ArgumentError, RemoteDecoder, app  # noqa: E402

CONFIG = str(ROOT / "config/quickstart/sg_resnet.yaml")
WEIGHTS = ROOT / "resources/weights/quickstart/sg_resnet.safetensors"
BINARY = {"Content-Type": "application/octet-stream"}
TOKEN = "open-sesame"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "config: Field required"),
        ({"config": []}, "config=[]: Tuple should have at least 1 item"),
        ({"config": CONFIG, "replica": "2"}, "replica='2': Extra inputs are not permitted"),
        ({"config": CONFIG, "replicas": "0"}, "replicas='0': Input should be greater than 0"),
        ({"config": CONFIG, "cpus": "two"}, "cpus='two': Input should be a valid number"),
        ({"config": CONFIG, "replicas": "3", "max_replicas": "2"}, "max_replicas=2 is less than replicas=3"),
        ({"config": f"{CONFIG},{CONFIG}", "weights": str(WEIGHTS)}, "weights for 1 of 2 configs"),
        ({"config": CONFIG, "weights": "none.safetensors"}, "no weights at none.safetensors"),
        ({"config": CONFIG, "token_file": "none.txt"}, "token_file none.txt cannot be read"),
        ({"config": "none.yaml"}, "no such file: none.yaml"),
        ({"config": f"{CONFIG},{CONFIG}"}, "have the same fingerprint"),
        ({"config": CONFIG, "edge": "none"}, "has no edge.json"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, reason):
    with pytest.raises(ArgumentError) as refusal:
        app(arguments)
    assert reason in str(refusal.value) and "\n" not in str(refusal.value)


def test_serve_run_ends_with_that_line():
    command = [Path(sys.executable).parent / "serve", "run", "misc.deploy.ray_app:app", "config=none.yaml"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "Error: no such file: none.yaml" and "Traceback" not in ended.stderr


class Replicas:
    """A stub of a handle: each call has the next of some outcomes."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    async def remote(self, stream, kind):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, tuple):
            raise outcome[0]
        return outcome


def submitted(*outcomes):
    return asyncio.run(RemoteDecoder(Replicas(*outcomes)).submit(b"stream", "classes"))


def test_a_stream_whose_replica_dies_goes_to_another():
    assert submitted((RayActorError(),), 3) == 3


def test_a_stream_of_which_replicas_die_goes_to_no_third():
    with pytest.raises(RayActorError):
        submitted((RayActorError(),), (RayActorError(),), 3)


def test_errors_of_streams_are_returned_and_raised():
    with pytest.raises(BitstreamError, match="damaged"):
        submitted(BitstreamError("damaged"))


def test_a_full_queue_is_overload():
    with pytest.raises(OverloadedError):
        submitted((BackPressureError(1, 1),))


@pytest.fixture(scope="module")
def halves():
    config = compose_config(CONFIG, mode="test")
    return load_edge(config, WEIGHTS), load_server(config, WEIGHTS)


@pytest.fixture(scope="module")
def streams(halves):
    torch.manual_seed(0)
    return halves[0].encode(torch.randn(8, 3, 64, 64))


@pytest.fixture(scope="module")
def deploy(tmp_path_factory):
    """Deploy the application with two replicas that share a CPU; return its URL."""
    token_file = tmp_path_factory.mktemp("ray") / "token"
    token_file.write_text(TOKEN)
    with bound_socket("127.0.0.1", 0) as socket:
        port = socket.getsockname()[1]

    def deployed(**options):
        own = {"config": CONFIG, "weights": str(WEIGHTS), "token_file": str(token_file), "replicas": 2, "cpus": 0.5}
        serve.run(app({**own, **options}))
        return f"http://127.0.0.1:{port}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")  # Ray's ports run code for whoever may connect
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("PYTHONPATH", str(ROOT))
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield deployed
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="module")
def url(deploy):
    return deploy()


def post(url, stream, path="/classify", token=TOKEN):
    headers = BINARY | {"Authorization": f"Bearer {token}"}
    return httpx.post(url + path, content=stream, headers=headers, timeout=60, trust_env=False)


def at_once(url, streams):
    with ThreadPoolExecutor(len(streams)) as threads:
        return list(threads.map(lambda stream: post(url, stream), streams))


def damaged(stream):
    """Return a stream without the end of its symbols, with a right checksum."""
    whole = unpack(stream)
    return pack(whole._replace(payload=whole.payload[:-4]))


def test_classes_are_those_of_the_server_half(url, halves, streams):
    expected = halves[1].decode(streams).softmax(1)
    answers = [post(url, stream).json() for stream in streams]
    assert [answer["classes"][0]["index"] for answer in answers] == expected.argmax(1).tolist()
    probabilities = [answer["classes"][0]["probability"] for answer in answers]
    np.testing.assert_allclose(probabilities, expected.amax(1), atol=1e-4)


def test_features_are_those_of_the_server_half(url, halves, streams):
    h_hat = np.load(io.BytesIO(post(url, streams[0], "/features").content))
    np.testing.assert_allclose(h_hat, halves[1].features(streams[:1])[0], atol=1e-4)


def test_a_damaged_stream_fails_alone(url, streams):
    answers = at_once(url, [damaged(stream) if place == 3 else stream for place, stream in enumerate(streams)] * 3)
    assert [answer.status_code for answer in answers] == [400 if place % 8 == 3 else 200 for place in range(24)]
    assert answers[3].json() == {"detail": post(url, damaged(streams[3])).json()["detail"]}
    assert "\n" not in answers[3].json()["detail"]


def test_requests_need_the_token(url, streams):
    assert post(url, streams[0], token="wrong").status_code == 401
    assert httpx.get(f"{url}/model", trust_env=False).json()["models"][0]["num_classes"] == 10


def test_requests_that_find_the_queue_full_are_asked_to_come_again(deploy, streams):
    answers = at_once(deploy(replicas=1, max_batch=1, queue=1), streams * 8)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert {answer.json()["detail"] for answer in refused} == {"too many streams are waiting: try again"}
