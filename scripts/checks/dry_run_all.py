"""Dry-run every config, each in its own process with random weights and images; print one line per config."""

import argparse
import contextlib
import io
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from misc.files import ROOT


class Trial(NamedTuple):
    """The outcome of one config's dry run; `cause` is empty if it succeeded."""

    config: str
    seconds: float
    memory_gib: float
    cause: str


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", type=Path, metavar="FILE", help="default: all under config/")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="configs at a time (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    configs = [path.resolve() for path in args.configs] or experiments()
    # The workers inherit the imported libraries. One config per worker: peak memory is counted per process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main_classification_torchdistill"])
    failed, longest = 0, 0.0
    print(f"{'config':<64}{'seconds':>9}{'peak GiB':>10}")
    with ProcessPoolExecutor(args.jobs, context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(trial, path): path for path in configs}
        for done in as_completed(waiting):
            lost = Trial(str(waiting[done]), 0.0, 0.0, "the process died; is the memory enough?")
            result = done.result() if done.exception() is None else lost
            failed += bool(result.cause)
            longest = max(longest, result.seconds)
            print(f"{result.config:<64}{result.seconds:>9.1f}{result.memory_gib:>10.2f}  {result.cause}", flush=True)
    print(f"{len(configs) - failed} of {len(configs)} configs are sound; the longest took {longest:.0f} s")
    sys.exit(1 if failed else 0)


def experiments() -> list[Path]:
    """Return every config under config/ that can be run: all but bases and sweeps."""
    files = sorted((ROOT / "config").rglob("*.yaml"))
    return [path for path in files if "_base" not in path.parts and path.name != "sweep.yaml"]


def trial(path: Path) -> Trial:
    """Dry-run one config in this process, its output suppressed; the last line on stderr is a failure's cause."""
    from main_classification_torchdistill import main as run

    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    start, cause, errors = time.perf_counter(), "", io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            run(["--config", str(path), "--dry_run", "--device", "cpu"])
    except SystemExit:
        cause = (errors.getvalue().strip().splitlines() or ["it ended without a word"])[-1]
    except Exception as error:  # one config's failure must not hide the others
        cause = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Trial(name, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, cause)


if __name__ == "__main__":
    main()
