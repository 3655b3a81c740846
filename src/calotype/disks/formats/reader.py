"""Reading a disk image at any place, with the bounds that keep a hostile one from costing much."""

import sys
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from msgspec import Struct

from calotype.disks.model import DiskFormat
from calotype.errors import DiskTooLarge, EmptyDisk, FormatMismatch, TruncatedDisk

SECTOR: Final = 512
SLICE: Final = 64 * 1024  # bytes of a table that are in memory at once
# Tables are read whole, so their size bounds the time of an inspection. 512 MiB are the tables of 4 TiB in clusters of
# 64 KiB; they are many only where clusters are tiny.
MOST_TABLE_BYTES: Final = 512 * 1024 * 1024
MOST_TABLES: Final = 256 * 1024


class Facts(Struct, frozen=True, kw_only=True):
    """What a parser found in a file that is whole, safe and of its format."""

    format: DiskFormat
    virtual_size: int  # bytes that a guest sees; a multiple of 512
    detail: str = ""
    snapshots: int = 0  # internal ones


class DiskFile:
    """The bytes of one image. `read_at(offset, n)` returns up to `n` bytes, fewer only at the end of the file."""

    def __init__(self, read_at: Callable[[int, int], bytes], size: int, *, most_virtual_bytes: int) -> None:
        self.size = size
        self.most_virtual_bytes = most_virtual_bytes
        self._read_at = read_at
        self._spent = 0

    def some(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer where the file ends."""
        length = min(length, self.size - offset)
        return self._read_at(offset, length) if length > 0 else b""

    def exactly(self, offset: int, length: int, what: str) -> bytes:
        self.holds(offset, length, what)
        data = self._read_at(offset, length)
        if len(data) != length:
            raise TruncatedDisk(f"the file ends within {what}")
        return data

    def holds(self, offset: int, length: int, what: str) -> None:
        """Raise `TruncatedDisk` unless the `length` bytes from `offset` lie in the file."""
        if offset + length > self.size:
            raise TruncatedDisk(
                f"the file is cut short: it has {self.size} bytes, but {what} would end at byte {offset + length}"
            )

    def table(self, offset: int, entries: int, typecode: str, what: str, *, big_endian: bool) -> Iterator["array[int]"]:
        """Yield the table's entries (`typecode` I: 4 bytes, Q: 8) in slices. Raises `TruncatedDisk`, `DiskTooLarge`."""
        width = array(typecode).itemsize
        self.holds(offset, entries * width, what)
        self._spend(entries * width)
        end = offset + entries * width
        while offset < end:
            data = self.exactly(offset, min(SLICE, end - offset), what)
            values = array(typecode)
            values.frombytes(data)
            if big_endian is not (sys.byteorder == "big"):
                values.byteswap()
            yield values
            offset += len(data)

    def virtual(self, size: int) -> int:
        """`size` as the disk's virtual size in bytes. Raises `EmptyDisk`, `DiskTooLarge`."""
        if size <= 0:
            raise EmptyDisk("the disk has a virtual size of 0 bytes")
        if size > self.most_virtual_bytes:
            raise DiskTooLarge(
                f"the virtual size of the disk is {size} bytes; at most {self.most_virtual_bytes} are allowed"
            )
        return size

    def _spend(self, table_bytes: int) -> None:
        self._spent += table_bytes
        if self._spent > MOST_TABLE_BYTES:
            raise DiskTooLarge(
                f"the tables of the image are above {MOST_TABLE_BYTES} bytes; write it with larger clusters"
            )


def check_places(places: "array[int]", what: str, *, length: int = 1) -> None:
    """Raise `DiskTooLarge` if there are too many tables, `FormatMismatch` if two of `length` bytes share a byte.

    One small table, named a million times, would cost as much as a million tables.
    """
    if len(places) > MOST_TABLES:
        raise DiskTooLarge(f"the image has more than {MOST_TABLES} tables; write it with larger clusters")
    if any(next_ - one < length for one, next_ in pairwise(sorted(places))):
        raise FormatMismatch(f"a damaged image: {what} is used twice")


def bits_of(table: "array[int]", bits: int) -> int:
    """The `bits` that entries (of 8 bytes) have, of all of them in one number: nothing else is as fast."""
    mask = int.from_bytes(bits.to_bytes(8, sys.byteorder) * len(table), sys.byteorder)
    return int.from_bytes(table.tobytes(), sys.byteorder) & mask


def rounded_up(value: int, to: int) -> int:
    return -(-value // to) * to


def is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
