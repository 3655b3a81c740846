"""What clusters and grains are compressed with: deflate by ISA-L, which takes a tenth of zlib's time for a few percent
more bytes, and Zstandard. The interpreter's lock is released meanwhile, so that threads compress at once."""

import threading
from collections.abc import Callable
from typing import Final

import zstandard
from isal import igzip_lib

LEVEL: Final = 2  # of ISA-L's, 0 to 3; the last one takes twice the time for a hundredth less
ZLIB_WINDOW_BITS, QCOW2_WINDOW_BITS = 15, 12
ZSTD_LEVEL: Final = 3  # the library's own default, and so qemu-img's

Compress = Callable[[bytes | bytearray], bytes]


def zlib_stream(data: bytes | bytearray) -> bytes:
    """As RFC 1950 has it, with its checksum."""
    return igzip_lib.compress(data, LEVEL, igzip_lib.COMP_ZLIB, igzip_lib.MEM_LEVEL_LARGE, ZLIB_WINDOW_BITS)


def narrow_deflate(data: bytes | bytearray) -> bytes:
    """As RFC 1951 has it, without head or checksum, referring back no further than 4 KiB: all that readers of qcow2
    keep."""
    return igzip_lib.compress(data, LEVEL, igzip_lib.COMP_DEFLATE, igzip_lib.MEM_LEVEL_LARGE, QCOW2_WINDOW_BITS)


class ZstdFrames:
    """One frame for each piece, as RFC 8878 has it, with its checksum: who reads a damaged one is told so.

    A thread's compressor is made once: to make one takes as long as to compress some KiB.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self, data: bytes | bytearray) -> bytes:
        compressor: zstandard.ZstdCompressor | None = getattr(self._own, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
            self._own.compressor = compressor
        return compressor.compress(data)
