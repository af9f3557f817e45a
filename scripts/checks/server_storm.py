"""Storm a server: mutated streams, a long run, damaged streams among good ones, clients that misbehave, and signals.

    python scripts/checks/server_storm.py --config config/quickstart/sg_resnet.yaml

scripts/serve.py runs as a child process on a free port of this machine. Every good stream must be answered with the
class that it had on its own, every bad one refused, and the memory must stay bounded. The long run has 100,000
mutations and 200,000 requests. Needs /proc (Linux).
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from misc.config.entries import image_transform
from misc.config.load import compose_config
from misc.deploy.arguments import weights_of
from misc.deploy.load import load_edge
from misc.deploy.server.limits import BODY_SECONDS
from misc.errors import UserError, exit_on_user_error
from misc.files import ROOT
from misc.progress import progress_bar
from misc.tables import text_table
from model.coding.bitstream import MAX_BYTES
from scripts.checks.mutate_bitstreams import mutated, resealed

HOST = "127.0.0.1"
PATIENCE_S = 120.0  # for one answer, while many streams of the largest size wait
SOON_S = 1.0
CLOSING_S = 10.0
DAMAGED = 0.05
STREAMS = 8
MIXED, KILLED = 10_000, 2_000  # requests of these checks at most
BURST = 200  # requests in flight at SIGTERM; fewer than may wait
MIB = 2**20
# What the server's memory may grow by: by noise, and by the latents of the largest size that are decoded at once.
NOISE_MIB, LARGEST_MIB = 128, 2048
EITHER = -1
RIGHT = ("classified", "refused", "sent away")


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="of a student")
    add("--weights", type=Path, metavar="FILE", help="default: as scripts/serve.py")
    add("--mutations", type=int, default=500, help="mutated streams (default: %(default)s)")
    add("--requests", type=int, default=2_000, help="good streams in a row (default: %(default)s)")
    add("--connections", type=int, default=32, help="open at once (default: %(default)s)")
    add("--seed", type=int, default=0, help="of mutations and damage (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    options = ["--config", args.config, *(["--weights", str(args.weights)] if args.weights else [])]
    streams = random_streams(args)
    with tempfile.TemporaryFile() as log, Child(options, log) as child:
        rows = asyncio.run(Storm(args, child, streams).run())
        log.seek(0)
        tracebacks = log.read().count(b"Traceback")
    rows.append(["tracebacks", "", str(tracebacks), "in the server's log"])
    numbers = text_table([["", "requests", "failures"], *(row[:3] for row in rows)])
    outcomes = ["", *(row[3] for row in rows)]
    print("\n".join(f"{line}  {outcome}" for line, outcome in zip(numbers.splitlines(), outcomes, strict=True)))
    if any(row[2] != "0" for row in rows):
        sys.exit(1)


def random_streams(args: argparse.Namespace) -> list[bytes]:
    """Return the streams of images of noise."""
    config = compose_config(args.config, mode="test")
    weights = args.weights or weights_of(config, argparse.Namespace(config=args.config, run_dir=None))
    transform, rng = image_transform(config), np.random.default_rng(args.seed)
    noise = rng.integers(0, 256, (STREAMS, 256, 256, 3), dtype=np.uint8)
    return load_edge(config, weights).encode(torch.stack([transform(Image.fromarray(pixels)) for pixels in noise]))


class Child:
    """The server as a child process; use it as a context."""

    def __init__(self, options: list[str], log) -> None:
        self._options = options
        self._log = log
        self.port = 0
        self.process = self._started()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _started(self) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "scripts/serve.py"), *self._options, "--port", str(self.port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("serving"):
                raise UserError(f"the server did not start: exit code {process.wait(CLOSING_S)}")
            self.port = int(line.rpartition(":")[2])
        except BaseException:  # Ctrl-C reaches this process alone
            process.kill()
            process.wait()
            raise
        return process

    def restart(self) -> None:
        """Start again on the same port."""
        self.process = self._started()

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def is_gone(self) -> bool:
        """Tell whether neither the server nor a child of it lives."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes
    seconds: float


