"""The HTTP interface around a stub of a decoder, without a network."""

import asyncio
import io
import re
import weakref

import httpx
import numpy as np
import pytest

from misc.deploy.server.app import create_app
from misc.deploy.server.batcher import OverloadedError
from misc.deploy.server.limits import BodyReader
from misc.deploy.server.metrics import Metrics
from misc.deploy.server.models import ModelInfo
from model.coding.bitstream import MAX_BYTES, BitstreamError, Stream, pack

FINGERPRINT = b"\x0a\x1b\x2c\x3d"
STREAM = pack(Stream(FINGERPRINT, (8, 8), b"symbols"))
BINARY = {"Content-Type": "application/octet-stream"}


class Decoder:
    """A stub: every stream is of class 3, or fails with an error."""

    def __init__(self, error=None):
        self.error = error
        self.kinds = []

    async def submit(self, stream, kind):
        self.kinds.append(kind)
        if self.error:
            raise self.error
        if kind == "features":
            return np.arange(8, dtype=np.float32).reshape(2, 2, 2)
        return np.array([0.05, 0.1, 0.02, 0.5, 0.3, 0.03], dtype=np.float32)


@pytest.fixture
def folders(tmp_path):
    edge, page = tmp_path / "edge", tmp_path / "page"
    edge.mkdir(), page.mkdir()
    (edge / "edge.json").write_text('{"format": 1}')
    (edge / "encoder.onnx").write_bytes(b"onnx")
    (edge / "private.txt").write_text("not served")
    (page / "index.html").write_text("<!doctype html>")
    (page / "page.mjs").write_text("export {}")
    (page / "some.wasm").write_bytes(b"\0asm")
    (tmp_path / "3.png").write_bytes(b"png")
    return tmp_path


def app_of(folders, decoder=None, names=None, **options):
    edge, examples = folders / "edge", [folders / "3.png"]
    info = ModelInfo(FINGERPRINT.hex(), "config/x.yaml", 6, names, edge, examples)
    return create_app([info], decoder or Decoder(), Metrics(), page=folders / "page", **options)


def exchange(app, *requests):
    """Send requests, each the arguments of `httpx.AsyncClient.request`; return the responses."""

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return [await client.request(*args, **kwargs) for args, kwargs in requests]

    return asyncio.run(run())


def get(app, path, **headers):
    return exchange(app, (("GET", path), {"headers": headers}))[0]


def post(app, path="/classify", content=STREAM, headers=BINARY):
    return exchange(app, (("POST", path), {"content": content, "headers": headers}))[0]


def refusal(response) -> tuple[int, str]:
    """Return status and detail of an answer that must be an error of one line."""
    (key,) = response.json()
    detail = response.json()[key]
    assert key == "detail" and "\n" not in detail
    return response.status_code, detail


def test_a_stream_is_classified(folders):
    answer = post(app_of(folders)).json()
    assert answer.pop("milliseconds") >= 0
    classes = [(entry["index"], entry["name"], round(entry["probability"], 6)) for entry in answer.pop("classes")]
    assert classes == [
        (3, "class 3", 0.5),
        (4, "class 4", 0.3),
        (1, "class 1", 0.1),
        (0, "class 0", 0.05),
        (5, "class 5", 0.03),
    ]
    assert answer == {"fingerprint": "0a1b2c3d", "bytes_received": len(STREAM)}


def test_classes_have_their_names(folders):
    answer = post(app_of(folders, names=list("abcdef"))).json()
    assert [entry["name"] for entry in answer["classes"]] == ["d", "e", "b", "a", "f"]


def test_features_are_a_numpy_file(folders):
    response = post(app_of(folders), "/features")
    h_hat = np.load(io.BytesIO(response.content))
    assert response.headers["content-type"] == "application/octet-stream"
    assert h_hat.dtype == np.float32 and h_hat.flatten().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a FrankenSplit stream"),
        (b"\xff\xd8\xff", "not a FrankenSplit stream"),
        (STREAM[:-1], "truncated or damaged"),
        (pack(Stream(b"\xff" * 4, (8, 8), b"")), "model ffffffff, which is not served: 0a1b2c3d is"),
    ],
)
def test_what_no_model_can_decode_is_refused_before_the_queue(folders, content, reason):
    decoder = Decoder()
    status, detail = refusal(post(app_of(folders, decoder), content=content))
    assert status == 400 and reason in detail and decoder.kinds == []


