"""What every answer passes through: security headers, metrics, and errors that no endpoint expected."""

import asyncio
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from misc.deploy.server.answers import RETRY_SECONDS
from misc.deploy.server.metrics import Metrics

# The page compiles WebAssembly. Nothing comes from other hosts.
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
CLIENT_GONE = 499  # in metrics alone
FOLDERS = ("/page/", "/edge/", "/examples/")
log = logging.getLogger(__name__)


class Envelope:
    """ASGI middleware.

    Args:
        app: what answers.
        metrics: where requests are counted.
        endpoints: the paths by whose names they are counted; all others count as one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: frozenset[str]):
        self.app = app
        self.metrics = metrics
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_GONE

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except (Exception, asyncio.CancelledError) as error:
            if status != CLIENT_GONE:
                raise
            await _apology(error)(scope, receive, send_with_headers)
        finally:
            self.metrics.request(self._endpoint(scope["path"]), status, time.perf_counter() - start)

    def _endpoint(self, path: str) -> str:
        if path in self.endpoints:
            return path
        return next((folder for folder in FOLDERS if path.startswith(folder)), "other")


def _apology(error: BaseException) -> JSONResponse:
    if isinstance(error, asyncio.CancelledError):  # by uvicorn, whose patience at the end is over
        headers = {"Retry-After": RETRY_SECONDS, "Connection": "close"}
        return JSONResponse({"detail": "the server is shutting down"}, 503, headers)
    log.error("an unexpected error", exc_info=error)
    return JSONResponse({"detail": "the server failed on this request"}, 500)
