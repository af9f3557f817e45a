"""The page in Chromium: what goes wrong is told, with what to do."""

import json
import re

import pytest
from PIL import Image

from tests.misc.deploy.page.conftest import expect_status, opened

pytestmark = pytest.mark.slow
RESULT = re.compile(r".+: [\d.]+ %, from \d+ bytes\.")


def problem_of(tab) -> str:
    tab.locator("#problem").wait_for()
    return tab.inner_text("#problem-text")


def choose(tab, name: str, content: bytes) -> str:
    """Choose a file and return the problem that the page shows."""
    kind = "text/plain" if name.endswith(".txt") else "image/jpeg"
    tab.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
    return problem_of(tab)


def test_text_file(tab):
    assert "not a picture" in choose(tab, "notes.txt", b"hello")


def test_damaged_picture(tab, digits, tmp_path):
    path = tmp_path / "picture.jpg"
    Image.open(next(digits.glob("val/*/*.png"))).resize((300, 300)).save(path)
    content = path.read_bytes()
    assert "damaged" in choose(tab, "picture.jpg", content[:200])


def test_file_too_large(tab, tmp_path):
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(51_000_000)
    tab.set_input_files("#file", path)
    assert "50 MB" in problem_of(tab)


@pytest.mark.parametrize(("size", "reason"), [((9000, 8000), "64 megapixels"), ((201, 2), "crop it")])
def test_picture_of_refused_size(size, reason, tab, tmp_path):
    path = tmp_path / "picture.png"
    Image.new("1", size).save(path)
    tab.set_input_files("#file", path)
    assert reason in problem_of(tab)


def test_a_picture_after_a_problem(tab):
    choose(tab, "notes.txt", b"hello")
    tab.click("#examples button >> nth=0")
    expect_status(tab, RESULT)
    assert tab.locator("#problem").is_hidden()


def test_text_dropped(tab):
    tab.evaluate("""document.body.dispatchEvent(new DragEvent("drop",
        { dataTransfer: new DataTransfer(), bubbles: true, cancelable: true }))""")
    assert "not a file" in problem_of(tab)


def test_server_gone_and_back(tab):
    tab.route("**/classify", lambda route: route.abort())
    tab.click("#examples button >> nth=0")
    assert "does not answer" in problem_of(tab) and "scripts/serve.py" in problem_of(tab)
    tab.unroute("**/classify")
    tab.click("#again")
    expect_status(tab, RESULT)


def test_server_gone_at_first(browser, server):
    with opened(browser, "about:blank") as tab:
        tab.route("**/model", lambda route: route.abort())
        tab.goto(server)
        assert "does not answer" in problem_of(tab)
        tab.unroute("**/model")
        tab.click("#again")
        expect_status(tab, "Ready.")


@pytest.mark.parametrize("path", ["/model", "/classify"])
def test_another_server(path, browser, server):
    with opened(browser, "about:blank") as tab:
        tab.route(f"**{path}", lambda route: route.fulfill(status=200, body="<p>Sign in</p>"))
        tab.goto(server)
        if path == "/classify":
            tab.click("#examples button >> nth=0")
        assert f"{path} is no FrankenSplit server's" in problem_of(tab)


def test_busy_server(tab):
    answer = {"status": 503, "headers": {"Retry-After": "7"}, "json": {"detail": "busy"}}
    tab.route("**/classify", lambda route: route.fulfill(**answer))
    tab.click("#examples button >> nth=0")
    assert "try again in 7 s" in problem_of(tab)
    assert tab.locator("#again").is_visible()


def test_refused_stream(tab):
    tab.route("**/classify", lambda route: route.fulfill(status=400, json={"detail": "the stream is damaged"}))
    tab.click("#examples button >> nth=0")
    assert "the stream is damaged" in problem_of(tab)


def test_token(tab):
    def answer(route):
        if route.request.headers.get("authorization") == "Bearer secret":
            return route.continue_()
        return route.fulfill(status=401, json={"detail": "a token is wanted"})

    tab.route("**/classify", answer)
    tab.click("#examples button >> nth=0")
    assert "wants a token" in problem_of(tab)
    tab.keyboard.type("wrong")  # the field has the focus
    tab.keyboard.press("Enter")
    tab.locator("text=refuses this token").wait_for()
    tab.fill("#token", "secret")
    tab.keyboard.press("Enter")
    expect_status(tab, RESULT)
    tab.click("#examples button >> nth=1")
    expect_status(tab, RESULT)
    assert tab.locator("#problem").is_hidden()


def changed_json(change):
    """Return a route's handler that changes the server's JSON."""

    def handle(route):
        content = route.fetch().json()
        change(content)
        route.fulfill(status=200, body=json.dumps(content), content_type="application/json")

    return handle


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("**/model", lambda content: content["models"][0].update(edge=None), r"export.py .*serve.py .*--edge DIR"),
        ("**/edge.json", lambda content: content.update(format=2), "format 2 .* export it again"),
        ("**/edge.json", lambda content: content.update(stream=3), "stream version 3, .* export it again"),
        ("**/edge.json", lambda content: content.update(sha256="0" * 64), "encoder.onnx is damaged"),
        ("**/edge.json", lambda content: content["transform"].insert(0, {"op": "twirl"}), '"twirl"'),
    ],
    ids=["no encoder", "format", "stream", "checksum", "transform"],
)
def test_export_that_cannot_be_used(path, change, reason, browser, server):
    with opened(browser, "about:blank") as tab:
        tab.route(path, changed_json(change))
        tab.goto(server)
        assert re.search(reason, problem_of(tab))


def test_without_onnxruntime(browser, server):
    with opened(browser, "about:blank") as tab:
        tab.route("**/vendor/*", lambda route: route.fulfill(status=404))
        tab.goto(server)
        assert "scripts/vendor_page.sh" in problem_of(tab)


def test_without_webassembly(browser, server):
    with opened(browser, "about:blank") as tab:
        tab.add_init_script("delete globalThis.WebAssembly")
        tab.goto(server)
        assert "no WebAssembly" in problem_of(tab)


def test_without_camera(launch, server):
    with opened(launch(), server) as tab:
        expect_status(tab, "Ready.")
        tab.click("#camera")
        assert re.search("camera is not allowed|No camera", problem_of(tab))


def test_camera_that_the_browser_does_not_offer(browser, server):
    with opened(browser, "about:blank") as tab:
        tab.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
        tab.goto(server)
        expect_status(tab, "Ready.")
        assert tab.locator("#camera").is_hidden()
        assert "HTTPS or localhost" in tab.inner_text("#camera-note")


def test_several_models(browser, server):
    def add(content):
        other = {
            **content["models"][0],
            "fingerprint": "00000000",
            "config": "other.yaml",
            "edge": None,
            "examples": [],
        }
        content["models"].insert(0, other)

    with opened(browser, "about:blank") as tab:
        tab.route("**/model", changed_json(add))
        tab.goto(server)
        expect_status(tab, "Ready.")  # the first with an encoder
        tab.click("#examples button >> nth=0")
        expect_status(tab, RESULT)
        tab.select_option("#model", "00000000")
        assert "other.yaml" in problem_of(tab) and tab.locator("#result").is_hidden()
        tab.select_option("#model", index=1)
        expect_status(tab, RESULT)