def test_errors_of_the_decoder_have_their_statuses(folders, caplog):
    assert refusal(post(app_of(folders, Decoder(BitstreamError("cut"))))) == (400, "cut")
    response = post(app_of(folders, Decoder(OverloadedError())))
    assert refusal(response)[0] == 503 and response.headers["retry-after"] == "1"
    assert "failed" not in caplog.text
    assert refusal(post(app_of(folders, Decoder(RuntimeError("a bug\nin two lines"))))) == (
        500,
        "the server failed on this request",
    )
    assert "a bug" in caplog.text
    assert refusal(post(app_of(folders, Decoder(TimeoutError()))))[0] == 500  # the decoder's, not the body's


def test_a_body_is_held_once():
    class Chunk(bytearray):
        """Bytes that a weak reference can point to."""

    chunks = [Chunk(b"first"), Chunk(b"second"), Chunk(b"third")]
    first = weakref.ref(chunks[0])

    class Request:
        def __init__(self):
            self.headers = {"content-type": "application/octet-stream"}

        async def stream(self):
            while chunks:
                yield chunks.pop(0)

    async def read():
        async with BodyReader().body_of(Request()) as body:
            return body, first()

    assert asyncio.run(read()) == (b"firstsecondthird", None)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Type": ""}])
def test_another_type_of_body_is_refused(folders, headers):
    assert refusal(post(app_of(folders), headers=headers))[0] == 415


def test_a_type_with_parameters_is_taken(folders):
    assert post(app_of(folders), headers={"Content-Type": "Application/Octet-Stream; x=y"}).status_code == 200


def test_a_body_without_end_is_refused_while_it_is_read(folders):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 2**20
            yield bytes(2**20)

    assert refusal(post(app_of(folders), content=endless()))[0] == 413
    assert sent <= MAX_BYTES + 2**21


def test_a_body_that_says_it_is_too_long_is_not_read(folders):
    async def unread():
        raise AssertionError("the body was read")
        yield b""

    response = post(app_of(folders), content=unread(), headers=BINARY | {"Content-Length": str(MAX_BYTES + 1)})
    assert refusal(response)[0] == 413


def test_a_body_that_does_not_arrive_is_given_up(folders):
    async def slow():
        yield STREAM[:9]
        await asyncio.sleep(10)

    response = post(app_of(folders, reader=BodyReader(body_seconds=0.05)), content=slow())
    assert refusal(response)[0] == 408 and response.headers["connection"] == "close"


def test_long_bodies_beyond_what_may_be_held_are_refused_and_short_ones_are_not(folders):
    app = app_of(folders, reader=BodyReader(held_bytes=10))
    assert post(app).status_code == 200
    assert refusal(post(app, content=bytes(2**17)))[0] == 503
    reader = BodyReader(held_bytes=2**17)
    for _ in range(5):  # what is held is let go
        assert refusal(post(app_of(folders, reader=reader), content=bytes(2**17)))[0] == 400


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer secrets", "Bearer \xfc"]
)
def test_without_the_token_streams_are_refused(folders, given):
    headers = BINARY | ({} if given is None else {"Authorization": given.encode("latin-1")})
    for path in ("/classify", "/features"):
        response = post(app_of(folders, token="secret"), path, headers=headers)
        assert refusal(response)[0] == 401 and response.headers["www-authenticate"] == "Bearer"


def test_with_the_token_streams_are_taken_and_reading_needs_none(folders):
    app = app_of(folders, token="secret")
    assert post(app, headers=BINARY | {"Authorization": "Bearer secret"}).status_code == 200
    assert get(app, "/model").status_code == 200


def test_the_models_are_described(folders):
    assert get(app_of(folders), "/model").json() == {
        "models": [
            {
                "fingerprint": "0a1b2c3d",
                "config": "config/x.yaml",
                "num_classes": 6,
                "class_names": None,
                "edge": "/edge/0a1b2c3d/",
                "examples": ["/examples/0a1b2c3d/0"],
            }
        ]
    }


def test_a_server_that_listens_is_alive_and_ready(folders):
    app = app_of(folders)
    assert get(app, "/readyz").json() == {"status": "ready"} and get(app, "/healthz").json() == {"status": "alive"}


def test_requests_are_counted_by_endpoint_and_status(folders):
    app = app_of(folders)
    exchange(app, *[(("POST", "/classify"), {"content": STREAM, "headers": BINARY})] * 2, (("GET", "/a/b"), {}))
    post(app, content=b"")
    get(app, "/page/none.css")
    text = get(app, "/metrics").text
    for line in (
        'requests_total{endpoint="/classify",status="200"} 2.0',
        'requests_total{endpoint="/classify",status="400"} 1.0',
        'requests_total{endpoint="other",status="404"} 1.0',
        'requests_total{endpoint="/page/",status="404"} 1.0',
        f"received_bytes_total {2.0 * len(STREAM)}",
        'request_seconds_count{endpoint="/classify"} 3.0',
    ):
        assert f"frankensplit_{line}" in text.splitlines()


