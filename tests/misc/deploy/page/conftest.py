import shutil
import subprocess
from pathlib import Path

import pytest

import misc.deploy

PAGE = Path(misc.deploy.__file__).parent / "page"


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
