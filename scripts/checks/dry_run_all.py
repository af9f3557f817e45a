"""Tries every config on random weights and images, each in a process of its own, and prints one line for each."""

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

ROOT = Path(__file__).resolve().parents[1]


class Trial(NamedTuple):
    """What became of one config; `cause` is empty where it went well."""

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
    # The workers inherit the imported libraries; one config per worker, so that its peak memory is its own.
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
    """Returns every config under config/ that can be run: all but bases and sweeps."""
    files = sorted((ROOT / "config").rglob("*.yaml"))
    return [path for path in files if "_base" not in path.parts and path.name != "sweep.yaml"]


def trial(path: Path) -> Trial:
    """Runs one config's `--dry_run` in this process; what it prints is kept back unless it fails."""
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
