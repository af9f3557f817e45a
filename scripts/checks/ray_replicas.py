"""Kill replicas and ingresses of the server on Ray Serve, and update them, while clients retry what is not answered.

    python scripts/checks/ray_replicas.py --config config/quickstart/sg_resnet.yaml

Needs misc/deploy/requirements-ray.txt. Every request must be answered in the end with the class that its stream had
before, and the longest pause between two answers of any client must be short. Ray's own ports are open to the network
unless the check runs without one: `unshare -n bash -c 'ip link set lo up; python ...'`.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import serve
from ray.serve.context import _get_global_client

from misc.deploy.ray_app import app
from misc.errors import exit_on_user_error
from misc.tables import text_table
from scripts.checks.server_storm import HOST, Answer, Request, connected, first_class, outcome_of, random_streams

AGAIN = {500, 503}
GIVE_UP_S = 60.0
PATIENCE_S = 180.0  # for new replicas
PAUSE_S = 3.0  # the most between two answers
STEADY_S = 3.0


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="of a student")
    add("--weights", type=Path, metavar="FILE", help="default: as scripts/serve.py")
    add("--replicas", type=int, default=2, help="that decode (default: %(default)s)")
    add("--cpus", type=float, default=1, help="of each (default: %(default)s)")
    add("--connections", type=int, default=8, help="open at once (default: %(default)s)")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the streams (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    streams = random_streams(args)
    with served(args):
        rows = asyncio.run(Trial(args, streams).run())
    header = ["", "requests", "again", "lost", "wrong", "pause s", "until replaced s"]
    print(text_table([header, *rows]))
    if any(row[3:5] != ["0", "0"] or float(row[5]) > PAUSE_S for row in rows):
        sys.exit(1)


@contextmanager
def served(args: argparse.Namespace) -> Iterator[None]:
    """Serve the model on a Ray of our own."""
    ray.init(address="local", num_cpus=args.replicas, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": HOST, "port": args.port})
        deploy(args)
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(args: argparse.Namespace, **others: Any) -> None:
    """Deploy the application and wait until it is ready; if it is there already, this is a rolling update."""
    own = {"weights": str(args.weights)} if args.weights else {}
    serve.run(app({"config": args.config, "replicas": args.replicas, "cpus": args.cpus, **own, **others}))


class Seen(NamedTuple):
    """What clients saw: how often requests ended in which way, and when answers came."""

    outcomes: Counter[str]
    times: list[float]


class Trial:
    """Everything that is done to the application.

    Args:
        args: the command line's.
        streams: good ones.
    """

    def __init__(self, args: argparse.Namespace, streams: list[bytes]) -> None:
        self.args = args
        self.streams = streams
        self.good: list[Request] = []

    async def run(self) -> list[list[str]]:
        """Return one row per event."""
        answers = [await asked(self.args.port, stream) for stream in self.streams]
        self.good = [Request(stream, first_class(answer)) for stream, answer in zip(self.streams, answers, strict=True)]
        events = {
            "nothing": self.nothing,
            "a killed replica": lambda: self.kill("Replica"),
            "a killed ingress": lambda: self.kill("Ingress"),
            "a rolling update": self.update,
        }
        return [[name, *map(str, await self.during(event))] for name, event in events.items()]

    async def during(self, event: Callable[[], Awaitable[str]]) -> list[object]:
        """Return what clients see before, during and after an event."""
        seen, is_over = Seen(Counter(), []), asyncio.Event()
        clients = [asyncio.create_task(self._client(seen, is_over)) for _ in range(self.args.connections)]
        await asyncio.sleep(STEADY_S)
        seconds = await event()
        await asyncio.sleep(STEADY_S)
        is_over.set()
        await asyncio.gather(*clients)
        pause = max(after - before for before, after in zip(seen.times, seen.times[1:], strict=False))
        names = ("request", "again", "lost", "wrong")
        return [*(seen.outcomes[name] for name in names), f"{pause:.2f}", seconds]

    async def _client(self, seen: Seen, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            seen.outcomes["request"] += 1
            request = self.good[seen.outcomes["request"] % len(self.good)]
            seen.outcomes[await self._persist(request, seen)] += 1

    async def _persist(self, request: Request, seen: Seen) -> str:
        end = time.monotonic() + GIVE_UP_S
        while time.monotonic() < end:
            try:
                answer = await asked(self.args.port, request.stream)
            except (OSError, asyncio.IncompleteReadError):
                answer = None
            if answer and answer.status not in AGAIN:
                seen.times.append(time.monotonic())
                return "right" if outcome_of(request, answer) == "classified" else "wrong"
            seen.outcomes["again"] += 1
            await asyncio.sleep(0.1)
        return "lost"

    async def nothing(self) -> str:
        return ""

    async def kill(self, deployment: str) -> str:
        """Kill a process of a deployment; return the seconds until another one is ready in its place."""
        before = await running(deployment)
        start = time.monotonic()
        os.kill(min(before), signal.SIGKILL)
        await self._until(deployment, lambda now: len(now) == len(before) and min(before) not in now)
        return f"{time.monotonic() - start:.1f}"

    async def update(self) -> str:
        """Replace all replicas by those with another `max_batch`; return the seconds that it takes."""
        before = await running("Replica")
        start = time.monotonic()
        await asyncio.to_thread(deploy, self.args, max_batch=16)
        await self._until("Replica", lambda now: len(now) == len(before) and not now & before)
        return f"{time.monotonic() - start:.1f}"

    async def _until(self, deployment: str, is_so: Callable[[set[int]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(await running(deployment)):
                await asyncio.sleep(0.1)


async def asked(port: int, stream: bytes) -> Answer:
    """Return the answer to a stream, on a connection of its own."""
    async with connected(port) as connection:
        return await connection.post(stream)


async def running(deployment: str) -> set[int]:
    """Return the ids of the processes of a deployment that are ready."""
    details = await asyncio.to_thread(lambda: _get_global_client().get_serve_details())
    replicas = details["applications"]["default"]["deployments"][deployment]["replicas"]
    return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}


if __name__ == "__main__":
    main()
