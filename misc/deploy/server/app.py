"""The HTTP interface of the server, free of networks: it takes whatever decodes streams."""

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

from misc.deploy.server.answers import ModelDescription, Models, Status
from misc.deploy.server.docs import docs_page
from misc.deploy.server.envelope import Envelope
from misc.deploy.server.files import Files, ListedFiles
from misc.deploy.server.limits import BodyReader
from misc.deploy.server.metrics import METRICS_TYPE, Metrics
from misc.deploy.server.models import EDGE_FILES, ModelInfo
from misc.deploy.server.streams import Decoder, StreamEndpoints

PAGE = Path(__file__).parents[1] / "page"
DESCRIPTION = "Classifies images that devices have encoded to streams of a few bytes."


def create_app(
    models: Sequence[ModelInfo],
    decoder: Decoder,
    metrics: Metrics,
    token: str | None = None,
    reader: BodyReader | None = None,
    page: Path = PAGE,
) -> FastAPI:
    """Return the server's app.

    Args:
        models: those of which streams are taken.
        decoder: of their streams.
        metrics: what /metrics shows.
        token: what POST requests must bring; None for none.
        reader: of the streams; None for the usual limits.
        page: folder of the page at /.
    """
    app = FastAPI(title="FrankenSplit", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None)
    by_fingerprint = {model.fingerprint: model for model in models}
    app.include_router(StreamEndpoints(by_fingerprint, decoder, metrics, reader or BodyReader(), token).router())
    app.include_router(_information(models, metrics))
    endpoints = frozenset(app.openapi()["paths"])
    app.include_router(_pages(app, page))
    for path, files in (("/page", Files(directory=page, check_dir=False)), *_listed(models)):
        app.mount(path, files)
    app.add_middleware(Envelope, metrics=metrics, endpoints=endpoints | {"/", "/docs", "/openapi.json"})
    return app


def _information(models: Sequence[ModelInfo], metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/model")
    async def model() -> Models:
        """Return the served models."""
        return Models(models=[_description(model) for model in models])

    @router.get("/healthz")
    async def healthz() -> Status:
        """Tell that the server lives."""
        return Status(status="alive")

    @router.get("/readyz")
    async def readyz() -> Status:
        """Tell that the server takes streams: it listens once all models are loaded, and until it shuts down."""
        return Status(status="ready")

    @router.get("/metrics", response_class=PlainTextResponse)
    async def values() -> Response:
        """Return the server's counters in Prometheus's text format."""
        return Response(metrics.text(), headers={"Content-Type": METRICS_TYPE})

    return router


def _pages(app: FastAPI, page: Path) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @router.get("/")
    async def index() -> FileResponse:
        path = page / "index.html"
        if not path.is_file():
            raise HTTPException(404, "this server has no page: see /docs")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return router


def _description(model: ModelInfo) -> ModelDescription:
    return ModelDescription(
        fingerprint=model.fingerprint,
        config=model.config,
        num_classes=model.num_classes,
        class_names=model.class_names,
        edge=f"/edge/{model.fingerprint}/" if model.edge else None,
        examples=[f"/examples/{model.fingerprint}/{number}" for number in range(len(model.examples))],
    )


def _listed(models: Sequence[ModelInfo]) -> list[tuple[str, ListedFiles]]:
    edges = {f"{model.fingerprint}/{name}": model.edge / name for model in models if model.edge for name in EDGE_FILES}
    examples = {f"{model.fingerprint}/{number}": path for model in models for number, path in enumerate(model.examples)}
    return [("/edge", ListedFiles(edges)), ("/examples", ListedFiles(examples))]
