import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL
import pytest

import misc.deploy

REPOSITORY = Path(misc.deploy.__file__).parents[2]
PAGE = REPOSITORY / "misc" / "deploy" / "page"
CONFIG = "config/quickstart/sg_resnet.yaml"
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13  # resizes tall images columns first, as the page does
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
    *["--disable-component-update", "--disable-sync"],
]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture
def page() -> Path:
    """Return the folder of the page's files."""
    return PAGE


@pytest.fixture
def node():
    """Run Node.js with arguments and return what it prints."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not installed")

    def run(*args) -> str:
        done = subprocess.run([program, *map(str, args)], cwd=Path(__file__).parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Compose a small data set of digits on photographs."""
    from misc.datasets.digits import write_data_set

    root = tmp_path_factory.mktemp("data") / "digits"
    write_data_set(root, 10, 40)
    return root


@pytest.fixture(scope="session")
def launch():
    """Return a function that starts Chromium with more flags; all are closed at the end."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with contextlib.ExitStack() as stack:
        chromium = stack.enter_context(playwright.sync_playwright()).chromium

        def start(*flags: str):
            browser = chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
            stack.callback(browser.close)
            return browser

        yield start


@pytest.fixture(scope="session")
def browser(launch):
    """Return a Chromium whose camera shows a test pattern."""
    return launch(*FAKE_CAMERA)


@pytest.fixture(scope="session")
def server(launch, digits, tmp_path_factory):
    """Export the student's encoder, serve it, and return the server's URL."""
    if not (PAGE / "vendor").is_dir():
        pytest.skip("onnxruntime-web is missing: run scripts/vendor_page.sh")
    edge = tmp_path_factory.mktemp("export") / "edge"
    subprocess.run([sys.executable, "scripts/export.py", "--config", CONFIG, "-o", edge], cwd=REPOSITORY, check=True)
    arguments = ["--config", CONFIG, "--edge", edge, "--examples", "--set", f"dataset_root={digits}"]
    arguments += ["--port", "0", "--threads", "1"]
    command = [sys.executable, "scripts/serve.py", *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the server did not start"
            yield found[0]
        finally:
            process.terminate()


@pytest.fixture
def tab(browser, server):
    """Open the page and wait until it is ready; no script may fail."""
    with opened(browser, server) as page:
        expect_status(page, "Ready.")
        yield page


@contextlib.contextmanager
def opened(browser, url: str, **options):
    """Open a page that may still load; `page.complaints` collects what the console says of errors."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(url)
        yield page
        # A request that a test lets fail is the only error that the console may show.
        assert [text for text in page.complaints if not text.startswith("Failed to load resource")] == []


def expect_status(page, text: str | re.Pattern) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_have_text(text, timeout=60_000)
