"""The server on a socket: signals, idle connections, addresses."""

import asyncio
import signal
import socket
import threading
import time

import httpx
import pytest

from misc.deploy.server import run
from misc.deploy.server.run import Server, bound_socket
from misc.errors import UserError


def serve(work, app=None):
    """Run a server for a function of its port and of itself, on a thread of its own."""

    async def hello(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    sock = bound_socket("127.0.0.1", 0)
    started = threading.Event()
    server = Server(app or hello, started.set)
    server.capture_signals = lambda: pytest.MonkeyPatch().context()  # signals reach the main thread alone
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        assert started.wait(10)
        work(sock.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_a_port_is_free_once():
    first = bound_socket("127.0.0.1", 0)
    first.listen()
    with pytest.raises(UserError, match=r"cannot serve at 127\.0\.0\.1:\d+: Address already in use"):
        bound_socket("127.0.0.1", first.getsockname()[1])
    first.close()


def test_a_port_that_another_server_took_in_the_meantime_is_one_line():
    async def start(second):
        await Server(None, lambda: pytest.fail("it serves")).serve([second])

    with bound_socket("127.0.0.1", 0) as first, bound_socket(*first.getsockname()) as second:
        first.listen()
        with pytest.raises(UserError, match="cannot serve: Address already in use"):
            asyncio.run(start(second))


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 80), ("a..b", 80), ("127.0.0.1", 70_000), ("127.0.0.1", -1)]
)
def test_an_address_that_cannot_be_had_is_one_line(host, port):
    with pytest.raises(UserError, match=r"cannot serve at|is no port") as refusal:
        bound_socket(host, port)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("start", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTT"])
def test_a_connection_on_which_no_request_comes_is_closed(monkeypatch, start):
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.2)

    def work(port, server):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(start)
            received = b""
            while data := connection.recv(1000):
                received += data
        assert (b"200 OK" in received) == start.endswith(b"\r\n\r\nGET / HTT")

    serve(work)


def test_requests_on_one_connection_are_answered(monkeypatch):
    monkeypatch.setattr(run, "IDLE_SECONDS", 2)

    def work(port, server):
        with httpx.Client() as client:
            assert all(client.get(f"http://127.0.0.1:{port}").status_code == 200 for _ in range(50))

    serve(work)


def test_a_request_that_takes_longer_than_an_idle_connection_may_is_answered(monkeypatch):
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.1)

    async def slow(scope, receive, send):
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def work(port, server):
        assert httpx.get(f"http://127.0.0.1:{port}").status_code == 200

    serve(work, slow)


async def large(scope, receive, send):
    """Answer with 64 MiB, more than the system's buffers take."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"67108864")]})
    await send({"type": "http.response.body", "body": bytes(2**26)})


def wait_until_dropped(server):
    end = time.monotonic() + 10
    while server.server_state.connections:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_does_not_read_is_dropped(monkeypatch):
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.3)

    def work(port, server):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1) == b"H" and server.server_state.connections
            wait_until_dropped(server)

    serve(work, large)


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_client_that_leaves_a_few_bytes_unread_is_dropped(monkeypatch, close):
    """So few that writing is not paused."""
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.3)

    async def small(scope, receive, send):
        to_client = scope["transport"].get_extra_info("socket")
        to_client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"60000")]})
        await send({"type": "http.response.body", "body": bytes(60_000)})

    class Told(run.IdleProtocol):
        """Tell the app of its transport."""

        def data_received(self, data):
            self.app = lambda scope, *rest: small(scope | {"transport": self.transport}, *rest)
            super().data_received(data)

    def work(port, server):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + close + b"\r\n")
            assert connection.recv(1) == b"H" and server.server_state.connections
            wait_until_dropped(server)

    monkeypatch.setattr(run, "IdleProtocol", Told)
    serve(work)


def test_a_client_that_reads_slowly_gets_everything(monkeypatch):
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.3)
    received = 0

    def work(port, server):
        nonlocal received
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while data := connection.recv(2**22, socket.MSG_WAITALL):
                received += len(data)
                time.sleep(0.05)  # 16 times: longer than a client may stall

    serve(work, large)
    assert received > 2**26


def test_signals_are_the_wish_to_end(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    server = Server(None, lambda: None)
    with server.capture_signals():
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert server.should_exit and set(handlers) == {signal.SIGINT, signal.SIGTERM}
