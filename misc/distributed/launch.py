"""Processes that share a job, started from Python."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def in_processes(number: int, function: Callable[..., Any], *args: Any, start_method: str = "spawn") -> list[Any]:
    """Runs a function in processes as torchrun starts them; returns what it gave on each rank.

    Raises:
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: one has failed, and the others were ended.
    """
    where = {"run_id": "local", "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    launch = LaunchConfig(1, 1, number, **where, start_method=start_method)
    launch.max_restarts = 0
    results = elastic_launch(launch, _call)(function, *args)
    return [results[rank] for rank in range(number)]


def _call(function: Callable[..., Any], *args: Any) -> Any:
    # A forked process has the handler of the one that started it, an exception that anybody may catch.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    return function(*args)
