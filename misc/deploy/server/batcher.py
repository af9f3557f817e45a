"""A queue of streams and the one thread that decodes them, in batches of what is there."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from misc.deploy.server.decoding import Kind, StreamDecoder, Wanted
from misc.deploy.server.metrics import Metrics

CLOSING_SECONDS = 5
# Of the streams that wait or are decoded, in latents of the largest size; it is also 167 latents of 28 x 28.
MAX_COST = 8
log = logging.getLogger(__name__)


class OverloadedError(Exception):
    """No more streams are taken: too many wait, or the batcher has ended."""


class Job(NamedTuple):
    """A queued stream, and where its result goes."""

    wanted: Wanted
    result: Future[np.ndarray]


class Batcher:
    """Decode queued streams on one thread; use it as a context.

    The thread takes what is queued and never waits for more: at low load a stream is decoded at once, at high load
    streams gather while others are decoded.

    Args:
        decoder: of the streams.
        metrics: to which queue and batches are reported.
        max_batch: streams decoded at once.
        max_queue: streams that wait, if they are small; fewer large ones are taken (`MAX_COST`).
    """

    def __init__(self, decoder: StreamDecoder, metrics: Metrics, max_batch: int, max_queue: int):
        self._decoder = decoder
        self._metrics = metrics
        self._max_batch = max_batch
        self._queue: queue.Queue[Job | None] = queue.Queue(max_queue)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._cost = 0.0
        self._has_ended = False
        metrics.queue_length.set_function(self._queue.qsize)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended = True
        with suppress(queue.Full):  # of a thread that hangs
            self._queue.put(None, timeout=CLOSING_SECONDS)
        self._thread.join(CLOSING_SECONDS)

    async def submit(self, stream: bytes, kind: Kind) -> np.ndarray:
        """Return a stream's result (`StreamDecoder.decode`); if this is cancelled in the queue, its work is skipped.

        Raises:
            OverloadedError: too many streams wait already, or the batcher has ended.
            BitstreamError: the stream cannot be decoded.
        """
        cost = self._decoder.cost(stream)
        if self._has_ended or self._cost + cost > MAX_COST:
            raise OverloadedError
        job = Job(Wanted(stream, kind), Future())
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise OverloadedError from None
        self._cost += cost
        try:
            return await asyncio.wrap_future(job.result)
        finally:
            self._cost -= cost

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            jobs, is_last = self._gather(first)
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            if jobs:
                self._decode(jobs)
            if is_last:
                return

    def _gather(self, first: Job) -> tuple[list[Job], bool]:
        """Return the first job and those queued behind it, and whether the batcher closes after them."""
        jobs = [first]
        while len(jobs) < self._max_batch:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _decode(self, jobs: list[Job]) -> None:
        start = time.perf_counter()
        results = self._results([job.wanted for job in jobs])
        self._metrics.batch(len(jobs), time.perf_counter() - start)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)

    def _results(self, batch: list[Wanted]) -> Sequence[np.ndarray | Exception]:
        try:
            return self._decoder.decode(batch)
        except Exception as error:  # the thread must live on
            log.exception("a batch of %d streams", len(batch))
            return [error] * len(batch)
