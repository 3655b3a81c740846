"""A large file with little in it, as a few bytes: so that a fuzzer changes what a parser looks at, and not zeros.

Four bytes for the size, then for each sector that is not zero four bytes for its number and its 512 bytes. Everything
is a file: numbers wrap around, the last sector may be cut.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

SECTOR: Final = 512
MOST_BYTES: Final = 64 * 1024 * 1024  # of the file; a parser must not take long for the largest
HEAD: Final = struct.Struct("<I")

ReadAt = Callable[[int, int], bytes]


def encoded(content: bytes, *, without: bytes = b"") -> bytes:
    """`without`: what lies in it, sector by sector, is left out as if it were zeros."""
    left_out = {without[at : at + SECTOR] for at in range(0, len(without), SECTOR)} | {bytes(SECTOR)}
    sectors = {at // SECTOR: content[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, len(content), SECTOR)}
    return encoded_sectors({at: sector for at, sector in sectors.items() if sector not in left_out}, len(content))


def encoded_sectors(sectors: Mapping[int, bytes], size: int) -> bytes:
    return HEAD.pack(size) + b"".join(HEAD.pack(number) + sector for number, sector in sectors.items())


def sectors_of(data: bytes, *, most_bytes: int = MOST_BYTES) -> tuple[dict[int, bytes], int]:
    size = HEAD.unpack(data[:4].ljust(4, b"\0"))[0] % (most_bytes + 1)
    count = max(1, -(-size // SECTOR))
    sectors = {}
    for at in range(4, len(data) - 4, 4 + SECTOR):
        (number,) = HEAD.unpack_from(data, at)
        sectors[number % count] = data[at + 4 : at + 4 + SECTOR].ljust(SECTOR, b"\0")
    return sectors, size


def reading(sectors: Mapping[int, bytes], size: int) -> ReadAt:
    zeros = bytes(SECTOR)

    def read_at(offset: int, length: int) -> bytes:
        length = min(length, size - offset)
        if length <= 0:
            return b""
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        if last - first > len(sectors):  # most of it is zeros
            whole = bytearray((last - first + 1) * SECTOR)
            for number, sector in sectors.items():
                if first <= number <= last:
                    whole[(number - first) * SECTOR : (number - first + 1) * SECTOR] = sector
            data = bytes(whole)
        else:
            data = b"".join(sectors.get(number, zeros) for number in range(first, last + 1))
        start = offset - first * SECTOR
        return data[start : start + length]

    return read_at


def as_file(data: bytes) -> bytes:
    """The whole file that these bytes stand for."""
    sectors, size = sectors_of(data)
    return reading(sectors, size)(0, size)
