"""The bytes that travel from edge to server: one self-contained stream per image.

    byte 0-2      "FS" and the format's version, 1
    varint x 2    height and width of the latent y
    byte          number of strings, n
    varint x n-1  length in bytes of each string but the last
    strings       y's, then z's where there is a hyper latent
    4 bytes       CRC-32 of all before, little-endian

A varint holds 7 bits a byte, lowest first, the top bit set on all bytes but its last.
"""

import zlib

MAGIC = b"FS\x01"
MAX_SIDE = 1 << 14


class BitstreamError(ValueError):
    """Bytes that are not a whole, undamaged stream of this format."""


def pack(strings: tuple[bytes, ...], size: tuple[int, int]) -> bytes:
    """Returns the stream of one image's strings, its latent being `size` (height, width)."""
    lengths = b"".join(_varint(len(string)) for string in strings[:-1])
    body = b"".join((MAGIC, *map(_varint, size), bytes([len(strings)]), lengths, *strings))
    return body + zlib.crc32(body).to_bytes(4, "little")


def unpack(stream: bytes) -> tuple[tuple[bytes, ...], tuple[int, int]]:
    """Returns strings and latent size of a stream.

    Raises:
        BitstreamError: foreign, truncated or damaged bytes; nothing is decoded before the checksum is right.
    """
    if stream[:3] != MAGIC:
        raise BitstreamError("not a FrankenSplit stream of version 1")
    body, checksum = stream[:-4], stream[-4:]
    if len(stream) < 10 or zlib.crc32(body).to_bytes(4, "little") != checksum:
        raise BitstreamError("the stream is truncated or damaged: its checksum is wrong")
    height, place = _read_varint(body, 3)
    width, place = _read_varint(body, place)
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise BitstreamError(f"a latent of {height} x {width} is outside 1 to {MAX_SIDE}")
    strings = _read_strings(body, place)
    return strings, (height, width)


def _read_strings(body: bytes, place: int) -> tuple[bytes, ...]:
    count, place = _byte(body, place), place + 1
    lengths = []
    for _ in range(count - 1):
        length, place = _read_varint(body, place)
        lengths.append(length)
    rest = len(body) - place - sum(lengths)
    if count < 1 or rest < 0:
        raise BitstreamError("the strings' lengths do not add up to the stream's")
    strings = []
    for length in (*lengths, rest):
        strings.append(body[place : place + length])
        place += length
    return tuple(strings)


def _varint(value: int) -> bytes:
    groups = []
    while True:
        value, group = value >> 7, value & 0x7F
        groups.append(group | (0x80 if value else 0))
        if not value:
            return bytes(groups)


def _read_varint(body: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        group, place = _byte(body, place), place + 1
        value |= (group & 0x7F) << shift
        if not group & 0x80:
            return value, place
    raise BitstreamError("a number longer than five bytes")


def _byte(body: bytes, place: int) -> int:
    if place >= len(body):
        raise BitstreamError("the stream ends inside its header")
    return body[place]
