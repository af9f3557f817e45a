import asyncio
import threading

import numpy as np
import pytest

from misc.deploy.server.batcher import Batcher, OverloadedError
from misc.deploy.server.metrics import Metrics
from model.coding.bitstream import BitstreamError


class Held:
    """A stub of a decoder: it waits until it is released, and returns the length of each stream."""

    def __init__(self):
        self.released = threading.Event()
        self.started = threading.Event()
        self.batches = []

    def decode(self, batch):
        self.batches.append([wanted.stream for wanted in batch])
        self.started.set()
        assert self.released.wait(10)
        return [self.result(wanted.stream) for wanted in batch]

    def cost(self, stream):
        return 3 if stream == b"large" else 0.1

    def result(self, stream):
        if stream == b"bug in the decoder":
            raise ZeroDivisionError
        return BitstreamError("bad") if stream == b"bad" else np.array(len(stream))


def run(work, max_batch=4, max_queue=8):
    """Run a coroutine function of decoder and batcher."""
    decoder, metrics = Held(), Metrics()

    async def limited():
        async with asyncio.timeout(20):
            with Batcher(decoder, metrics, max_batch, max_queue) as batcher:
                await work(decoder, batcher)

    try:
        asyncio.run(limited())
    finally:
        decoder.released.set()
    return decoder, metrics


async def queued(decoder, batcher, *streams):
    """Submit streams while the decoder is at work on another; return their tasks and that of the other."""
    first = asyncio.create_task(batcher.submit(b"first", "classes"))
    await asyncio.to_thread(decoder.started.wait, 10)
    tasks = [asyncio.create_task(batcher.submit(stream, "classes")) for stream in streams]
    await asyncio.sleep(0.01)
    return tasks, first


def test_a_lone_stream_is_not_kept_waiting():
    async def work(decoder, batcher):
        decoder.released.set()
        assert await batcher.submit(b"abc", "classes") == 3

    assert run(work)[0].batches == [[b"abc"]]


def test_what_gathers_is_decoded_in_batches_of_limited_size():
    async def work(decoder, batcher):
        tasks, first = await queued(decoder, batcher, *(bytes(n) for n in range(1, 7)))
        decoder.released.set()
        assert [int(n) for n in await asyncio.gather(first, *tasks)] == [5, 1, 2, 3, 4, 5, 6]

    decoder, metrics = run(work)
    assert [len(batch) for batch in decoder.batches] == [1, 4, 2]
    assert (
        b"frankensplit_batch_size_count 3.0" in metrics.text() and b"frankensplit_batch_size_sum 7.0" in metrics.text()
    )


def test_an_error_reaches_its_own_stream_alone():
    async def work(decoder, batcher):
        tasks, _ = await queued(decoder, batcher, b"good", b"bad")
        decoder.released.set()
        good, bad = await asyncio.gather(*tasks, return_exceptions=True)
        assert good == 4 and isinstance(bad, BitstreamError)

    run(work)


def test_a_full_queue_refuses_and_recovers():
    async def work(decoder, batcher):
        tasks, _ = await queued(decoder, batcher, b"1", b"22")
        assert b"frankensplit_queue_length 2.0" in batcher._metrics.text()
        with pytest.raises(OverloadedError):
            await batcher.submit(b"333", "classes")
        decoder.released.set()
        await asyncio.gather(*tasks)
        assert await batcher.submit(b"4444", "classes") == 4

    run(work, max_queue=2)


def test_large_streams_fill_the_queue_sooner():
    async def work(decoder, batcher):
        tasks, _ = await queued(decoder, batcher, b"large", b"large")
        with pytest.raises(OverloadedError):
            await batcher.submit(b"large", "classes")
        small = asyncio.create_task(batcher.submit(b"small", "classes"))
        tasks[0].cancel()  # what nobody waits for makes room
        await asyncio.sleep(0.01)
        decoder.released.set()
        assert await batcher.submit(b"large", "classes") == await small == 5

    run(work)


def test_nothing_is_taken_after_the_end():
    async def work():
        with Batcher(Held(), Metrics(), 4, 8) as batcher:
            pass
        with pytest.raises(OverloadedError):
            await asyncio.wait_for(batcher.submit(b"late", "classes"), 5)

    asyncio.run(work())


def test_work_that_nobody_waits_for_is_skipped():
    async def work(decoder, batcher):
        (gone, stays), _ = await queued(decoder, batcher, b"gone", b"stays")
        gone.cancel()
        await asyncio.sleep(0.01)
        decoder.released.set()
        assert await stays == 5

    assert run(work)[0].batches == [[b"first"], [b"stays"]]


def test_the_thread_survives_a_decoder_that_fails_as_a_whole(caplog):
    async def work(decoder, batcher):
        decoder.released.set()
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(b"bug in the decoder", "classes")
        assert await batcher.submit(b"abc", "classes") == 3

    run(work)
    assert "ZeroDivisionError" in caplog.text


def test_what_is_queued_is_finished_before_the_end():
    decoder = Held()

    async def work():
        with Batcher(decoder, Metrics(), 4, 8) as batcher:
            tasks, first = await queued(decoder, batcher, b"1", b"22")
            threading.Timer(0.1, decoder.released.set).start()
        return await asyncio.gather(first, *tasks)

    assert [int(n) for n in asyncio.run(work())] == [5, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "model"]
