"""The stream format: the bytes that travel from edge to server, one self-contained stream per image.

    byte 0      "F"
    byte 1      version of the format, "2", or "3" if a level follows
    byte 2-5    fingerprint of the sender's encoder and entropy model (`model.halves.fingerprint`), of any level
    1 byte      level of a model of variable rate (`model.gains`), in format 3 alone
    1 byte      n if the latent y is n x n; 0 if height and width follow
    varint x 2  height and width of y, only after a 0
    payload     all symbols, those of z (if there is a hyper latent) before those of y; may be empty
    4 bytes     CRC-32 (zlib) of all preceding bytes, little-endian

The overhead of a square latent is 11 bytes, with a level 12. A varint holds 7 bits per byte, lowest first; all bytes
but the last have the top bit set. The encoding is unique: squares are never written as two varints, nor varints longer
than needed.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

from misc.errors import UserError

MAGIC = b"F"
ONE_RATE, VARIABLE_RATE = b"F2", b"F3"
FINGERPRINT_BYTES = 4
MAX_SQUARE = 128
# Limits on untrusted streams: the latent of a 1,024 x 1,024 image, and 16 MiB.
MAX_POSITIONS = MAX_SQUARE**2
MAX_BYTES = 2**24


class BitstreamError(UserError):
    """Bytes that are not a complete, undamaged stream of this format and model."""


class Stream(NamedTuple):
    """The content of a stream.

    Attributes:
        fingerprint: identifies encoder and entropy model, 4 bytes.
        size: height and width of the latent y, at most 16,384 positions.
        payload: the entropy-coded symbols.
        level: of a model of variable rate, 0 to 255; None if the model has one rate.
    """

    fingerprint: bytes
    size: tuple[int, int]
    payload: bytes
    level: int | None = None


def pack(stream: Stream) -> bytes:
    """Return a stream as bytes.

    Raises:
        BitstreamError: a size out of bounds, or a payload that makes the stream longer than the limit.
        ValueError: a fingerprint of another length than 4 bytes.
    """
    if len(stream.fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes, not {len(stream.fingerprint)}")
    _check_size(*stream.size)
    body = b"".join((*_packed_start(stream), _packed_size(*stream.size), stream.payload))
    if len(body) + 4 > MAX_BYTES:
        raise BitstreamError(f"a stream has at most {MAX_BYTES:,} bytes, this one would have {len(body) + 4:,}")
    return body + _checksum(body)


def unpack(packed: bytes) -> Stream:
    """Return the stream that `pack` turned into bytes.

    Raises:
        BitstreamError: foreign, truncated or damaged bytes; the content is parsed only after the checksum has matched.
    """
    if len(packed) > MAX_BYTES:
        raise BitstreamError(f"more than {MAX_BYTES:,} bytes are no stream")
    if packed[:1] != MAGIC:
        raise BitstreamError("not a FrankenSplit stream")
    if packed[:2] not in (ONE_RATE, VARIABLE_RATE):
        raise BitstreamError("a stream of another version of the format: this program reads versions 2 and 3")
    body, checksum = packed[:-4], packed[-4:]
    level, place = (None, 6) if packed[:2] == ONE_RATE else (packed[6] if len(packed) > 6 else 0, 7)
    if len(body) <= place or _checksum(body) != checksum:
        raise BitstreamError("the stream is truncated or damaged: its checksum is wrong")
    size, place = _read_size(body, place)
    return Stream(body[2:6], size, body[place:], level)


def read_packed(path: str | Path) -> bytes:
    """Read a stream's file, at most one byte more than a stream can have.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_POSITIONS:
        raise BitstreamError(f"a latent of {height} x {width} is outside of 1 to {MAX_POSITIONS} positions")


def _packed_start(stream: Stream) -> tuple[bytes, ...]:
    if stream.level is None:
        return ONE_RATE, stream.fingerprint
    return VARIABLE_RATE, stream.fingerprint, bytes([stream.level])


def _packed_size(height: int, width: int) -> bytes:
    return bytes([height]) if height == width else b"\0" + _varint(height) + _varint(width)


def _read_size(body: bytes, place: int) -> tuple[tuple[int, int], int]:
    height = width = body[place]
    place += 1
    if height == 0:
        height, place = _read_varint(body, place)
        width, place = _read_varint(body, place)
        if height == width:
            raise BitstreamError("a square latent that is written as two numbers")
    _check_size(height, width)
    return (height, width), place


def _varint(value: int) -> bytes:
    groups = []
    while True:
        value, group = value >> 7, value & 0x7F
        groups.append(group | (0x80 if value else 0))
        if not value:
            return bytes(groups)


def _read_varint(body: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14):
        if place >= len(body):
            raise BitstreamError("the stream ends inside its header")
        group, place = body[place], place + 1
        value |= (group & 0x7F) << shift
        if not group & 0x80:
            if shift and not group:
                raise BitstreamError("a number longer than needed")
            return value, place
    raise BitstreamError("a number longer than three bytes")
