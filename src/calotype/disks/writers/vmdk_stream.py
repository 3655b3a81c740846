"""streamOptimized VMDK: written from front to end, and never gone back in. Integers are little-endian.

A header, the descriptor, then for each 32 MiB of the disk that have data their grains, each zlib of 64 KiB behind a
marker, and their table; then the directory of the tables, the header again with the directory's place, and the end.
Zero grains are left out. Source: VMware, "Virtual Disk Format 5.0", Stream-Optimized Compressed Sparse Extents.
"""

import secrets
import struct
from pathlib import Path
from typing import BinaryIO, Final

from calotype.disks.formats.reader import SECTOR, rounded_up
from calotype.disks.writers.compression import zlib_stream
from calotype.disks.writers.guest_bytes import UNIT, GuestDisk
from calotype.disks.writers.pipeline import Cancelled, Crew, Progress, Units, packed
from calotype.errors import ConversionFailed

VERSION: Final = 3
FLAGS: Final = 1 | 1 << 16 | 1 << 17  # newlines to be tested, compressed grains, markers
DEFLATE: Final = 1
AT_END: Final = 0xFFFFFFFFFFFFFFFF  # the directory is where the footer says
TABLE_ENTRIES: Final = 512
DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS = 1, 20
OVERHEAD: Final = 128  # sectors before the first grain
LAST_SECTOR: Final = 0xFFFFFFFF  # that a table can name: 2 TiB
END, TABLE, DIRECTORY, FOOTER = 0, 1, 2, 3  # kinds of markers
HEADS, SECTORS_A_TRACK, MOST_CYLINDERS = 255, 63, 65535  # what a SCSI adapter of VMware tells of a disk

_HEADER: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
_GRAIN: Final = struct.Struct("<QI")  # the grain's first sector on the disk, bytes that follow
_MARKER: Final = struct.Struct("<QII")  # sectors that follow, 0, kind
_ENTRIES: Final = struct.Struct(f"<{TABLE_ENTRIES}I")


def write_vmdk_stream(disk: GuestDisk, target: Path, crew: Crew, *, progress: Progress, cancelled: Cancelled) -> None:
    """Write the disk to the existing, empty file `target`. For a thread.

    Raises `ConversionFailed`, `JobCancelled`, `OSError`; what is in `target` then is of no use.
    """
    with target.open("r+b", buffering=0) as file:
        image = VmdkStream(file, disk.size)
        for first, units in packed(disk, zlib_stream, crew, progress=progress, cancelled=cancelled):
            image.put(first, units)
        image.finish()


class VmdkStream:
    """Grains come in order. Kept in memory: one table, and 4 bytes for each 32 MiB of the disk."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Write the head to `file`; `size` is the disk's, a multiple of 512."""
        self._file = file
        self._capacity = size // SECTOR
        grains = -(-size // UNIT)
        self._directory = [0] * -(-grains // TABLE_ENTRIES)
        self._table = [0] * TABLE_ENTRIES
        self._table_number = 0
        self._sector = 0
        text = _descriptor(self._capacity).encode()
        self._append([self._header(AT_END), text.ljust((OVERHEAD - DESCRIPTOR_SECTOR) * SECTOR, b"\0")])

    def put(self, first: int, units: Units) -> None:
        """Add the grains from number `first` on."""
        pieces: list[bytes] = []
        sector = self._sector
        for grain, data in enumerate(units, first):
            if data is None:
                continue
            if grain // TABLE_ENTRIES != self._table_number:
                self._append(pieces)
                self._end_table()
                pieces, sector = [], self._sector
                self._table_number = grain // TABLE_ENTRIES
            if sector > LAST_SECTOR:
                raise ConversionFailed("the result would be larger than the 2 TiB that a VMDK file can have")
            self._table[grain % TABLE_ENTRIES] = sector
            length = _GRAIN.size + len(data)
            padding = -length % SECTOR
            pieces += (_GRAIN.pack(grain * (UNIT // SECTOR), len(data)), data, bytes(padding))
            sector += (length + padding) // SECTOR
        self._append(pieces)

    def finish(self) -> None:
        self._end_table()
        directory = struct.pack(f"<{len(self._directory)}I", *self._directory)
        directory = directory.ljust(rounded_up(len(directory), SECTOR), b"\0")
        self._append([_marker(DIRECTORY, len(directory) // SECTOR)])
        place = self._sector
        self._append([directory, _marker(FOOTER, 1), self._header(place), _marker(END, 0)])

    def _end_table(self) -> None:
        if not any(self._table):
            return
        if self._sector >= LAST_SECTOR:
            raise ConversionFailed("the result would be larger than the 2 TiB that a VMDK file can have")
        self._directory[self._table_number] = self._sector + 1
        self._append([_marker(TABLE, _ENTRIES.size // SECTOR), _ENTRIES.pack(*self._table)])
        self._table = [0] * TABLE_ENTRIES

    def _append(self, pieces: list[bytes]) -> None:
        data = memoryview(b"".join(pieces))
        self._sector += len(data) // SECTOR
        while data:
            data = data[self._file.write(data) :]

    def _header(self, directory: int) -> bytes:
        return _HEADER.pack(
            b"KDMV", VERSION, FLAGS, self._capacity, UNIT // SECTOR, DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS,
            TABLE_ENTRIES, 0, directory, OVERHEAD, 0, b"\n \r\n", DEFLATE,
        ).ljust(SECTOR, b"\0")  # fmt: skip


def _marker(kind: int, sectors: int) -> bytes:
    return _MARKER.pack(sectors, 0, kind).ljust(SECTOR, b"\0")


def _descriptor(capacity: int) -> str:
    cylinders = min(MOST_CYLINDERS, max(1, capacity // (HEADS * SECTORS_A_TRACK)))
    content_id = secrets.randbelow(0xFFFFFFFE)  # the two largest numbers mean something else
    return f"""# Disk DescriptorFile
version=1
CID={content_id:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {capacity} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{HEADS}"
ddb.geometry.sectors = "{SECTORS_A_TRACK}"
ddb.adapterType = "lsilogic"
"""
