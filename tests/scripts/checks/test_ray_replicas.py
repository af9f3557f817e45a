import argparse
import asyncio
import json
from collections import Counter

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="misc/deploy/requirements-ray.txt is not installed")

from scripts.checks import ray_replicas  # noqa: E402
from scripts.checks.ray_replicas import Seen, Trial  # noqa: E402
from scripts.checks.server_storm import Request  # noqa: E402

HANGS_UP = None


def persisted(statuses, index=3):
    """Return a client's outcome and what it counted, at a server that answers with some statuses in turn."""
    statuses = list(statuses)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        status = statuses.pop(0)
        if status is not HANGS_UP:
            body = json.dumps({"classes": [{"index": index}]}).encode()
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    async def run():
        seen = Seen(Counter(), [])
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            args = argparse.Namespace(port=server.sockets[0].getsockname()[1])
            outcome = await Trial(args, [])._persist(Request(b"stream", 3), seen)
        return outcome, seen.outcomes["again"], len(seen.times)

    return asyncio.run(run())


def test_a_right_answer():
    assert persisted([200]) == ("right", 0, 1)


def test_what_is_not_answered_is_tried_again():
    assert persisted([503, 500, HANGS_UP, 200]) == ("right", 3, 1)


@pytest.mark.parametrize(("statuses", "index"), [([200], 4), ([400], 3), ([503, 404], 3)])
def test_another_answer_is_wrong(statuses, index):
    assert persisted(statuses, index)[0] == "wrong"


def test_a_client_gives_up(monkeypatch):
    monkeypatch.setattr(ray_replicas, "GIVE_UP_S", 0.3)
    assert persisted([503] * 100)[0] == "lost"
