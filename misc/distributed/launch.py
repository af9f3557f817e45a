"""Start ranks from Python, without torchrun."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def in_processes(number: int, function: Callable[..., Any], *args: Any, start_method: str = "spawn") -> list[Any]:
    """Call a function in several processes, set up as by torchrun; return its results in rank order.

    Args:
        number: of processes.
        function: what to call in each; both it and its results must be picklable.
        *args: its arguments.
        start_method: of multiprocessing, "spawn" or "fork".

    Raises:
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: one failed; the others were terminated.
    """
    rendezvous = {"run_id": "local", "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    launch = LaunchConfig(1, 1, number, **rendezvous, start_method=start_method)
    launch.max_restarts = 0
    results = elastic_launch(launch, _call)(function, *args)
    return [results[rank] for rank in range(number)]


def _call(function: Callable[..., Any], *args: Any) -> Any:
    # A forked process inherits its parent's handler, which raises an exception that any code may catch.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    return function(*args)
