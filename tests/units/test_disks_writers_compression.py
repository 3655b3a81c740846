"""What ISA-L makes is what zlib reads, with no more of a window than a reader of qcow2 has; and frames of Zstandard."""

import random
import zlib
from typing import Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.writers.compression import ZstdFrames, narrow_deflate, zlib_stream

UNIT: Final = 64 * 1024
NARROW: Final = -12  # zlib's word for no head and a window of 4 KiB


def unpacked_by_the_byte(data: bytes) -> bytes:
    """With a window of 4 KiB and not a byte more: a longer way back is an error of zlib's."""
    stream, out = zlib.decompressobj(NARROW), bytearray()
    while not stream.eof:
        out += stream.decompress(data, 1)
        data = stream.unconsumed_tail
    assert not stream.unused_data
    return bytes(out)


def repeated(period: int) -> bytes:
    return (random.Random(period).randbytes(period) * (UNIT // period + 1))[:UNIT]


@pytest.mark.parametrize("period", [1, 2, 255, 300, 4000, 4095, 4096, 4097, 5000, 32767, 32768])
def test_the_way_back_is_never_longer_than_4_kib(period: int) -> None:
    data = repeated(period)

    assert unpacked_by_the_byte(narrow_deflate(data)) == data


def test_a_longer_way_back_would_be_found_out() -> None:
    with pytest.raises(zlib.error, match="too far back"):
        unpacked_by_the_byte(zlib_stream(repeated(5000))[2:-4])


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=400), st.integers(1, 200)), max_size=30))
def test_all_read_back(pieces: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece * times for piece, times in pieces)[:UNIT].ljust(UNIT, b"\0")

    assert zlib.decompress(zlib_stream(data)) == data
    assert zlib.decompress(narrow_deflate(data), NARROW) == data
    assert zstandard.ZstdDecompressor().decompress(ZstdFrames()(data)) == data


def test_what_cannot_be_compressed_grows_little() -> None:
    noise = random.Random(1).randbytes(UNIT)

    assert len(zlib_stream(noise)) < UNIT + 64


def test_a_frame_tells_its_content_size_and_whether_it_is_damaged() -> None:
    frame = bytearray(ZstdFrames()(random.Random(2).randbytes(UNIT)))
    frame[UNIT // 2] ^= 1

    assert zstandard.frame_content_size(bytes(frame)) == UNIT
    with pytest.raises(zstandard.ZstdError, match="checksum"):
        zstandard.ZstdDecompressor().decompress(bytes(frame))
