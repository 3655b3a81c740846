"""qcow2 with compressed clusters: of zlib, as every reader of version 3 knows them, or of Zstandard, as QEMU does since
5.1. Integers are big-endian.

Compressed clusters lie behind one another without alignment; one that does not get smaller is stored as it is. Zero
clusters are left out. The tables follow the clusters they are of, and the header is written last: a file that was not
finished is none. Source: QEMU, docs/interop/qcow2.
"""

import os
import struct
from array import array
from pathlib import Path
from typing import Final

from calotype.disks.formats.qcow2 import COMPRESSED, COMPRESSION_TYPE, COPIED, HEADER_V3, MAGIC
from calotype.disks.writers.compression import Compress, ZstdFrames, narrow_deflate
from calotype.disks.writers.guest_bytes import GuestDisk
from calotype.disks.writers.pipeline import Cancelled, Crew, Progress, Units, packed

CLUSTER_BITS: Final = 16
CLUSTER: Final = 1 << CLUSTER_BITS
TABLE_ENTRIES: Final = CLUSTER // 8
REFCOUNT_ORDER: Final = 4  # 16 bits
BLOCK_ENTRIES: Final = CLUSTER // 2
SECTORS_BIT: Final = 62 - (CLUSTER_BITS - 8)  # where a compressed cluster's number of further sectors begins
SECTOR_BITS: Final = 9
GATHERED: Final = 1024 * 1024  # bytes that are written at once
ZLIB, ZSTD = 0, 1  # types of compression

_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
_TABLE: Final = struct.Struct(f">{TABLE_ENTRIES}Q")


def write_qcow2_zlib(disk: GuestDisk, target: Path, crew: Crew, *, progress: Progress, cancelled: Cancelled) -> None:
    """Write the disk to the existing, empty file `target`. For a thread.

    Raises `ConversionFailed`, `JobCancelled`, `OSError`; what is in `target` then is of no use.
    """
    _write_qcow2(disk, target, crew, narrow_deflate, zstd=False, progress=progress, cancelled=cancelled)


def write_qcow2_zstd(disk: GuestDisk, target: Path, crew: Crew, *, progress: Progress, cancelled: Cancelled) -> None:
    """As `write_qcow2_zlib`."""
    _write_qcow2(disk, target, crew, ZstdFrames(), zstd=True, progress=progress, cancelled=cancelled)


def _write_qcow2(
    disk: GuestDisk,
    target: Path,
    crew: Crew,
    compress: Compress,
    *,
    zstd: bool,
    progress: Progress,
    cancelled: Cancelled,
) -> None:
    def smaller(cluster: bytes | bytearray) -> bytes:
        """The cluster compressed, or as it is if that makes it no smaller; its length tells which."""
        compressed = compress(cluster)
        return compressed if len(compressed) < CLUSTER else bytes(cluster)

    with target.open("r+b", buffering=0) as file:
        image = CompressedQcow2(file.fileno(), disk.size, zstd=zstd)
        for first, units in packed(disk, smaller, crew, progress=progress, cancelled=cancelled):
            image.put(first, units)
        image.finish()


