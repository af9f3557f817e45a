"""Time requests to the server, with and without batches, and with damaged streams among the good ones."""

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from misc.errors import UserError
from misc.progress import progress_bar
from scripts.checks.mutate_bitstreams import resealed
from scripts.checks.server_storm import Child, connected, random_streams

CLIENTS = (1, 8, 64)
DAMAGED = 0.05
BATCHES, SINGLE, MIXED = "batches of at most 32", "one at a time", "batches, 5 % damaged streams"


class Load(NamedTuple):
    """What clients saw: good answers per second, the seconds of each good answer, and good requests without one."""

    rate: float
    seconds: list[float]
    lost: int


def serve_table(config: str, rounds: int, requests: int) -> list[list[str]]:
    """Return requests/s and latencies at 1, 8 and 64 clients; servers and clients share this machine.

    Args:
        config: path of the student's config.
        rounds: in which each measurement is made once.
        requests: of one measurement.
    """
    streams = random_streams(argparse.Namespace(config=config, weights=None, seed=0))
    damaged = [undecodable(stream) for stream in streams]
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        servers = {
            batch: stack.enter_context(Child(["--config", config, "--threads", "1", "--max_batch", batch], log))
            for batch in ("32", "1")
        }
        sides = {SINGLE: (servers["1"], []), BATCHES: (servers["32"], []), MIXED: (servers["32"], damaged)}
        loads: dict[tuple[str, int], list[Load]] = {key: [] for key in itertools.product(sides, CLIENTS)}
        for _ in progress_bar(range(rounds), "rounds", unit="rounds"):
            for (name, clients), found in loads.items():
                server, bad = sides[name]
                found.append(asyncio.run(load(server.port, streams, bad, clients, requests)))
    return [header(), *(row(name, loads) for name in sides)]


def undecodable(stream: bytes) -> bytes:
    """Return a stream with a valid checksum whose payload has a byte too many, which only decoding finds."""
    return resealed(stream[:-4] + b"\1" + stream[-4:])


def header() -> list[str]:
    """Return the table's first row."""
    columns = (f"{clients} client{'s' * (clients > 1)}: req/s, p50 ms, p99 ms (ratio)" for clients in CLIENTS)
    return ["", *columns, "good ones lost"]


def row(name: str, loads: dict[tuple[str, int], list[Load]]) -> list[str]:
    """Return a row: medians over the rounds, and the median ratio of the rates to those of single streams."""
    cells = []
    for clients in CLIENTS:
        found = loads[name, clients]
        rate = statistics.median(each.rate for each in found)
        ratio = statistics.median(a.rate / b.rate for a, b in zip(found, loads[SINGLE, clients], strict=True))
        waits = sorted(second for each in found for second in each.seconds)
        p50, p99 = (1000 * waits[int(part * (len(waits) - 1))] for part in (0.5, 0.99))
        cells.append(f"{rate:.0f}, {p50:.1f}, {p99:.1f} ({ratio:.2f})")
    return [name, *cells, str(sum(each.lost for clients in CLIENTS for each in loads[name, clients]))]


async def load(port: int, streams: list[bytes], bad: list[bytes], clients: int, requests: int) -> Load:
    """Let clients send streams, each the next as soon as it has an answer; five percent are bad, if there are any.

    A client whose connection breaks sends no more; what no client sends is lost.

    Raises:
        UserError: no good stream was answered.
    """
    chance = random.Random(0)
    are_good = [not bad or chance.random() >= DAMAGED for _ in range(requests)]
    left = iter(are_good)
    seconds: list[float] = []

    async def client() -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            async with connected(port) as connection:
                for is_good in left:
                    start = time.perf_counter()
                    answer = await connection.post(chance.choice(streams if is_good else bad))
                    if is_good and answer.status == 200:
                        seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - start
    if not seconds:
        raise UserError(f"the server answered none of {sum(are_good):,} good streams")
    return Load(len(seconds) / took, seconds, sum(are_good) - len(seconds))