class Connection:
    """A connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def post(self, stream: bytes) -> Answer:
        """Send a stream to be classified.

        Raises:
            OSError, asyncio.IncompleteReadError: no answer came.
        """
        self.writer.write(head(len(stream)) + stream)
        return await self.answer()

    async def answer(self) -> Answer:
        """Read an answer; the seconds count from now."""
        start = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):
            top = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = top.partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await (self._reader.readexactly(int(length)) if length else self._reader.read())
        return Answer(int(top.split(maxsplit=2)[1]), body, time.perf_counter() - start)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Open a connection to the server."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def head(length: int | None) -> bytes:
    """Return the head of a request with a body of a known length, or else in chunks."""
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["POST /classify HTTP/1.1", f"Host: {HOST}", "Content-Type: application/octet-stream", body, "", ""]
    return "\r\n".join(lines).encode()


class Request(NamedTuple):
    """A stream and what must come back: a class, a refusal (None), or either of them (EITHER)."""

    stream: bytes
    expected: int | None


class Storm:
    """All checks of one server.

    Args:
        args: the command line's.
        child: the server.
        streams: good ones.
    """

    def __init__(self, args: argparse.Namespace, child: Child, streams: list[bytes]) -> None:
        self.args = args
        self.child = child
        self.chance = random.Random(args.seed)
        self.streams = streams
        self.good: list[Request] = []

    async def run(self) -> list[list[str]]:
        """Return one row per check: its name, requests, failures and outcome."""
        async with connected(self.child.port) as connection:
            answers = [await connection.post(stream) for stream in self.streams]
        self.good = [Request(stream, first_class(answer)) for stream, answer in zip(self.streams, answers, strict=True)]
        checks: list[Callable] = [self.mutations, self.soak, self.mixture, self.rudeness, self.kill, self.terminate]
        return [[check.__name__, *map(str, await check())] for check in checks]

    async def mutations(self) -> tuple[str, int, str]:
        """Send mutated streams, half of them with a right checksum."""
        requests = (self._mutant(number) for number in range(self.args.mutations))
        return await self._flooded("mutations", requests, self.args.mutations, LARGEST_MIB)

    async def soak(self) -> tuple[str, int, str]:
        """Send good streams; the memory must not grow after the first tenth."""
        requests = (self.chance.choice(self.good) for _ in range(self.args.requests))
        return await self._flooded("good streams", requests, self.args.requests, NOISE_MIB)

    async def mixture(self) -> tuple[str, int, str]:
        """Send good streams with damaged ones among them."""
        total = min(self.args.requests, MIXED)
        return await self._flooded("some damaged", (self._mixed() for _ in range(total)), total, NOISE_MIB)

    def _mutant(self, number: int) -> Request:
        mutant = mutated(self.chance.choice(self.streams), self.streams, self.chance)
        return Request(resealed(mutant) if number % 2 else mutant, EITHER)

    def _mixed(self) -> Request:
        good = self.chance.choice(self.good)
        if self.chance.random() >= DAMAGED:
            return good
        return Request(damaged(good.stream), None)

    async def _flooded(
        self, title: str, requests: Iterable[Request], total: int, most_growth: int
    ) -> tuple[str, int, str]:
        """Send requests over all connections; in MiB, the memory may grow by so much after the first tenth."""
        outcomes: Counter[str] = Counter()
        start, memory = time.perf_counter(), self.child.memory()
        with progress_bar(description=title, total=total, unit="requests") as bar:
            waiting = self._noting_memory(requests, total)
            await asyncio.gather(*(self._send(waiting, outcomes, bar) for _ in range(self.args.connections)))
        rate = total / (time.perf_counter() - start)
        memory, now = self._early_memory or memory, self.child.memory()
        grown = now > memory + most_growth
        outcome = f"{told(outcomes)}; {rate:.0f}/s; {memory:.0f} MiB at a tenth, {now:.0f} MiB at the end"
        return f"{total:,}", total - sum(outcomes[name] for name in RIGHT) + grown, outcome

    def _noting_memory(self, requests: Iterable[Request], total: int) -> Iterable[Request]:
        self._early_memory = 0.0
        for number, request in enumerate(requests):
            if number == total // 10:
                self._early_memory = self.child.memory()
            yield request

    async def _send(self, waiting: Iterable[Request], outcomes: Counter[str], bar: tqdm) -> None:
        async with connected(self.child.port) as connection:
            for request in waiting:
                outcomes[outcome_of(request, await connection.post(request.stream))] += 1
                bar.update()

    async def rudeness(self) -> tuple[str, int, str]:
        """Let clients misbehave in every way while a polite one asks for answers, which must come soon."""
        stream = self.streams[0]
        many, few = self.args.connections, 4
        half = head(len(stream)) + stream[: len(stream) // 2]
        ways = {
            "slow": (many, [half], (408,)),
            "half a head": (many, [half[:30]], ()),
            "half a body": (many, [half], ()),
            "gone early": (many, [head(len(stream)), stream], ()),
            "no HTTP": (many, [b"\0\xff\r\n\r\n"], (400,)),
            "too long": (many, [head(MAX_BYTES + 1)], (413,)),
            "endless": (few, [head(None), *[b"100000\r\n", bytes(MIB), b"\r\n"] * 17], (413,)),
        }
        rude = [asyncio.create_task(self._rude(*way)) for clients, *way in ways.values() for _ in range(clients)]
        slowest, asked = await self._polite(BODY_SECONDS / 2)
        right = sum(await asyncio.gather(*rude))
        wrong = len(rude) - right
        outcome = (
            f"{', '.join(ways)}: {wrong} answered wrongly; the slowest of {asked} polite answers took {slowest:.2f} s"
        )
        return f"{len(rude) + asked:,}", wrong + (slowest > SOON_S), outcome

    async def _rude(self, parts: list[bytes], expected: tuple[int, ...]) -> bool:
        """Send some bytes, then wait for an answer of an expected status, or leave if there is none."""
        try:
            async with connected(self.child.port) as connection:
                for part in parts:
                    connection.writer.write(part)
                    await connection.writer.drain()
                return not expected or (await connection.answer()).status in expected
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def _polite(self, seconds: float) -> tuple[float, int]:
        """Return the slowest of the answers to good requests, one at a time, and their number."""
        end, times = time.perf_counter() + seconds, []
        async with connected(self.child.port) as connection:
            while time.perf_counter() < end:
                request = self.chance.choice(self.good)
                answer = await connection.post(request.stream)
                times.append(answer.seconds if outcome_of(request, answer) == "classified" else PATIENCE_S)
        return max(times), len(times)

    async def kill(self) -> tuple[str, int, str]:
        """Kill the server and start it again, while clients try again what was not answered."""
        total = min(max(100, self.args.requests // 10), KILLED)
        waiting = iter([self.chance.choice(self.good) for _ in range(total)])
        outcomes: Counter[str] = Counter()
        clients = [asyncio.create_task(self._persist(waiting, outcomes)) for _ in range(4)]
        end = time.perf_counter() + PATIENCE_S
        while outcomes.total() < total // 3 and time.perf_counter() < end:
            await asyncio.sleep(0.001)
        self.child.process.kill()
        self.child.process.wait()
        await asyncio.to_thread(self.child.restart)
        await asyncio.gather(*clients)
        return f"{total:,}", total - outcomes["classified"], told(outcomes)

    async def _persist(self, waiting: Iterable[Request], outcomes: Counter[str]) -> None:
        for request in waiting:
            end = time.perf_counter() + PATIENCE_S
            while not (outcome := await self._outcome(request)) and time.perf_counter() < end:
                outcomes["tried again"] += 1
                await asyncio.sleep(0.1)
            outcomes[outcome or "lost"] += 1

    async def terminate(self) -> tuple[str, int, str]:
        """Send SIGTERM while streams wait: all must be answered, and the process must end with exit code 0."""
        requests = list(itertools.islice(itertools.cycle(self.good), BURST))
        outcomes: Counter[str] = Counter()
        clients = [asyncio.create_task(self._answered(request, outcomes)) for request in requests]
        async with connected(self.child.port) as connection:
            await asyncio.sleep(0)  # all clients connect and send before this one
            connection.writer.write(f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await connection.answer()
        self.child.process.send_signal(signal.SIGTERM)
        answered, start = outcomes.total(), time.perf_counter()
        await asyncio.gather(*clients)
        code = await asyncio.to_thread(self.child.process.wait, 30)
        seconds = time.perf_counter() - start
        outcome = f"{told(outcomes)}, {answered} before the signal; exit code {code} after {seconds:.1f} s"
        bad_end = code != 0 or not self.child.is_gone()
        return f"{BURST}", BURST - outcomes["classified"] + bad_end, outcome

    async def _answered(self, request: Request, outcomes: Counter[str]) -> None:
        outcomes[await self._outcome(request) or "lost"] += 1

    async def _outcome(self, request: Request) -> str | None:
        """Return the outcome of a request on a connection of its own; None if it is not answered."""
        try:
            async with connected(self.child.port) as connection:
                return outcome_of(request, await connection.post(request.stream))
        except (OSError, asyncio.IncompleteReadError):
            return None


def first_class(answer: Answer) -> int:
    """Return the most probable class of an answer that must be good."""
    if answer.status != 200:
        raise UserError(f"a good stream was answered with {answer.status}: {answer.body.decode(errors='replace')}")
    return json.loads(answer.body)["classes"][0]["index"]


def outcome_of(request: Request, answer: Answer) -> str:
    """Return "classified", "refused" or "sent away" if that is right, or else what is wrong."""
    if answer.status == 200 and request.expected in (EITHER, first_class(answer)):
        return "classified"
    if answer.status == 400 and request.expected in (EITHER, None):
        return "refused"
    if answer.status == 503 and request.expected == EITHER:  # a few streams of the largest size fill the queue
        return "sent away"
    return f"wrongly {answer.status}"


def damaged(stream: bytes) -> bytes:
    """Return a stream with a right checksum whose symbols cannot be decoded: a byte is left over."""
    return resealed(stream[:-4] + b"\1" + stream[-4:])


def told(outcomes: Counter[str]) -> str:
    """Return the counts as text."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items()))


if __name__ == "__main__":
    main()
