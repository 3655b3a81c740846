"""The guest bytes of a qcow2 file, read directly: the tables by the thread that asks, compressed clusters by those that
compress again, so that all cores read.

For files that have passed the gate; what is damaged nevertheless is refused, and what lies behind the file's end reads
as zeros, as QEMU has it. They may be of strangers, and this is not the sandbox: a cluster is unpacked by zlib or by
libzstd, which are made for that, not by ISA-L, and into no more than a cluster; a frame may refer back 8 MiB at most.
Source: QEMU, docs/interop/qcow2.
"""

import os
import sys
import threading
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Self

import zstandard
from msgspec import Struct

from calotype.disks.formats.qcow2 import COMPRESSED, OFFSET, ZERO, Header, read_header
from calotype.disks.formats.reader import SECTOR, DiskFile, rounded_up
from calotype.disks.model import Window
from calotype.disks.writers.compression import QCOW2_WINDOW_BITS
from calotype.disks.writers.guest_bytes import BLOCK, Ahead, Bytes, Load, Place, data_in, read_at
from calotype.errors import ConversionFailed

TABLES: Final = 4  # L2 tables that are kept
MOST_DISK: Final = 1 << 60  # bytes; how many are too many is for the gate to say
MOST_WINDOW: Final = 8 * 1024 * 1024  # bytes that a Zstandard frame may refer back


class _Part(Struct, frozen=True):
    """Of a block: bytes that lie in one piece in the file, or within one compressed cluster."""

    at: int  # in the block
    length: int
    place: int  # in the image's file
    packed: int = 0  # bytes that are compressed; 0: they are not
    skipped: int = 0  # bytes of the cluster before those that are wanted