def test_files_have_types_and_are_asked_for_again(folders):
    app = app_of(folders)
    for path, media_type in {
        "/": "text/html; charset=utf-8",
        "/page/page.mjs": "text/javascript; charset=utf-8",
        "/page/some.wasm": "application/wasm",
        "/edge/0a1b2c3d/edge.json": "application/json",
        "/edge/0a1b2c3d/encoder.onnx": "application/octet-stream",
        "/examples/0a1b2c3d/0": "image/png",
    }.items():
        response = get(app, path)
        assert (response.status_code, response.headers["content-type"]) == (200, media_type), path
        assert response.headers["cache-control"] == "no-cache" and response.headers["etag"]
    etag = get(app, "/page/page.mjs").headers["etag"]
    assert get(app, "/page/page.mjs", **{"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/edge/0a1b2c3d/private.txt",
        "/edge/ffffffff/edge.json",
        "/edge/0a1b2c3d/",
        "/examples/0a1b2c3d/1",
        "/examples/0a1b2c3d/../../3.png",
        "/page/../3.png",
        "/page/%2e%2e/3.png",
        "/page/",
        "/none",
    ],
)
def test_nothing_else_is_served(folders, path):
    assert refusal(get(app_of(folders), path))[0] == 404


def test_a_server_without_a_page_says_so(folders):
    (folders / "page" / "index.html").unlink()
    assert "no page" in refusal(get(app_of(folders), "/"))[1]


def test_every_answer_carries_the_policy(folders):
    app = app_of(folders, Decoder(RuntimeError("bug")))
    for response in (get(app, "/"), get(app, "/none"), post(app), post(app, content=b"")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "'wasm-unsafe-eval'" in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_the_documentation_lists_all_endpoints_and_loads_nothing(folders):
    app = app_of(folders)
    page = get(app, "/docs").text
    paths = get(app, "/openapi.json").json()["paths"]
    assert set(paths) == {"/classify", "/features", "/model", "/healthz", "/readyz", "/metrics"}
    assert all(path in page for path in paths)
    assert not re.search(r"<script|<link|<img|https?://", page)


def test_openapi_tells_body_and_errors(folders):
    for token, unauthorized in ((None, set()), ("secret", {"401"})):
        operation = get(app_of(folders, token=token), "/openapi.json").json()["paths"]["/classify"]["post"]
        assert set(operation["requestBody"]["content"]) == {"application/octet-stream"}
        assert set(operation["responses"]) == {"200", "400", "408", "413", "415", "500", "503"} | unauthorized
        assert ("security" in operation) == bool(token)


def request_of(app, messages):
    """Call the app as a server would, with messages that arrive from the client; return those that it sends."""
    sent, waiting = [], iter(messages)

    async def receive():
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.02)
        return message

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify", "query_string": b""}
    scope |= {"headers": [(b"content-type", b"application/octet-stream")], "http_version": "1.1", "root_path": ""}
    return sent, app(scope, receive, send)


BODY = {"type": "http.request", "body": STREAM, "more_body": False}
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("messages", [[GONE], [BODY | {"more_body": True}, GONE], [BODY, GONE]])
def test_a_client_that_goes_away_leaves_nothing_behind(folders, caplog, messages):
    class Busy(Decoder):
        cancelled = False

        async def submit(self, stream, kind):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

    decoder = Busy()
    app = app_of(folders, decoder)
    sent, answering = request_of(app, messages)
    asyncio.run(asyncio.wait_for(answering, 10))
    assert sent == [] and caplog.text == ""
    assert decoder.cancelled == (messages == [BODY, GONE])
    assert 'frankensplit_requests_total{endpoint="/classify",status="499"} 1.0' in get(app, "/metrics").text


def test_a_request_cut_off_by_the_shutdown_is_answered(folders):
    async def work():
        sent, answering = request_of(app_of(folders), [BODY | {"more_body": True}])
        task = asyncio.create_task(answering)
        await asyncio.sleep(0.1)
        task.cancel()
        await task
        return sent

    sent = asyncio.run(work())
    assert sent[0]["status"] == 503 and b"shutting down" in sent[1]["body"]
