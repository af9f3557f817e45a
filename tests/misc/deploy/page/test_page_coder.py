"""The page's coder makes the same bytes as the project's own."""

import json

import numpy as np
import pytest

from model.coding.bitstream import unpack
from tests.misc.deploy.page.coded_cases import CHECKERBOARD, FACTORIZED, HYPER, as_json, random_case, random_size

LARGE_SIZES = [(1, 127), (1, 128), (300, 2), (128, 128), (129, 127)]


@pytest.fixture
def encoded(node, page, tmp_path):
    """Return what the page makes of cases: for each, its stream and its map of bits."""

    def run(cases: list[tuple]) -> list[dict]:
        file = tmp_path / "cases.json"
        file.write_text(json.dumps([{"edge": edge, "outputs": as_json(outputs)} for edge, outputs, _ in cases]))
        return json.loads(node("encode_streams.mjs", page, file))

    return run


@pytest.mark.parametrize("order", [FACTORIZED, HYPER, CHECKERBOARD], ids=["factorized", "hyper", "checkerboard"])
def test_streams_and_bits(order, encoded):
    rng = np.random.default_rng(0)
    cases = [random_case(rng, order, random_size(rng)) for _ in range(200)]
    results = encoded(cases)
    assert [bytes.fromhex(result["stream"]) for result in results] == [stream for *_, stream in cases]
    maps = [result["bits"] for result in results]
    assert [(bits["height"], bits["width"]) for bits in maps] == [unpack(stream).size for *_, stream in cases]
    saved = np.array([sum(bits["bits"]) for bits in maps]) - [8 * len(unpack(stream).payload) for *_, stream in cases]
    # The last word is filled up; as long as the state is small, symbols at the start of a table cost nothing.
    assert saved.min() > -40 and np.median(saved) < 40


@pytest.mark.parametrize("size", LARGE_SIZES)
def test_size_in_header(size, encoded):
    case = random_case(np.random.default_rng(1), FACTORIZED, size)
    (result,) = encoded([case])
    assert bytes.fromhex(result["stream"]) == case[2]


def test_all_symbols_the_likeliest_leave_an_empty_payload(encoded):
    """A stack that ends in zeros, of which nothing is sent."""
    edge = {
        "fingerprint": "00010203",
        "stride": 1,
        "order": FACTORIZED,
        "tables": {"y": {"offsets": [0], "cdf": [[0, 65535, 65536]]}},
    }
    outputs = {"nonfinite": np.zeros((1, 2, 2)), "y": np.zeros((1, 1, 2, 2))}
    (result,) = encoded([(edge, outputs, b"")])
    assert unpack(bytes.fromhex(result["stream"])).payload == b""


def test_modules(node):
    node("--test", "--test-reporter=tap", "page_modules.test.mjs")