class CompressedQcow2:
    """Clusters come in order. Kept in memory: one table, 8 bytes for each 512 MiB of the disk, and 2 bytes for each 64
    KiB of the file: 32 KiB for each GiB of it."""

    def __init__(self, descriptor: int, size: int, *, zstd: bool) -> None:
        self._file = descriptor
        self._zstd = zstd
        self._size = size
        self._directory = [0] * max(1, -(-size // (CLUSTER * TABLE_ENTRIES)))
        self._table = [0] * TABLE_ENTRIES
        self._table_number = 0
        self._counts = array("H", [1])  # of each cluster of the file: how much refers to it; the first is the header's
        self._packing = self._packing_end = 0  # where the next compressed cluster may go, in a cluster of such
        self._gathered: list[bytes] = []
        self._gathered_at = self._gathered_end = 0

    def put(self, first: int, units: Units) -> None:
        """Add the clusters from number `first` on; one of 64 KiB is not compressed."""
        for cluster, data in enumerate(units, first):
            if data is None:
                continue
            if cluster // TABLE_ENTRIES != self._table_number:
                self._end_table()
                self._table_number = cluster // TABLE_ENTRIES
            entry = self._stored(data) if len(data) == CLUSTER else self._compressed(data)
            self._table[cluster % TABLE_ENTRIES] = entry

    def finish(self) -> None:
        self._end_table()
        directory = struct.pack(f">{len(self._directory)}Q", *self._directory)
        directory_at = self._whole(directory)
        blocks, table = _room_for_counts(len(self._counts))
        blocks_at = len(self._counts) * CLUSTER
        self._counts.extend([1] * (blocks + table))
        self._counts.frombytes(bytes(2 * (blocks * BLOCK_ENTRIES - len(self._counts))))
        counts_at = self._write_counts(blocks_at)
        self._flush()
        # For zlib the header that QEMU before 5.1 wrote; the type is of its longer form.
        kind, features, length = (ZSTD, COMPRESSION_TYPE, _HEADER.size) if self._zstd else (ZLIB, 0, HEADER_V3)
        header = _HEADER.pack(
            MAGIC, 3, 0, 0, CLUSTER_BITS, self._size, 0, len(self._directory), directory_at, counts_at, table, 0, 0,
            features, 0, 0, REFCOUNT_ORDER, length, kind,
        )  # fmt: skip
        _write_at(self._file, header.ljust(CLUSTER, b"\0"), 0)

    def _stored(self, data: bytes) -> int:
        return self._whole(data) | COPIED

    def _compressed(self, data: bytes) -> int:
        """Behind the last compressed one if there is room, or if the file goes on there; else in a new cluster."""
        if self._packing + len(data) > self._packing_end:
            if self._packing_end != len(self._counts) * CLUSTER:
                self._packing = self._packing_end = len(self._counts) * CLUSTER
            self._counts.append(0)
            self._packing_end += CLUSTER
        at, last = self._packing, self._packing + len(data) - 1
        for number in range(at // CLUSTER, last // CLUSTER + 1):
            self._counts[number] += 1
        self._packing = last + 1
        self._write(data, at)
        return COMPRESSED | ((last >> SECTOR_BITS) - (at >> SECTOR_BITS)) << SECTORS_BIT | at

    def _whole(self, data: bytes) -> int:
        """Write to clusters that are used once, and say where."""
        at, clusters = len(self._counts) * CLUSTER, -(-len(data) // CLUSTER)
        self._counts.extend([1] * clusters)
        self._write(data.ljust(clusters * CLUSTER, b"\0"), at)
        return at

    def _end_table(self) -> None:
        if any(self._table):
            self._directory[self._table_number] = self._whole(_TABLE.pack(*self._table)) | COPIED
            self._table = [0] * TABLE_ENTRIES

    def _write_counts(self, at: int) -> int:
        """Write the blocks of counts, and the table of the blocks behind them; say where that is."""
        places = range(at, at + len(self._counts) * 2, CLUSTER)
        for number, place in enumerate(places):
            block = self._counts[number * BLOCK_ENTRIES : (number + 1) * BLOCK_ENTRIES]
            self._write(struct.pack(f">{BLOCK_ENTRIES}H", *block), place)
        table = struct.pack(f">{len(places)}Q", *places)
        self._write(table.ljust(-(-len(table) // CLUSTER) * CLUSTER, b"\0"), places.stop)
        return places.stop

    def _write(self, data: bytes, at: int) -> None:
        """Gather what is to lie in one piece, and write it when there is enough."""
        if at != self._gathered_end or at - self._gathered_at >= GATHERED:
            self._flush()
            self._gathered_at = at
        self._gathered.append(data)
        self._gathered_end = at + len(data)

    def _flush(self) -> None:
        _write_at(self._file, b"".join(self._gathered), self._gathered_at)
        self._gathered = []


def _room_for_counts(clusters: int) -> tuple[int, int]:
    """How many blocks of counts, and clusters of their table, a file of so many clusters and of those needs."""
    blocks = table = 0
    while True:
        wanted = -(-(clusters + blocks + table) // BLOCK_ENTRIES)
        room = -(-wanted * 8 // CLUSTER)
        if (wanted, room) == (blocks, table):
            return blocks, table
        blocks, table = wanted, room


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
