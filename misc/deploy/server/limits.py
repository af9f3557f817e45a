"""Whose requests are taken, and how many bytes of them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import HTTPException, Request

from misc.deploy.server.answers import RETRY_SECONDS, STREAM_TYPE
from misc.errors import UserError
from model.coding.bitstream import MAX_BYTES

BODY_SECONDS = 10.0
HELD_BYTES = 16 * MAX_BYTES  # of all bodies together
SHORT_BYTES = 2**16  # uvicorn holds as many of each connection in any case


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--token_file {path} cannot be read: {getattr(error, 'strerror', 'not ASCII text')}"
        ) from error
    if not token or not token.isprintable() or " " in token:
        raise UserError(f"--token_file {path} holds no token: expected one word")
    return token


def check_token(request: Request, token: str) -> None:
    """Refuse a request without the token: 401. The comparison takes the same time for any wrong token."""
    given = request.headers.get("authorization", "").encode("latin-1")
    scheme, _, credentials = given.partition(b" ")
    if scheme.lower() != b"bearer" or not secrets.compare_digest(credentials.strip(), token.encode()):
        raise HTTPException(
            401, "this server wants a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )


class BodyReader:
    """Read the bodies of requests within limits on the time and size of each, and on the size of all.

    Args:
        body_seconds: until a body must have arrived.
        held_bytes: of the bodies that are being read or worked on; short ones are read all the same.
    """

    def __init__(self, body_seconds: float = BODY_SECONDS, held_bytes: int = HELD_BYTES):
        self.body_seconds = body_seconds
        self.held_bytes = held_bytes
        self._held = 0

    @asynccontextmanager
    async def body_of(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request; it counts as held until the context ends.

        Raises:
            HTTPException: 415, 413, 408 or 503.
            ClientDisconnect: the client went away.
        """
        _check_headers(request)
        chunks: list[bytes] = []
        length = 0
        try:
            try:
                async with asyncio.timeout(self.body_seconds):
                    async for chunk in request.stream():
                        length += len(chunk)
                        self._held += len(chunk)
                        self._check(length)
                        chunks.append(chunk)
            except TimeoutError:
                late = f"the body did not arrive within {self.body_seconds:g} seconds"
                raise HTTPException(408, late, {"Connection": "close"}) from None
            body = b"".join(chunks)
            chunks.clear()  # or all bytes would be held twice
            yield body
        finally:
            self._held -= length

    def _check(self, length: int) -> None:
        if length > MAX_BYTES:
            raise _too_long()
        if self._held > self.held_bytes and length > SHORT_BYTES:
            raise busy("too many bytes are being received")


def busy(reason: str) -> HTTPException:
    """Return a 503 that asks the client to come again."""
    return HTTPException(503, f"{reason}: try again", {"Retry-After": RETRY_SECONDS})


def _check_headers(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != STREAM_TYPE:
        raise HTTPException(415, f"expected a body of type {STREAM_TYPE}")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise _too_long()


def _too_long() -> HTTPException:
    return HTTPException(413, f"a stream has at most {MAX_BYTES:,} bytes")
