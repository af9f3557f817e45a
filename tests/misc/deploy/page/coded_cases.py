"""Random latents of every prior's order, each with the stream that the project's own coder makes of it."""

import numpy as np

from model.coding.ans import LARGEST_SYMBOL, SymbolStack, Tables
from model.coding.bitstream import Stream, pack

FACTORIZED = [{"symbols": "y", "indexes": None, "tables": "y", "positions": "all"}]
HYPER = [
    {"symbols": "z", "indexes": None, "tables": "z", "positions": "all"},
    {"symbols": "y", "indexes": "y_indexes", "tables": "y", "positions": "all"},
]
CHECKERBOARD = [
    HYPER[0],
    {"symbols": "y_even", "indexes": "y_even_indexes", "tables": "y", "positions": "even"},
    {"symbols": "y_odd", "indexes": "y_odd_indexes", "tables": "y", "positions": "odd"},
]
STRIDE = 4


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    height, width = rng.integers(1, 12, 2).tolist()
    return (height, height) if rng.random() < 0.3 else (height, width)


def random_case(rng: np.random.Generator, order: list[dict], size: tuple[int, int]) -> tuple[dict, dict, bytes]:
    """Return the content of edge.json, the encoder's outputs for a latent of this size, and the stream."""
    stride = 1 if order is FACTORIZED else STRIDE
    padded = tuple(-(-side // stride) * stride for side in size)
    channels = {"y": int(rng.integers(1, 6)), "z": int(rng.integers(1, 4))}
    tables = {name: _random_tables(rng, channels[name] if name == "z" or stride == 1 else 7) for name in ("y", "z")}
    outputs = {"nonfinite": np.zeros((1, *size), np.int32)}
    for entry in order:
        name = entry["tables"]
        grid = padded if name == "y" else tuple(side // STRIDE for side in padded)
        shape = (1, channels[name], *grid)
        scale = rng.choice([0.3, 2, 40, 3000])
        symbols = rng.normal(0, scale, shape).round().clip(-LARGEST_SYMBOL, LARGEST_SYMBOL).astype(np.int32)
        outputs[entry["symbols"]] = symbols
        if entry["indexes"]:
            outputs[entry["indexes"]] = rng.integers(0, len(tables[name]), shape, dtype=np.int32)
    fingerprint = rng.bytes(4)
    edge = {
        "fingerprint": fingerprint.hex(),
        "stride": stride,
        "order": order,
        "tables": {
            name: {"offsets": [offset for offset, _ in rows], "cdf": [cdf for _, cdf in rows]}
            for name, rows in tables.items()
        },
    }
    return edge, outputs, pack(Stream(fingerprint, size, _payload(order, tables, outputs)))


def as_json(outputs: dict[str, np.ndarray]) -> dict:
    """Return outputs as the page gets them from the encoder."""
    return {name: {"data": array.ravel().tolist(), "dims": array.shape} for name, array in outputs.items()}


def _random_tables(rng: np.random.Generator, count: int) -> list[tuple[int, list[int]]]:
    tables = []
    for _ in range(count):
        rows = int(rng.integers(2, 30))
        cuts = np.sort(rng.choice(np.arange(1, 2**16), rows - 1, replace=False))
        tables.append((int(rng.integers(-rows, 2)), [0, *cuts.tolist(), 2**16]))
    return tables


def _payload(order: list[dict], tables: dict, outputs: dict[str, np.ndarray]) -> bytes:
    stack = SymbolStack()
    for entry in reversed(order):
        rows = tables[entry["tables"]]
        lengths = np.array([len(cdf) for _, cdf in rows])
        cdf = np.zeros((len(rows), lengths.max()), np.int32)
        for row, (_, values) in zip(cdf, rows, strict=True):
            row[: len(values)] = values
        symbols = outputs[entry["symbols"]][0]
        channel = np.broadcast_to(np.arange(len(symbols), dtype=np.int32)[:, None, None], symbols.shape)
        indexes = outputs[entry["indexes"]][0] if entry["indexes"] else channel
        parity = np.add.outer(*map(np.arange, symbols.shape[1:])) % 2
        coded = {"all": parity >= 0, "even": parity == 0, "odd": parity == 1}[entry["positions"]]
        if coded.any():
            offsets = np.array([offset for offset, _ in rows])
            stack.push(Tables(cdf, lengths, offsets), symbols[:, coded].ravel(), indexes[:, coded].ravel())
    return stack.to_bytes()
