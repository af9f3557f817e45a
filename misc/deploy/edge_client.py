#!/usr/bin/env python3
"""Encode images to FrankenSplit streams on a device, without PyTorch. This file needs no other file of the project.

    python edge_client.py encode DIR IMAGE... -o OUT          write OUT/NAME.fsb
    python edge_client.py send DIR IMAGE... --url URL         print the classes that a server answers

DIR is what scripts/export.py wrote. In Python:

    from edge_client import EdgeEncoder
    stream = EdgeEncoder("DIR").encode("photo.jpg")

A model of variable rate takes `rate=R`, 0 (smallest streams) to 1 (largest), or `max_bytes=N`; the default is rate 0.5.
It needs NumPy, Pillow and onnxruntime. Where constriction is installed it codes the symbols, faster than the coder in
this file and with the same bytes.
"""

import argparse
import hashlib
import http.client
import inspect
import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

try:
    import numpy as np
    import onnxruntime
    from PIL import Image
except ImportError as missing:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {missing.name} is missing: pip install -r requirements-edge.txt, which is beside this file")

try:
    import constriction
except ImportError:
    constriction = None

LARGEST_SYMBOL = 2**13
MOST_ELONGATED = 100
PRECISION = 24  # bits of a probability
EXCESS_BITS = 24
TRIES = 5  # of a request that the server is too busy for


class Versions(NamedTuple):
    """Of the directory's format and of its streams'."""

    directory: int
    stream: int


VERSIONS = Versions(1, 2), Versions(2, 3)  # with one rate, and with variable rate
DEFAULT_RATE = 0.5


class EdgeError(ValueError):
    """An error in the input (image, directory, server's answer); the message is one line."""


