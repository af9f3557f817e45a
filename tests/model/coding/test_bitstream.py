import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from misc.errors import UserError
from model.coding import bitstream
from model.coding.bitstream import MAX_BYTES, MAX_POSITIONS, BitstreamError, Stream, pack, read_packed, unpack

sizes = st.tuples(st.integers(1, MAX_POSITIONS), st.integers(1, MAX_POSITIONS)).filter(
    lambda size: size[0] * size[1] <= MAX_POSITIONS
) | st.integers(1, 128).map(lambda side: (side, side))
levels = st.none() | st.integers(0, 255)
streams = st.builds(Stream, st.binary(min_size=4, max_size=4), sizes, st.binary(max_size=400), levels)


def checked(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_bytes_are_as_documented():
    body = b"F2" + b"\x0a\x0b\x0c\x0d" + b"\x1c" + b"payload"
    assert pack(Stream(b"\x0a\x0b\x0c\x0d", (28, 28), b"payload")) == checked(body)
    body = b"F2" + b"\x0a\x0b\x0c\x0d" + b"\x00\xac\x02\x07" + b"payload"
    assert pack(Stream(b"\x0a\x0b\x0c\x0d", (300, 7), b"payload")) == checked(body)
    body = b"F3" + b"\x0a\x0b\x0c\x0d" + b"\x15" + b"\x1c" + b"payload"
    assert pack(Stream(b"\x0a\x0b\x0c\x0d", (28, 28), b"payload", 21)) == checked(body)


@given(streams)
def test_round_trip(stream):
    assert unpack(pack(stream)) == stream


long_sides = st.integers(1 << 14, MAX_POSITIONS) | st.integers(100, 1 << 14)


@given(long_sides, st.booleans())
@example(1 << 14, True)
@example((1 << 14) - 1, True)
def test_round_trip_of_long_narrow_latents(side, is_tall):
    size = (side, 1) if is_tall else (1, side)
    packed = pack(Stream(b"abcd", size, b"payload"))
    assert unpack(packed) == Stream(b"abcd", size, b"payload")
    assert len(packed) == len(b"payload") + 12 + (1 if side < 1 << 7 else 2 if side < 1 << 14 else 3)


@given(st.integers(1, 128), st.binary(max_size=300))
def test_overhead_of_a_square_latent_is_eleven_bytes_and_twelve_with_a_level(side, payload):
    assert len(pack(Stream(b"abcd", (side, side), payload))) == len(payload) + 11
    assert len(pack(Stream(b"abcd", (side, side), payload, 7))) == len(payload) + 12


@given(streams, st.data())
def test_any_damage_is_refused(stream, data):
    packed = bytearray(pack(stream))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BitstreamError):
        unpack(bytes(packed))


@given(streams, st.data())
def test_any_truncation_is_refused(stream, data):
    packed = pack(stream)
    with pytest.raises(BitstreamError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(st.sampled_from([b"F2", b"F3"]), st.binary(max_size=100))
def test_hostile_bytes_with_a_right_checksum_are_refused_or_the_one_spelling_of_a_stream(version, body):
    packed = checked(version + body)
    try:
        stream = unpack(packed)
    except BitstreamError:
        return
    assert pack(stream) == packed


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (129, 128), (1, MAX_POSITIONS + 1)])
def test_sizes_out_of_bounds_are_refused_on_both_sides(size):
    with pytest.raises(BitstreamError, match="outside of 1 to"):
        pack(Stream(b"abcd", size, b""))
    varints = b"".join(bytes([side & 127 | 128, side >> 7 & 127 | 128, side >> 14]) for side in (1 << 14, 1 << 15))
    with pytest.raises(BitstreamError, match="outside of 1 to"):
        unpack(checked(b"F2abcd\0" + varints))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "not a FrankenSplit stream"),
        (b"\xff\xd8\xff\xe0 a JPEG", "not a FrankenSplit stream"),
        (b"FS\x01" + bytes(20), "another version"),
        (checked(b"F2abcd\0"), "ends inside its header"),
        (checked(b"F2abcd\0\x07\x07"), "written as two numbers"),
        (checked(b"F2abcd\0\x87\x00\x08"), "longer than needed"),
        (checked(b"F2abcd\0\xff\xff\xff\x01\x08"), "longer than three bytes"),
        (checked(b"F2"), "truncated or damaged"),
        (checked(b"F3abcd\x05"), "truncated or damaged"),
        (checked(b"F4abcd\x05\x08"), "another version"),
    ],
)
def test_errors_say_what_is_wrong(packed, message):
    with pytest.raises(UserError, match=message):
        unpack(packed)


def test_a_fingerprint_of_another_length_is_refused():
    with pytest.raises(ValueError, match="4 bytes"):
        pack(Stream(b"abc", (8, 8), b""))


def test_no_more_of_a_file_is_read_than_a_stream_can_have(tmp_path):
    path = tmp_path / "huge.fsb"
    with open(path, "wb") as file:
        file.truncate(10 * MAX_BYTES)
    packed = read_packed(path)
    assert len(packed) == MAX_BYTES + 1
    with pytest.raises(BitstreamError, match="no stream"):
        unpack(packed)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_packed(tmp_path)


def test_a_stream_too_long_to_be_read_is_not_made(monkeypatch):
    monkeypatch.setattr(bitstream, "MAX_BYTES", 20)
    assert len(pack(Stream(bytes(4), (7, 7), bytes(9)))) == 20
    with pytest.raises(BitstreamError, match="at most 20 bytes, this one would have 21"):
        pack(Stream(bytes(4), (7, 7), bytes(10)))
