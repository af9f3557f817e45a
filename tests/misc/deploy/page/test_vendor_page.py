import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "scripts" / "vendor_page.sh"
FILES = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]
TOOLS = ["bash", "dirname", "mktemp", "awk", "tar", "gzip", "grep", "sha256sum", "rm", "mv", "chmod", "cat", "basename"]


@pytest.fixture
def vendor(tmp_path):
    """Run a copy of the script where `npm` is a program of the test's own; return its result and the page's folder."""
    page = tmp_path / "misc" / "deploy" / "page"
    tools = tmp_path / "bin"
    scripts = tmp_path / "scripts"
    for folder in (page / "vendor", tools, scripts):
        folder.mkdir(parents=True)
    (page / "vendor" / "old").touch()
    shutil.copy(SCRIPT, scripts)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is not installed"
        (tools / tool).symlink_to(found)

    def run(npm: str | None) -> tuple[subprocess.CompletedProcess, Path]:
        if npm is not None:
            (tools / "npm").write_text(f"#!/bin/bash\n{npm}\n")
            (tools / "npm").chmod(0o755)
        command = ["bash", str(scripts / SCRIPT.name)]
        environment = {**os.environ, "PATH": str(tools)}
        return subprocess.run(command, env=environment, capture_output=True, text=True), page

    return run


def assert_refused(result: tuple[subprocess.CompletedProcess, Path], reason: str) -> None:
    done, page = result
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and reason in done.stderr
    assert [path.name for path in page.iterdir()] == ["vendor"]
    assert [path.name for path in (page / "vendor").iterdir()] == ["old"]


def test_without_npm(vendor):
    assert_refused(vendor(None), "install Node.js")


def test_offline(vendor):
    assert_refused(vendor("exit 1"), "check the network")


def archive(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            (path.parent / name).write_text("another file")
            tar.add(path.parent / name, f"package/dist/{name}")
    return path


def npm_of(packed: Path) -> str:
    """Return an `npm` that fetches an archive."""
    return f'cat {packed} >"$4/a.tgz"; echo a.tgz'


@pytest.fixture
def checked(vendor, tmp_path) -> str:
    """Return an `npm` that fetches the files that the script's copy expects."""
    packed = archive(tmp_path / "a.tgz", FILES)
    script = tmp_path / "scripts" / SCRIPT.name
    sums = hashlib.sha256(b"another file").hexdigest()
    script.write_text(re.sub(r"^[0-9a-f]{64} ", f"{sums} ", script.read_text(), flags=re.MULTILINE))
    return npm_of(packed)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_files_replace_the_old_ones(is_first, vendor, checked, tmp_path):
    if is_first:
        shutil.rmtree(tmp_path / "misc" / "deploy" / "page" / "vendor")
    done, page = vendor(checked)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in page.iterdir()] == ["vendor"]
    assert {path.name: path.read_text() for path in (page / "vendor").iterdir()} == dict.fromkeys(FILES, "another file")
    assert (page / "vendor").stat().st_mode & 0o777 == 0o755
    assert all(name in done.stdout for name in FILES)


@pytest.mark.parametrize(("end", "code"), [("exit 1", 2), ("kill $PPID; exit 1", -signal.SIGTERM)])
def test_a_replacement_that_does_not_finish_keeps_the_old_files(end, code, vendor, checked, tmp_path):
    tool = tmp_path / "bin" / "mv"
    real = tool.resolve()
    tool.unlink()
    tool.write_text(f'#!/bin/bash\n[[ $* == *.old* ]] || {{ {end}; }}\nexec {real} "$@"\n')
    tool.chmod(0o755)
    done, page = vendor(checked)
    assert done.returncode == code
    assert [path.name for path in page.iterdir()] == ["vendor"]
    assert [path.name for path in (page / "vendor").iterdir()] == ["old"]


def test_other_files_than_those_checked(vendor, tmp_path):
    packed = archive(tmp_path / "a.tgz", FILES)
    assert_refused(vendor(npm_of(packed)), "differ")


def test_a_missing_file(vendor, tmp_path):
    packed = archive(tmp_path / "a.tgz", FILES[:1])
    assert_refused(vendor(npm_of(packed)), "lacks a file")