class EdgeEncoder:
    """The device's half of a student: images to streams.

    Args:
        directory: what scripts/export.py wrote.
        threads: of the encoder network.
        coder: "constriction", "python", or None for constriction where it is installed.

    Raises:
        EdgeError: not such a directory, one of another version, or one with a transform that this client does not know.

    Attributes:
        fingerprint: of the streams, 8 hexadecimal digits.
        classes: names of the server's classes, or None.
        last_level: the level of rate 1; None if the model has one rate.
    """

    def __init__(self, directory: str | Path, threads: int = 1, coder: str | None = None):
        directory = Path(directory)
        edge = _read_edge(directory / "edge.json")
        try:
            self.fingerprint, self.classes = edge["fingerprint"], edge["classes"]
            self._header = f"F{edge['stream']}".encode() + bytes.fromhex(self.fingerprint)
            self.last_level = None if edge["format"] == 1 else int(edge["last_level"])
            self._steps = [_checked_step(**step) for step in edge["transform"]]
            self._order = [Part(**entry) for entry in edge["order"]]
            self._tables = {name: Tables(**tables) for name, tables in edge["tables"].items()}
            self._max_positions, self._stride = int(edge["max_positions"]), int(edge["stride"])
            self._encoder = _session(directory / "encoder.onnx", edge["sha256"], threads)
            self._coder = self._encoder
            if self.last_level is not None:
                self._coder = _session(directory / "coder.onnx", edge["coder_sha256"], threads)
            self._check()
        except EdgeError:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise EdgeError(f"{directory / 'edge.json'} is damaged ({error!r}): export it again") from error
        self._stack = _stack_class(coder)

    def _check(self) -> None:
        """Raise a ValueError if the parts of edge.json do not fit each other or the graph."""
        outputs = {output.name for output in self._coder.get_outputs()}
        for part in self._order:
            named = {"nonfinite", part.symbols, part.indexes or part.symbols}
            if not named <= outputs or part.tables not in self._tables or part.positions not in POSITIONS:
                raise ValueError(f"no output, table or positions for {part.symbols}")
        if len(self._header) != 6 or self._stride < 1:
            raise ValueError(f"fingerprint {self.fingerprint}, stride {self._stride}")

    def encode(self, image: Image.Image | str | Path, rate: float | None = None, max_bytes: int | None = None) -> bytes:
        """Return the stream of an image of any mode and size, or of its file.

        Args:
            image: the image.
            rate: of a model of variable rate, 0 to 1.
            max_bytes: take the highest rate at which the stream has at most so many bytes, instead.

        Raises:
            EdgeError: an unreadable image, one that is too large or that does not fit into `max_bytes`, one whose
                latent is not finite, or a rate for a model that has one only.
        """
        return self.encode_tensor(self.transform(image), rate, max_bytes)

    def transform(self, image: Image.Image | str | Path) -> np.ndarray:
        """Return what the encoder network sees, float32 (3, H, W).

        Raises:
            EdgeError: an unreadable image.
        """
        pixels: Any = read_rgb(image)
        for step in self._steps:
            pixels = STEPS[step["op"]](pixels, **{name: value for name, value in step.items() if name != "op"})
        return pixels

    def encode_tensor(self, x: np.ndarray, rate: float | None = None, max_bytes: int | None = None) -> bytes:
        """Return the stream of a transformed image, float32 (3, H, W); arguments and errors are those of `encode`."""
        if max_bytes is not None and rate is not None:
            raise EdgeError("give a rate or max_bytes, not both")
        if max_bytes is not None:
            return self._within(x, max_bytes)
        level = self.level_of(rate)
        return self.pack(*self.symbols(x, level), level)

    def level_of(self, rate: float | None) -> int | None:
        """Return the level of a rate: None with one rate, the middle one for no rate.

        Raises:
            EdgeError: a rate for a model that has one only, or outside of 0 to 1.
        """
        if self.last_level is None:
            if rate is not None:
                raise EdgeError("this encoder has one rate: none can be chosen")
            return None
        rate = DEFAULT_RATE if rate is None else rate
        if not 0 <= rate <= 1:
            raise EdgeError(f"the rate is {rate:g}; expected 0 (smallest streams) to 1 (largest)")
        return round(rate * self.last_level)

    def _within(self, x: np.ndarray, max_bytes: int) -> bytes:
        """Find the highest level whose stream fits, by bisection; g_a runs once."""
        if self.last_level is None:
            raise EdgeError("this encoder has one rate: a stream cannot be fitted")
        y = self._latent(x)
        low, high, fitting = 0, self.last_level, self._at(y, x, 0)
        if len(fitting) > max_bytes:
            raise EdgeError(f"the smallest stream of this image has {len(fitting)} bytes, more than {max_bytes}")
        while low < high:
            middle = (low + high + 1) // 2
            stream = self._at(y, x, middle)
            if len(stream) <= max_bytes:
                low, fitting = middle, stream
            else:
                high = middle - 1
        return fitting

    def _at(self, y: np.ndarray, x: np.ndarray, level: int) -> bytes:
        return self.pack(*self._parts(self._coded(y, level), x), level)

    def pack(
        self,
        size: tuple[int, int],
        parts: list[tuple["Part", np.ndarray, np.ndarray]],
        level: int | None = None,
    ) -> bytes:
        """Return the stream of what `symbols` returned."""
        stack = self._stack()
        for part, symbols, indexes in reversed(parts):
            _push(stack, self._tables[part.tables], symbols, indexes)
        header = self._header + (b"" if level is None else bytes([level]))
        body = header + _packed_size(*size) + stack.to_bytes()
        return body + zlib.crc32(body).to_bytes(4, "little")

    def symbols(
        self, x: np.ndarray, level: int | None = None
    ) -> tuple[tuple[int, int], list[tuple["Part", np.ndarray, np.ndarray]]]:
        """Return the latent's height and width, and the symbols and table indexes (N,) in the order of decoding.

        Args:
            x: a transformed image, float32 (3, H, W).
            level: of a model of variable rate; by default the middle one.
        """
        if self.last_level is None:
            return self._parts(self.run(x[None]), x)
        return self._parts(self._coded(self._latent(x), self.level_of(None) if level is None else level), x)

    def _parts(
        self, outputs: dict[str, np.ndarray], x: np.ndarray
    ) -> tuple[tuple[int, int], list[tuple["Part", np.ndarray, np.ndarray]]]:
        nonfinite = outputs["nonfinite"]
        height, width = nonfinite.shape[1:]
        if math.prod(-(-side // self._stride) * self._stride for side in (height, width)) > self._max_positions:
            raise EdgeError(
                f"an image of {x.shape[1]} x {x.shape[2]} is too large: its latent of {height} x {width} has more than "
                f"{self._max_positions:,} positions"
            )
        if nonfinite.any():
            raise EdgeError("the latent holds infinities or NaN: there is nothing to send")
        return (height, width), [(part, *part.coded(outputs)) for part in self._order]

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of encoder.onnx by name for transformed images, float32 (B, 3, H, W)."""
        return _run(self._encoder, {"x": x}, f"an image of {x.shape[2]} x {x.shape[3]}")

    def _latent(self, x: np.ndarray) -> np.ndarray:
        return self.run(x[None])["latent"]

    def _coded(self, y: np.ndarray, level: int) -> dict[str, np.ndarray]:
        levels = np.full(len(y), level, np.int64)
        return _run(self._coder, {"latent": y, "level": levels}, f"a latent of {y.shape[2]} x {y.shape[3]}")


class Part(NamedTuple):
    """An entry of edge.json's `order`: which outputs of the graph are coded, with which tables, at which positions."""

    symbols: str
    indexes: str | None
    tables: str
    positions: str

    def coded(self, outputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return symbols and table indexes in the order of coding, int32 (N,)."""
        symbols = outputs[self.symbols][0]
        if self.indexes is None:
            indexes = np.broadcast_to(np.arange(len(symbols), dtype=np.int32)[:, None, None], symbols.shape)
        else:
            indexes = outputs[self.indexes][0]
        if np.abs(symbols.astype(np.int64)).max() > LARGEST_SYMBOL:
            raise EdgeError(f"a symbol of {self.symbols} is beyond {LARGEST_SYMBOL}: the encoder's output is damaged")
        taken = POSITIONS[self.positions](*np.indices(symbols.shape[1:]))
        return symbols[:, taken].ravel(), indexes[:, taken].ravel()


POSITIONS: dict[str, Any] = {
    "all": lambda row, column: slice(None),
    "even": lambda row, column: (row + column) % 2 == 0,
    "odd": lambda row, column: (row + column) % 2 == 1,
}


# Reading and transforming images


def read_rgb(image: Image.Image | str | Path) -> Image.Image:
    """Return an image of any mode as RGB; of 16 bits per channel, the upper eight are kept.

    Raises:
        EdgeError: an unreadable file, pixels of 32 bits, or an aspect ratio beyond 100.
    """
    try:
        if isinstance(image, Image.Image):
            return _rgb(image, "the image")
        with Image.open(image) as opened:
            return _rgb(opened, str(image))
    except EdgeError:
        raise
    except FileNotFoundError:
        raise EdgeError(f"no image at {image}") from None
    except Exception as error:  # Pillow's decoders raise various types
        name = "the image" if isinstance(image, Image.Image) else image
        raise EdgeError(f"{name} is truncated or not an image ({error}): replace or remove it") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    short, long = sorted(image.size)
    if long > MOST_ELONGATED * short:
        raise EdgeError(f"{name} has {image.width} x {image.height} pixels: crop it")
    if image.mode in ("I", "F"):
        raise EdgeError(f"{name} has pixels of 32 bits, whose range is not known: save it with 8 bits or 16")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def resize(image: Image.Image, size: int | list[int], interpolation: str) -> Image.Image:
    """Resize the short side to `size`, or the image to [height, width]."""
    if isinstance(size, list):
        height, width = size
    else:
        short, long = sorted(image.size)
        long_side = int(size * long / short)
        width, height = (size, long_side) if image.width <= image.height else (long_side, size)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """Crop the centre; a smaller image is padded with black first."""
    if height > image.height or width > image.width:
        left, top = (max(0, wanted - side) // 2 for wanted, side in ((width, image.width), (height, image.height)))
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        padded.paste(image, (left, top))
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def scale(image: Image.Image, factor: float) -> np.ndarray:
    """Return float32 (3, H, W): the 8-bit values times `factor`."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32) * np.float32(factor)


def normalize(x: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """Return (x - mean) / std per channel, in float32."""
    mean_, std_ = (np.asarray(values, np.float32)[:, None, None] for values in (mean, std))
    return (x - mean_) / std_


STEPS: dict[str, Any] = {"resize": resize, "center_crop": center_crop, "scale": scale, "normalize": normalize}


def _checked_step(op: str, **arguments: Any) -> dict:
    if op not in STEPS:
        raise EdgeError(f"this client does not know the transform '{op}': copy the client of the export again")
    inspect.signature(STEPS[op]).bind(None, **arguments)
    if op == "resize" and arguments["interpolation"].upper() not in Image.Resampling.__members__:
        raise EdgeError(f"this client does not know the interpolation '{arguments['interpolation']}'")
    return {"op": op, **arguments}


# Entropy coding (the format: model/README.md of the project; ANS: Duda et al., PCS 2015)


class Tables:
    """Frequency tables; the last symbol of each is an escape for symbols outside of the table.

    Args:
        offsets: the smallest symbol of each table.
        cdf: cumulative frequencies of each table, from 0 to 2^16.

    Raises:
        ValueError: they are none.
    """

    def __init__(self, offsets: list[int], cdf: list[list[int]]):
        self.first = np.asarray(offsets, np.int64)
        self.escape = np.asarray([len(row) - 2 for row in cdf], np.int64)
        self._cdf = [np.asarray(row, np.int64) for row in cdf]
        if not all(row[0] == 0 and row[-1] == 2**16 and (np.diff(row) > 0).all() for row in self._cdf):
            raise ValueError("cumulative frequencies that do not rise from 0 to 2^16")
        if len(offsets) != len(cdf):
            raise ValueError(f"{len(offsets)} offsets for {len(cdf)} tables")
        self._lefts: dict[int, list[int]] = {}
        self._models: dict[int, Any] = {}

    def left(self, table: int) -> list[int]:
        """Return the boundaries of a table's symbols in [0, 2^24], each symbol at least 1 wide."""
        if table not in self._lefts:
            cdf = self._cdf[table]
            symbols = len(cdf) - 1
            self._lefts[table] = (((cdf * (2**PRECISION - symbols)) >> 16) + np.arange(symbols + 1)).tolist()
        return self._lefts[table]

    def model(self, table: int) -> Any:
        """Return a table as constriction's model."""
        if table not in self._models:
            frequencies = np.diff(self._cdf[table]).astype(np.float64)
            self._models[table] = constriction.stream.model.Categorical(frequencies, perfect=False)
        return self._models[table]


class PythonStack:
    """An ANS stack of 32-bit words under a 64-bit state, byte-equal to constriction's."""

    def __init__(self) -> None:
        self._state = 0
        self._words: list[int] = []

    def push(self, tables: Tables, table: int, rows: np.ndarray) -> None:
        """Push rows of one table, the last one first."""
        left = tables.left(table)
        for row in reversed(rows.tolist()):
            self._push(left[row], left[row + 1] - left[row])

    def push_uniform(self, value: int, choices: int) -> None:
        """Push one of `choices` equally likely values."""
        width = 2**PRECISION // choices
        left = value * width
        self._push(left, 2**PRECISION - left if value == choices - 1 else width)

    def to_bytes(self) -> bytes:
        """Return the words and the state, lowest byte first, without the zero bytes at the end."""
        words = b"".join(word.to_bytes(4, "little") for word in self._words)
        return (words + self._state.to_bytes(8, "little")).rstrip(b"\0")

    def _push(self, left: int, width: int) -> None:
        if self._state >> (64 - PRECISION) >= width:
            self._words.append(self._state & 0xFFFFFFFF)
            self._state >>= 32
        quotient, rest = divmod(self._state, width)
        self._state = (quotient << PRECISION) | (left + rest)


class ConstrictionStack:
    """The same stack by constriction."""

    def __init__(self) -> None:
        self._coder = constriction.stream.stack.AnsCoder()

    def push(self, tables: Tables, table: int, rows: np.ndarray) -> None:
        """Push rows of one table, the last one first."""
        self._coder.encode_reverse(rows.astype(np.int32), tables.model(table))

    def push_uniform(self, value: int, choices: int) -> None:
        """Push one of `choices` equally likely values."""
        self._coder.encode_reverse(value, constriction.stream.model.Uniform(choices))

    def to_bytes(self) -> bytes:
        """Return the words, lowest byte first, without the zero bytes at the end."""
        return self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def _stack_class(coder: str | None) -> type:
    if coder is None:
        coder = "python" if constriction is None else "constriction"
    if coder == "constriction" and constriction is None:
        raise EdgeError("constriction is not installed: leave the coder out, or install it")
    return {"python": PythonStack, "constriction": ConstrictionStack}[coder]


def _push(stack: PythonStack | ConstrictionStack, tables: Tables, symbols: np.ndarray, indexes: np.ndarray) -> None:
    """Push the symbols of one entry: sorted by table, in reverse, each escape's distance to its table first."""
    if indexes.min() < 0 or indexes.max() >= len(tables.first):
        raise EdgeError("the encoder asks for a table that edge.json does not have: export both again")
    order = np.argsort(indexes, kind="stable")
    symbols, indexes = symbols[order], indexes[order]
    rows, escape = symbols - tables.first[indexes], tables.escape[indexes]
    outside = (rows < 0) | (rows >= escape)
    for row, last in zip(rows[outside][::-1].tolist(), escape[outside][::-1].tolist(), strict=True):
        excess = -2 * row if row < 0 else 2 * (row - last) + 1
        bits = excess.bit_length() - 1  # Elias gamma: the number of bits after the leading one, then those
        if bits:
            stack.push_uniform(excess - (1 << bits), 1 << bits)
        stack.push_uniform(bits, EXCESS_BITS)
    rows = np.where(outside, escape, rows)
    for table, run in reversed(list(_runs(indexes))):
        stack.push(tables, table, rows[run])


def _runs(indexes: np.ndarray) -> Iterator[tuple[int, slice]]:
    starts = np.flatnonzero(np.diff(indexes, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(indexes)], strict=True):
        yield int(indexes[start]), slice(start, stop)


def _packed_size(height: int, width: int) -> bytes:
    return bytes([height]) if height == width else b"\0" + _varint(height) + _varint(width)


def _varint(value: int) -> bytes:
    groups = []
    while True:
        value, group = value >> 7, value & 0x7F
        groups.append(group | (0x80 if value else 0))
        if not value:
            return bytes(groups)


# Files and the command line


def _read_edge(path: Path) -> dict:
    try:
        edge = json.loads(path.read_bytes())
    except OSError as error:
        raise EdgeError(f"{path.parent} is no exported directory: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise EdgeError(f"{path} is damaged ({error}): export it again") from error
    found = (edge.get("format"), edge.get("stream")) if isinstance(edge, dict) else (None, None)
    if found not in VERSIONS:
        readable = ", ".join(f"{each.directory} for {each.stream}" for each in VERSIONS)
        raise EdgeError(
            f"{path} is of format {found[0]} for streams of version {found[1]}; this client reads {readable}: use the "
            "client that was exported with it"
        )
    return edge


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, inputs), strict=True))
    except Exception as error:  # onnxruntime's errors have no common base class
        raise EdgeError(f"the encoder does not take {what}: {' '.join(str(error).split())}") from error


def _session(path: Path, sha256: str, threads: int) -> onnxruntime.InferenceSession:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgeError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EdgeError(f"{path} is not the graph that edge.json describes: export both again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class
        reason = str(error).strip().splitlines()[0]
        raise EdgeError(f"onnxruntime {onnxruntime.__version__} cannot load {path}: {reason}") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file, which is complete or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encode(args: argparse.Namespace) -> None:
    encoder = EdgeEncoder(args.directory, args.threads)
    outputs = [args.output / f"{path.stem}.fsb" for path in args.images]
    doubled = next((output for output in outputs if outputs.count(output) > 1), None)
    if doubled:
        raise EdgeError(f"two of the images would be written to {doubled}: write them to separate folders")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for path, output in zip(args.images, outputs, strict=True):
            stream = _named(encoder, path, args)
            _write(output, stream)
            print(f"{path} -> {output}  {len(stream)} bytes")
    except OSError as error:
        raise EdgeError(f"cannot write to {args.output}: {error.strerror}") from error


def _send(args: argparse.Namespace) -> None:
    encoder = EdgeEncoder(args.directory, args.threads)
    token = _read_token(args.token_file) if args.token_file else None
    for path in args.images:
        stream = _named(encoder, path, args)
        classes = classify(args.url, stream, token)
        ranking = ", ".join(f"{each['name']} {each['probability']:.1%}" for each in classes)
        print(f"{path}: {len(stream)} bytes: {ranking}")


def _named(encoder: EdgeEncoder, path: Path, args: argparse.Namespace) -> bytes:
    try:
        return encoder.encode(path, args.rate, args.max_bytes)
    except EdgeError as error:
        raise error if str(path) in str(error) else EdgeError(f"{path}: {error}") from error


def classify(url: str, stream: bytes, token: str | None = None) -> list[dict]:
    """Send a stream to a server; return its classes: `index`, `name`, `probability`, the most probable first.

    Raises:
        EdgeError: no server at this address, or one that refuses; the message gives its reason.
    """
    headers = {"Content-Type": "application/octet-stream", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/classify", stream, headers)
        answer = _answer(request)
        return [
            {"index": int(c["index"]), "name": str(c["name"]), "probability": float(c["probability"])} for c in answer
        ]
    except urllib.error.HTTPError as error:
        raise EdgeError(f"{url} answers {error.code}: {_reason(error)}") from error
    except urllib.error.URLError as error:
        raise EdgeError(f"no answer from {url}: {error.reason}") from error
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        raise EdgeError(f"{url} is no server for streams: {' '.join(repr(error).split())}") from error


def _answer(request: urllib.request.Request) -> list[dict]:
    for left in range(TRIES - 1, -1, -1):
        try:
            with OPENER.open(request, timeout=60) as response:
                return json.load(response)["classes"]
        except urllib.error.HTTPError as error:
            if error.code != 503 or not left:
                raise
            wait = error.headers.get("Retry-After", "")
            time.sleep(min(int(wait), 10) if wait.isdecimal() else 1)
    raise AssertionError("the last try returns or raises")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse redirects, which would hand the token to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(str(json.load(error)["detail"]).split())
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return str(error.reason)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise EdgeError(f"cannot read a token from {path}: {error}") from error
    if not token.isprintable() or len(token.split()) != 1:
        raise EdgeError(f"{path} holds no token: expected one word")
    return token


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    encode = commands.add_parser("encode", help="write one stream per image")
    send = commands.add_parser("send", help="send the streams to a server and print the classes")
    for command, run in ((encode, _encode), (send, _send)):
        command.add_argument("directory", type=Path, metavar="DIR", help="what scripts/export.py wrote")
        command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
        command.add_argument("--threads", type=int, default=1, help="of the encoder network (default: %(default)s)")
        rate = command.add_mutually_exclusive_group()
        rate.add_argument("--rate", type=float, metavar="R", help="0 (smallest streams) to 1 (largest); default: 0.5")
        rate.add_argument("--max_bytes", type=int, metavar="N", help="the highest rate at which a stream fits N bytes")
        command.set_defaults(run=run)
    encode.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="where the streams go")
    send.add_argument("--url", required=True, help="of the server, http://HOST:PORT")
    send.add_argument("--token_file", type=Path, metavar="FILE", help="the token that the server wants, if it does")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    try:
        args.run(args)
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
