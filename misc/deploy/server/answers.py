"""The bodies of answers, and what OpenAPI says about requests and errors."""

from typing import Any

from pydantic import BaseModel, Field

from model.coding.bitstream import MAX_BYTES

STREAM_TYPE = "application/octet-stream"
RETRY_SECONDS = "1"
STREAM_BODY = {
    "requestBody": {
        "required": True,
        "description": f"One stream, as an edge encodes an image; at most {MAX_BYTES:,} bytes.",
        "content": {STREAM_TYPE: {"schema": {"type": "string", "format": "binary", "minLength": 11}}},
    }
}


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one line")


class ClassProbability(BaseModel):
    """One class of an image."""

    index: int
    name: str
    probability: float = Field(ge=0, le=1)


class Classification(BaseModel):
    """The most probable classes of an image, at most five."""

    fingerprint: str = Field(description="of the model, 8 hexadecimal digits")
    classes: list[ClassProbability] = Field(description="most probable first")
    bytes_received: int
    milliseconds: float = Field(description="from the stream's last byte to its result, waiting included")


class ModelDescription(BaseModel):
    """One served model."""

    fingerprint: str
    config: str
    num_classes: int
    class_names: list[str] | None
    edge: str | None = Field(description="where the exported encoder is; null if the server has none")
    examples: list[str] = Field(description="where images to try are")


class Models(BaseModel):
    """All served models."""

    models: list[ModelDescription]


class Status(BaseModel):
    """How the server is."""

    status: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI needs to know about errors."""
    return {status: {"model": Problem, "description": DESCRIPTIONS[status]} for status in statuses}


DESCRIPTIONS = {
    400: "Not a stream, a damaged one, or one of a model that is not served",
    401: "No token, or a wrong one",
    408: "The body did not arrive in time",
    413: "The body is longer than a stream may be",
    415: f"The body is not {STREAM_TYPE}",
    500: "The server failed on this stream",
    503: "The server is busy or shutting down: try again",
}