class Qcow2Disk:
    """Made by `of`. Kept in memory: the L1 table, which is of at most 32 MiB, and a few L2 tables."""

    def __init__(self, descriptor: int, header: Header, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._header = header
        self._start = start  # in the file, of the image
        self._length = length
        self._own = threading.local()
        self._tables: dict[int, array[int]] = {}
        self._used: dict[int, list[int]] = {}  # which of their entries say something
        self.size = header.size
        self._directory = self._numbers(header.l1_offset, -(-header.size // self._reach), 0)

    @classmethod
    def of(cls, descriptor: int, window: Window | None = None) -> Self | None:
        """None: it is for QEMU to read. Raises a leaf of `DiskRefused` for a header that the gate does not let pass."""
        size = os.fstat(descriptor).st_size
        start, length = (0, size) if window is None else (window.offset, rounded_up(window.length, SECTOR))

        def bytes_at(offset: int, wanted: int) -> bytes:
            return read_at(descriptor, wanted, start + offset)

        header = read_header(DiskFile(bytes_at, length, most_virtual_bytes=MOST_DISK))
        return None if header.extended_l2 else cls(descriptor, header, start, length)

    @property
    def _reach(self) -> int:
        """Bytes of the disk that one L2 table is for."""
        return self._header.cluster * self._header.l2_entries

    def extents(self) -> Iterator[Place]:
        for number, place in enumerate(self._directory):
            if place & OFFSET:
                count = min(self._reach, self.size - number * self._reach)
                for part in self._parts(number * self._reach, count):
                    start = number * self._reach + part.at
                    if part.packed:
                        yield start, part.length
                        continue
                    begin = self._start + part.place
                    for first, length in data_in(self._descriptor, begin, begin + part.length):
                        yield start + first - begin, length

    def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
        for start, length in places:
            if not 0 < length <= BLOCK:
                raise ValueError(length)
            yield start, length, partial(self._block, start, length, [*self._parts(start, length)])

    def interrupt(self) -> None:
        """A file's reads end by themselves."""

    # --- the tables ---------------------------------------------------------------------------------------------------

    def _parts(self, start: int, length: int) -> Iterator[_Part]:
        """What the tables say of a place on the disk, in order, without what reads as zeros."""
        cluster, at = self._header.cluster, 0
        first = last = run = 0  # what lies in one piece: where in the place it begins, in the file, and how long it is
        while at < length:
            number, offset = divmod(start + at, self._reach)
            table = self._table(number)
            after = min(length, at + self._reach - offset)
            if table is None:
                at = after
                continue
            used = self._used[number]
            while at < after:
                index, skipped = divmod((start + at) % self._reach, cluster)
                next_used = bisect_left(used, index)
                if next_used == len(used):
                    at = after
                    break
                if used[next_used] > index:  # of a large disk most entries are empty
                    at = min(after, at + (used[next_used] - index) * cluster - skipped)
                    continue
                count = min(cluster - skipped, after - at)
                part = self._part(table[index], start, at, count, skipped)
                if part is not None and not part.packed and run and part.place == last and part.at == first + run:
                    run, last = run + count, last + count
                else:
                    if run and part is not None:
                        yield _Part(first, run, last - run)
                        run = 0
                    if part is not None and part.packed:
                        yield part
                    elif part is not None:
                        first, run, last = at, count, part.place + count
                at += count
        if run:
            yield _Part(first, run, last - run)

    def _part(self, entry: int, start: int, at: int, count: int, skipped: int) -> _Part | None:
        if entry & COMPRESSED:
            bits = 62 - (self._header.cluster_bits - 8)
            place, sectors = entry & (1 << bits) - 1, ((entry & COMPRESSED - 1) >> bits) + 1
            return _Part(at, count, place, sectors * SECTOR - place % SECTOR, skipped)
        if entry & ZERO and self._header.version > 2:
            return None
        place = entry & OFFSET
        if not place:
            return None
        if entry & ZERO or place % self._header.cluster:
            raise _unreadable(start + at)
        return _Part(at, count, place + skipped)

    def _table(self, number: int) -> "array[int] | None":
        """The L2 table of that number; None: there is none."""
        if number not in self._tables:
            place = self._directory[number] & OFFSET
            if not place:
                return None
            if len(self._tables) == TABLES:
                oldest = next(iter(self._tables))
                del self._tables[oldest], self._used[oldest]
            table = self._numbers(place, self._header.l2_entries, number * self._reach)
            self._tables[number], self._used[number] = table, [index for index, entry in enumerate(table) if entry]
        return self._tables[number]

    def _numbers(self, place: int, count: int, start: int) -> "array[int]":
        """A table of that many entries; `start` is the first byte of the disk that it is for."""
        numbers = array("Q")
        data = self._bytes(place, count * numbers.itemsize, start)
        if place % self._header.cluster or len(data) < count * numbers.itemsize:
            raise _unreadable(start)
        numbers.frombytes(data)
        if sys.byteorder == "little":
            numbers.byteswap()
        return numbers

    # --- the bytes: in any thread -------------------------------------------------------------------------------------

    def _block(self, start: int, length: int, parts: Sequence[_Part]) -> Bytes:
        data = bytearray(length)
        view = memoryview(data)
        for part in parts:
            piece = self._bytes(part.place, part.packed or part.length, start + part.at)
            if part.packed:
                piece = self._unpacked(piece, start + part.at)[part.skipped : part.skipped + part.length]
            view[part.at : part.at + len(piece)] = piece
        return data

    def _bytes(self, place: int, length: int, start: int) -> bytes:
        """Of the image's file; fewer where it ends, none behind that."""
        if place >= self._length:
            return b""
        try:
            return read_at(self._descriptor, min(length, self._length - place), self._start + place)
        except OSError as error:
            raise _unreadable(start) from error

    def _unpacked(self, packed: bytes, start: int) -> bytes:
        """A whole cluster; what follows it in its last sector is of another one."""
        try:
            data = self._unzstd(packed) if self._header.zstd else _inflated(packed, self._header.cluster)
        except (zstandard.ZstdError, zlib.error) as error:
            raise _unreadable(start) from error
        if len(data) != self._header.cluster:
            raise _unreadable(start)
        return data

    def _unzstd(self, packed: bytes) -> bytes:
        told = zstandard.frame_content_size(packed)  # -1: it does not tell
        if told not in (-1, self._header.cluster):
            return b""
        decompressor: zstandard.ZstdDecompressor | None = getattr(self._own, "decompressor", None)
        if decompressor is None:
            decompressor = self._own.decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
        return decompressor.decompress(packed, max_output_size=self._header.cluster, allow_extra_data=True)


def _inflated(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj(-QCOW2_WINDOW_BITS).decompress(packed, most)


def _unreadable(start: int) -> ConversionFailed:
    return ConversionFailed(f"the image cannot be read at byte {start} of the disk")
