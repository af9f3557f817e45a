"""The runs of a sweep as tasks of a Ray cluster whose machines share this repository's folder and its environment."""

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from misc.errors import UserError
from misc.sweeps.execute import log_of
from misc.sweeps.plan import Run

RETRIES = 3  # of a run whose worker died
PR_SET_PDEATHSIG = 1


@contextmanager
def ray_cluster(address: str) -> Iterator[Callable[[Run, str | None], bool]]:
    """Connect to a cluster; give a function that makes one run there and says whether it succeeded.

    A run is given the GPU it asks for; without `gpus`, one if the cluster has any. If its worker dies, another one
    resumes it from its checkpoint. Maps and timings are made by this process.

    Args:
        address: of the cluster: HOST:PORT, "auto" for the one that this machine belongs to, or "local" to start one.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install -r misc/deploy/requirements-ray.txt") from None
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from error
    try:
        yield lambda run, device: _made(ray, run, device)
    finally:
        ray.shutdown()


def _made(ray, run: Run, device: str | None) -> bool:
    log_of(run).parent.mkdir(parents=True, exist_ok=True)
    log_of(run).write_text("")
    on_cpu = device is not None and device.startswith("cpu")
    gpus = run.gpus if run.gpus is not None else int(not on_cpu and ray.cluster_resources().get("GPU", 0) > 0)
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_train)
    plain = Run(run.name, run.method, run.config, run.overrides, run.seed, run.folder.absolute(), run.gpus)
    try:
        return ray.get(task.remote(plain, device if gpus else "cpu", os.getcwd())) == 0
    except ray.exceptions.RayError as error:
        with open(log_of(run), "a") as log:
            print(f"error: Ray gave the run up: {error}", file=log)
        return False


def _train(run: Run, device: str | None, folder: str) -> int:
    """Train and test; a second attempt appends to the log of the first, and resumes it. Return the exit code."""
    with open(log_of(run), "a") as log:
        tied = functools.partial(_end_with, os.getpid())
        command = run.command(device)
        return subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, preexec_fn=tied).returncode


def _end_with(worker: int) -> None:
    """Tie this process to its worker's life, on Linux: a training left alone would keep its run folder locked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it died before
        os.kill(os.getpid(), signal.SIGKILL)
