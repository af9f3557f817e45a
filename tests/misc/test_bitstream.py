import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc.bitstream import BitstreamError, pack, unpack

strings_of_streams = st.lists(st.binary(max_size=400), min_size=1, max_size=4).map(tuple)
sizes = st.tuples(st.integers(1, 1 << 14), st.integers(1, 1 << 14))


@given(strings_of_streams, sizes)
def test_round_trip(strings, size):
    assert unpack(pack(strings, size)) == (strings, size)


@given(st.binary(max_size=300))
def test_overhead_of_one_string_at_small_latents_is_ten_bytes(string):
    assert len(pack((string,), (8, 8))) == len(string) + 10


@given(strings_of_streams, sizes, st.data())
def test_any_damage_is_refused(strings, size, data):
    stream = bytearray(pack(strings, size))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BitstreamError):
        unpack(bytes(stream))


@given(strings_of_streams, sizes, st.data())
def test_any_truncation_is_refused(strings, size, data):
    stream = pack(strings, size)
    with pytest.raises(BitstreamError):
        unpack(stream[: data.draw(st.integers(0, len(stream) - 1))])


@given(st.binary(max_size=100))
def test_hostile_bytes_with_a_right_checksum_give_a_stream_or_an_error(body):
    body = b"FS\x01" + body
    try:
        strings, (height, width) = unpack(body + zlib.crc32(body).to_bytes(4, "little"))
    except BitstreamError:
        return
    assert sum(map(len, strings)) <= len(body) and height and width
