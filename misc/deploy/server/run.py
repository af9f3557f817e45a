"""Run an app under uvicorn until a signal comes."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from misc.errors import UserError

IDLE_SECONDS = 20.0
SHUTDOWN_SECONDS = 5


class IdleProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 without its two endless waits: for the head of a request, and for a client that does not read.

    A head, the first or the next, must arrive in time, and of an answer some bytes must leave in that time. A closed
    connection lives on until all bytes have left, so that holds for it, too.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()
        self._stop_stall()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_less_than(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_stall()

    def _expect_less_than(self, unsent: int) -> None:
        self._stop_stall()
        self._stall = self.loop.call_later(IDLE_SECONDS, self._check_stall, unsent)

    def _check_stall(self, unsent: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now < unsent:
            self._expect_less_than(now)
        else:
            self.transport.abort()

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            self._stop_watching()
            self._expect_end()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(IDLE_SECONDS, self._close)

    def _close(self) -> None:
        self.timeout_keep_alive_handler()
        self._expect_end()

    def _expect_end(self) -> None:
        if self.transport.is_closing() and self._stall is None:
            self._expect_less_than(self.transport.get_write_buffer_size())

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """uvicorn's server, which announces itself and ends with exit code 0.

    At the end it accepts no connections, and what is in flight has `SHUTDOWN_SECONDS` to finish.
    """

    def __init__(self, app: ASGIApp, announce: Callable[[], None]):
        config = uvicorn.Config(
            app,
            http=IdleProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another server has begun to listen there since
            raise UserError(f"cannot serve: {error.strerror}; choose another --host or --port") from error
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as the wish to end; uvicorn's own way raises them again in the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has the address, but does not listen yet; port 0 is any free one.

    Raises:
        UserError: the address cannot be had.
    """
    if port not in range(2**16):  # getaddrinfo would take the remainder
        raise UserError(f"--port {port} is no port: expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "not a host name")
        raise UserError(f"cannot serve at {host}:{port}: {reason}; choose another --host or --port") from error
    return found
