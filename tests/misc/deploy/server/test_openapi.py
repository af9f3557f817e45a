"""The server keeps to its own OpenAPI description: schemathesis makes requests from it."""

import numpy as np
import pytest
from hypothesis import strategies

from misc.deploy.server.app import create_app
from misc.deploy.server.metrics import Metrics
from misc.deploy.server.models import ModelInfo
from model.coding.bitstream import Stream, pack

schemathesis = pytest.importorskip("schemathesis")
FINGERPRINT = b"\x0a\x1b\x2c\x3d"
INFO = ModelInfo(FINGERPRINT.hex(), "config/x.yaml", 6, None, None, [])


class Decoder:
    async def submit(self, stream, kind):
        return np.full((2, 2, 2) if kind == "features" else 6, 1 / 6, np.float32)


def schema_of(token):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app([INFO], Decoder(), Metrics(), token))


# A schema cannot tell what makes bytes a stream.
sides = strategies.integers(1, 128)
sizes = strategies.tuples(sides, sides)
streams = strategies.builds(Stream, strategies.just(FINGERPRINT), sizes, strategies.binary(max_size=100))
schemathesis.openapi.media_type("application/octet-stream", streams.map(pack))
open_schema, token_schema = schema_of(None), schema_of("secret")


@pytest.mark.slow
@open_schema.parametrize()
def test_answers_are_as_described(case):
    case.call_and_validate()


@pytest.mark.slow
@token_schema.parametrize()
def test_answers_are_as_described_with_a_token(case):
    case.call_and_validate(headers={"Authorization": "Bearer secret"})
