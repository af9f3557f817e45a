"""Time whole processes that encode one image, and measure their memory and their environments."""

import statistics
import subprocess
import sys
from pathlib import Path

from misc.deploy.sample_images import generated_samples
from misc.errors import UserError
from misc.files import ROOT
from misc.progress import progress_bar

MIB = 2**20
# In a small process of its own: a command started from here would count this process's memory as its own.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(code, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def process_table(student: list[str], exports: Path, slim: Path, rounds: int) -> list[list[str]]:
    """Return seconds, peak memory and size of the environment of `scripts/encode.py` and of the exported client.

    Args:
        student: arguments of `scripts/encode.py` that select the student.
        exports: folder with the export `float32`; images and streams are written beside it.
        slim: the client's interpreter.
        rounds: in which each runs once, after one for warm-up.

    Raises:
        UserError: a command fails, or the client's interpreter is none.
    """
    sizes = [environment_size(python) for python in (sys.executable, str(slim))]
    image = exports / "image.png"
    generated_samples(1).images[0].save(image)
    client = [str(exports / "float32" / "edge_client.py"), "encode", str(exports / "float32")]
    commands = {
        "scripts/encode.py": [sys.executable, str(ROOT / "scripts/encode.py"), *student],
        "edge_client.py": [str(slim), *client],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in progress_bar(range(1 + rounds), "rounds", unit="rounds"):
        for name, command in commands.items():
            found[name].append(run([*command, str(image), "-o", str(exports / "streams")]))
    rows = [["one image, whole process", "seconds", "peak MiB", "environment MiB"]]
    for name, size in zip(commands, sizes, strict=True):
        seconds, memory = (statistics.median(values) for values in zip(*found[name][1:], strict=True))
        rows.append([name, f"{seconds:.2f}", f"{memory:.0f}", f"{size:,.0f}"])
    return rows


def run(command: list[str]) -> tuple[float, float]:
    """Return a command's seconds and its peak resident memory in MiB.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True)
    code, seconds, peak = map(float, done.stdout.split())
    if code:
        raise UserError(f"{' '.join(command)} ended with exit code {code:.0f}")
    return seconds, peak / (1024 if sys.platform != "darwin" else MIB)


def environment_size(python: str) -> float:
    """Return the size on disk of an interpreter's environment in MiB.

    Raises:
        UserError: the file is no Python interpreter.
    """
    try:
        done = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"cannot run {python}: {error.strerror}") from error
    prefix = done.stdout.strip()
    if done.returncode or not prefix:
        raise UserError(f"{python} is no Python interpreter")
    files = (path.lstat() for path in Path(prefix).rglob("*"))
    return sum(found.st_blocks * 512 for found in files) / MIB
