"""The page in Chromium: pictures become the bytes that scripts/encode.py makes of them, and classes."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from misc.config.entries import image_transform
from misc.config.load import compose_config
from misc.datasets.image_folder import read_rgb
from misc.deploy import load_edge
from tests.misc.deploy.page.conftest import CONFIG, PILLOW_13, expect_status, opened

pytestmark = pytest.mark.slow
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"
RESULT = re.compile(r".+: [\d.]+ %, from \d+ bytes\.")


@pytest.fixture(scope="module")
def encode():
    """Return a function from an image file to its stream."""
    config = compose_config(CONFIG, mode="test")
    edge, transform = load_edge(config, WEIGHTS), image_transform(config)
    return lambda path: edge.encode(transform(read_rgb(path))[None])[0]


@pytest.fixture(scope="module")
def photograph(digits) -> np.ndarray:
    """Return a picture of 300 x 200 with detail, (200, 300, 3)."""
    paths = sorted(digits.glob("val/*/*.png"))[:2]
    small = np.concatenate([np.asarray(Image.open(path)) for path in paths], 1)
    return np.asarray(Image.fromarray(small).resize((300, 200), Image.BICUBIC))


@pytest.fixture
def sent(tab) -> list[bytes]:
    """Return the bodies that the page posts, as they come."""
    bodies = []
    tab.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_buffer))
    return bodies


def drop(tab, path: Path) -> None:
    """Drop a file on the page."""
    script = """async ([bytes, name, type]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
        const target = document.getElementById("drop");
        target.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    tab.evaluate(script, [list(path.read_bytes()), path.name, f"image/{path.suffix[1:]}"])


def test_every_example(tab, sent, server, digits, encode):
    hosts = set()
    tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    buttons = tab.locator("#examples button")
    assert buttons.count() == 8
    for number in range(8):
        with tab.expect_response("**/classify"):
            buttons.nth(number).click()
    expect_status(tab, RESULT)
    assert tab.locator("#classes li").count() == 5
    expected = {encode(path) for path in digits.glob("val/*/*.png")}
    assert len(set(sent)) == 8 and set(sent) <= expected
    assert tab.locator("#sizes li").all_inner_texts()[0].split() == ["Sent", str(len(sent[-1])), "bytes"]
    assert re.fullmatch(r"[\d.]+ ms, of which the server took [\d.]+ ms", tab.inner_text("#round-trip"))
    assert hosts == {server.removeprefix("http://")}
    assert tab.complaints == []


def kinds(photograph: np.ndarray) -> dict[str, dict]:
    image = Image.fromarray(photograph)
    alpha = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    with_alpha = Image.fromarray(np.dstack([photograph, alpha]))
    palette = image.quantize(16)
    return {
        "png": {"image": image, "format": "png"},
        "jpeg 4:2:0": {"image": image, "format": "jpeg", "subsampling": 2},
        "jpeg 4:4:4": {"image": image, "format": "jpeg", "subsampling": 0},
        "progressive": {"image": image, "format": "jpeg", "progressive": True},
        "grey": {"image": image.convert("L"), "format": "jpeg"},
        "lossless webp": {"image": image, "format": "webp", "lossless": True},
        "alpha": {"image": with_alpha, "format": "png"},
        "palette": {"image": palette, "format": "png"},
        "transparent colour": {"image": palette, "format": "png", "transparency": 3},
        "gamma": {"image": image, "format": "png", "gamma": True},
        **({"tall": {"image": image.resize((90, 300)), "format": "png"}} if PILLOW_13 else {}),
        "smaller than the crop": {"image": image.resize((40, 30)), "format": "png"},
    }


def test_dropped_files(tab, sent, tmp_path, photograph, encode):
    expected = {}
    for kind, options in kinds(photograph).items():
        image, form, gamma = options.pop("image"), options["format"], options.pop("gamma", False)
        file = io.BytesIO()
        image.save(file, **options)
        path = tmp_path / f"picture.{form}"
        path.write_bytes(_with_gamma(file.getvalue()) if gamma else file.getvalue())
        expected[kind] = encode(path)
        with tab.expect_response("**/classify"):
            drop(tab, path)
    assert dict(zip(expected, sent, strict=True)) == expected


def _with_gamma(png: bytes) -> bytes:
    """Say in a PNG that its values are linear, which colour management would change."""
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    return png[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def test_photograph_on_its_side_is_turned(tab, sent, tmp_path, photograph, encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    path, turned = tmp_path / "picture.jpeg", tmp_path / "turned.png"
    Image.fromarray(photograph).save(path, exif=exif)
    ImageOps.exif_transpose(Image.open(path)).save(turned)
    drop(tab, path)
    expect_status(tab, RESULT)
    assert sent == [encode(turned)] != [encode(path)]


def test_camera(tab, sent):
    tab.click("#camera")
    tab.locator("#camera-dialog video").wait_for()
    tab.click("text=Cancel")
    assert tab.evaluate("document.querySelector('video').srcObject") is None
    assert tab.locator("#result").is_hidden() and tab.locator("#problem").is_hidden()
    tab.click("#camera")
    tab.click("text=Take the picture")
    expect_status(tab, RESULT)
    assert len(sent) == 1


SLOW_CAMERA = """
window.streams = [];
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (options) => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const stream = await open(options);
    window.streams.push(stream);
    return stream;
};
"""


def test_camera_clicked_again_before_it_is_allowed(browser, server):
    with opened(browser, "about:blank") as tab:
        tab.add_init_script(SLOW_CAMERA)
        tab.goto(server)
        expect_status(tab, "Ready.")
        tab.evaluate("for (let click = 0; click < 2; click++) document.getElementById('camera').click()")
        tab.wait_for_timeout(1000)
        tab.click("text=Take the picture")
        expect_status(tab, RESULT)
        tracks = "window.streams.map((stream) => stream.getTracks().map(({ readyState }) => readyState))"
        assert tab.evaluate(tracks) == [["ended"]]
        assert tab.evaluate("document.activeElement.id") == "camera"


def test_keyboard_alone(tab, sent):
    for _ in range(3):  # choose, camera, first example
        tab.keyboard.press("Tab")
        focused = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.evaluate(focused) == "solid"
    tab.keyboard.press("Enter")
    expect_status(tab, RESULT)
    tab.locator("#blend").focus()
    before = float(tab.evaluate("document.getElementById('map').style.opacity"))
    tab.keyboard.press("ArrowRight")
    assert float(tab.evaluate("document.getElementById('map').style.opacity")) > before
    assert len(sent) == 1


@pytest.mark.parametrize("width", [320, 1280])
def test_no_horizontal_scrolling(width, browser, server):
    with opened(browser, server, viewport={"width": width, "height": 600}) as tab:
        expect_status(tab, "Ready.")
        widths = [tab.evaluate("document.documentElement.scrollWidth")]
        tab.click("#examples button >> nth=0")
        expect_status(tab, RESULT)
        widths.append(tab.evaluate("document.documentElement.scrollWidth"))
        assert tab.locator("#status").bounding_box()["y"] < 600
        tab.route("**/classify", lambda route: route.fulfill(status=401, json={"detail": "no"}))
        tab.click("#examples button >> nth=0")
        tab.locator("#token").wait_for()
        widths.append(tab.evaluate("document.documentElement.scrollWidth"))
        assert widths == [width] * 3
