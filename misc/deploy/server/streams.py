"""The endpoints that take streams: POST /classify and POST /features."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from misc.deploy.results import NUM_CLASSES, npy
from misc.deploy.server.answers import STREAM_BODY, STREAM_TYPE, Classification, ClassProbability, problems
from misc.deploy.server.batcher import OverloadedError
from misc.deploy.server.decoding import Kind, known
from misc.deploy.server.limits import BodyReader, busy, check_token
from misc.deploy.server.metrics import Metrics
from misc.deploy.server.models import ModelInfo
from model.coding.bitstream import BitstreamError, unpack

ERRORS = problems(400, 408, 413, 415, 500, 503)
FEATURE = {"content": {STREAM_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
T = TypeVar("T")


class Decoder(Protocol):
    """What decodes streams: a `Batcher`, or a handle to decoders elsewhere."""

    async def submit(self, stream: bytes, kind: Kind) -> np.ndarray:
        """Return float32 probabilities (num_classes,) or h_hat (C, H', W').

        Raises:
            BitstreamError: the stream cannot be decoded.
            OverloadedError: too many streams wait already.
        """
        ...


class Decoded(NamedTuple):
    """The result of a request's stream."""

    model: ModelInfo
    array: np.ndarray
    num_bytes: int
    seconds: float


class StreamEndpoints:
    """Endpoints that decode the stream in a request's body.

    Args:
        models: by their fingerprints in hexadecimal.
        decoder: of their streams.
        metrics: where bytes are counted.
        reader: of the bodies.
        token: what requests must bring; None for none.
    """

    def __init__(
        self,
        models: Mapping[str, ModelInfo],
        decoder: Decoder,
        metrics: Metrics,
        reader: BodyReader,
        token: str | None,
    ):
        self._models = models
        self._decoder = decoder
        self._metrics = metrics
        self._reader = reader
        self._token = token

    def router(self) -> APIRouter:
        """Return the routes."""
        is_open = self._token is None
        router = APIRouter(
            dependencies=[] if is_open else [Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
            responses=ERRORS if is_open else ERRORS | problems(401),
        )
        router.post("/classify", openapi_extra=STREAM_BODY)(self.classify)
        feature = {200: {"description": "h_hat, an .npy file of float32 (C, H', W')", **FEATURE}}
        router.post("/features", openapi_extra=STREAM_BODY, responses=feature, response_class=Response)(self.features)
        return router

    async def classify(self, request: Request) -> Classification:
        """Return the five most probable classes of the image in a stream."""
        decoded = await self._decoded(request, "classes")
        indexes = np.argsort(-decoded.array, kind="stable")[:NUM_CLASSES].tolist()
        classes = [
            ClassProbability(index=index, name=decoded.model.name_of(index), probability=float(decoded.array[index]))
            for index in indexes
        ]
        return Classification(
            fingerprint=decoded.model.fingerprint,
            classes=classes,
            bytes_received=decoded.num_bytes,
            milliseconds=round(1000 * decoded.seconds, 3),
        )

    async def features(self, request: Request) -> Response:
        """Return the feature h_hat that a stream decodes to."""
        decoded = await self._decoded(request, "features")
        return Response(npy(torch.from_numpy(decoded.array)), media_type=STREAM_TYPE)

    async def _decoded(self, request: Request, kind: Kind) -> Decoded:
        if self._token is not None:
            check_token(request, self._token)
        async with self._reader.body_of(request) as stream:
            self._metrics.received(len(stream))
            start = time.perf_counter()
            try:
                model = self._models[known(unpack(stream).fingerprint.hex(), self._models)]
                array = await _unless_gone(request, self._decoder.submit(stream, kind))
            except BitstreamError as error:
                raise HTTPException(400, str(error)) from error
            except OverloadedError:
                raise busy("too many streams are waiting") from None
            return Decoded(model, array, len(stream), time.perf_counter() - start)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for work on a request whose body has been read; cancel it if the client goes away.

    Raises:
        ClientDisconnect: it went away.
    """
    task = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait((task, departure), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        departure.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
