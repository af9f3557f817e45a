"""The server on Ray Serve: replicas that decode, behind an ingress, on one machine or on many.

    serve run misc.deploy.ray_app:app config=config/quickstart/sg_resnet.yaml replicas=2

Needs requirements-ray.txt. The models run on CPUs. Every machine needs the repository and the files that the arguments
name at the same paths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from misc.deploy.server.answers import RETRY_SECONDS
from misc.deploy.server.app import create_app
from misc.deploy.server.batcher import OverloadedError
from misc.deploy.server.decoding import Kind, StreamDecoder, Wanted
from misc.deploy.server.limits import read_token
from misc.deploy.server.metrics import Metrics
from misc.deploy.server.models import ModelInfo, check_distinct, with_edges
from misc.deploy.server.sources import Source, sources_of
from misc.errors import UserError

INGRESSES = 2  # one may die
INGRESS_REQUESTS = 1024  # at once in each; they wait there for a replica, up to `queue` of them
ATTEMPTS = 2
CPU = torch.device("cpu")

Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]


class Arguments(BaseModel):
    """What `serve run` is given as name=value, or a YAML file under `args`; lists are separated by commas.

    Attributes:
        config: of students.
        weights: one per config; by default as scripts/serve.py.
        edge: folders of exported encoders for the page.
        token_file: POST requests must bring the word in it as a bearer token.
        max_batch: streams that a replica decodes at once.
        queue: streams that wait for a replica, in each ingress; more are sent away.
        replicas: that decode; with `max_replicas`, the fewest.
        max_replicas: the most; their number then follows the load.
        cpus: of each replica, which uses as many threads (at least one).
    """

    model_config = ConfigDict(extra="forbid")

    config: Words = Field(min_length=1)
    weights: Words = ()
    edge: Words = ()
    token_file: Path | None = None
    max_batch: PositiveInt = 32
    queue: PositiveInt = 256
    replicas: PositiveInt = 1
    max_replicas: PositiveInt | None = None
    cpus: PositiveFloat = 1


class ArgumentError(click.ClickException, RayServeException):
    """A wrong argument: one line, in the terminal (as a ClickException) and in `serve status` (as Ray's own)."""

    exit_code = 2


class Replica:
    """Decodes streams, in batches of those that wait."""

    def __init__(self, sources: Sequence[Source], max_batch: int):
        models = [source.load(CPU) for source in sources]
        self._decoder = StreamDecoder({model.info.fingerprint: model.half for model in models})
        self._decode.set_max_batch_size(max_batch)  # type: ignore[attr-defined]

    async def __call__(self, stream: bytes, kind: Kind) -> np.ndarray | Exception:
        """Return a stream's result, or why it has none: an exception that is raised arrives as one of Ray's."""
        return await self._decode(Wanted(stream, kind))

    @serve.batch(batch_wait_timeout_s=0)
    async def _decode(self, batch: list[Wanted]) -> list[np.ndarray | Exception]:
        # On the event loop, not in a thread: Ray would meanwhile turn each stream that arrives into a batch of its own.
        return self._decoder.decode(batch)


class RemoteDecoder:
    """The ingress's `Decoder`: it sends streams to the replicas."""

    def __init__(self, replicas: DeploymentHandle):
        self._replicas = replicas

    async def submit(self, stream: bytes, kind: Kind) -> np.ndarray:
        result = await self._result(stream, kind)
        if isinstance(result, Exception):
            raise result
        return result

    async def _result(self, stream: bytes, kind: Kind, attempts: int = ATTEMPTS) -> np.ndarray | Exception:
        """Ask another replica if one dies; not many, as the stream may be what it died of."""
        try:
            return await self._replicas.remote(stream, kind)
        except BackPressureError:
            raise OverloadedError from None
        except RayActorError:
            if attempts == 1:
                raise
            return await self._result(stream, kind, attempts - 1)


@serve.ingress()
class Ingress:
    """The HTTP interface in front of the replicas."""

    def __init__(self, models: Sequence[ModelInfo], replicas: DeploymentHandle, token_file: Path | None):
        self._models = models
        self._replicas = replicas
        self._token = read_token(token_file) if token_file else None

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._models, RemoteDecoder(self._replicas), Metrics(), self._token)


def app(arguments: dict[str, Any]) -> Application:
    """Return the application, for `serve run` and for the `import_path` of a YAML file.

    Args:
        arguments: as `Arguments`.

    Raises:
        ArgumentError: wrong arguments; the models have been loaded once to find out.
    """
    try:
        return _application(Arguments.model_validate(arguments))
    except ValidationError as error:
        raise ArgumentError(_first_of(error)) from None
    except UserError as error:
        raise ArgumentError(str(error).removeprefix("--")) from None


def _application(args: Arguments) -> Application:
    if args.max_replicas is not None and args.max_replicas < args.replicas:
        raise UserError(f"max_replicas={args.max_replicas} is less than replicas={args.replicas}")
    if args.token_file:
        read_token(args.token_file)
    sources = sources_of(args.config, args.weights)
    infos = [source.load(CPU).info for source in sources]
    check_distinct(infos)
    infos = with_edges(infos, [Path(folder).absolute() for folder in args.edge])
    replicas = serve.deployment(
        Replica,
        **_number(args),
        ray_actor_options={"num_cpus": args.cpus},
        max_ongoing_requests=2 * args.max_batch,  # a batch is decoded, the next one gathers
        max_queued_requests=args.queue,
    ).bind(sources, args.max_batch)
    ingress = serve.deployment(
        Ingress,
        num_replicas=INGRESSES,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=INGRESS_REQUESTS,
        max_queued_requests=INGRESS_REQUESTS,
        backpressure_config={"retry_after_s": float(RETRY_SECONDS)},
    )
    return ingress.bind(infos, replicas, args.token_file and args.token_file.absolute())


def _number(args: Arguments) -> dict[str, Any]:
    """Return the deployment's options on how many replicas there are."""
    if args.max_replicas is None:
        return {"num_replicas": args.replicas}
    limits = {"min_replicas": args.replicas, "max_replicas": args.max_replicas}
    return {"autoscaling_config": {**limits, "target_ongoing_requests": args.max_batch}}


def _first_of(error: ValidationError) -> str:
    """Return the first of pydantic's complaints as one line."""
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    given = "" if problem["type"] == "missing" else f"={problem['input']!r}"
    return f"{name}{given}: {problem['msg']}"
