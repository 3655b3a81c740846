"""VMDK in one file: monolithicSparse and streamOptimized. Integers are little-endian.

Source: VMware, "Virtual Disk Format 5.0", Hosted Sparse Extents; QEMU, block/vmdk.c.
"""

import struct
from array import array
from typing import Final

from msgspec import Struct

from calotype.disks.formats import vmdk_descriptor
from calotype.disks.formats.reader import MOST_TABLES, SECTOR, DiskFile, Facts, check_places, is_power_of_two
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk, UnsafeDisk

MAGIC: Final = b"KDMV"
HEADER: Final = 79  # bytes in use; the header fills a sector
NEWLINE_TEST, REDUNDANT_DIRECTORY, ZEROED_GRAINS, COMPRESSED, MARKERS = 1, 2, 4, 1 << 16, 1 << 17
NEWLINES: Final = b"\n \r\n"
AT_END: Final = 0xFFFFFFFFFFFFFFFF  # the directory is where the footer says
FOOTER_MARKER: Final = struct.pack("<II", 0, 3).ljust(SECTOR - 8, b"\0")  # after its number of sectors
END_MARKER: Final = bytes(SECTOR)
TAIL: Final = 3 * SECTOR  # footer marker, footer, end-of-stream marker
DESCRIPTOR_SECTOR: Final = 1  # QEMU looks for it nowhere else
LEAST_DESCRIPTOR: Final = 20 * SECTOR  # QEMU reads so much, whatever the header says
MOST_GRAIN: Final = 32768  # sectors
MOST_TABLE: Final = 512  # entries
ZERO_GRAIN: Final = 1
GRAIN_MARKER: Final = 12


class Header(Struct, frozen=True, kw_only=True):
    flags: int
    capacity: int  # sectors
    grain: int  # sectors
    descriptor_sectors: int
    table_entries: int
    directory: int  # sector
    redundant_directory: int  # sector; 0: none

    @property
    def compressed(self) -> bool:
        return bool(self.flags & COMPRESSED)


def parse(disk: DiskFile) -> Facts:
    if disk.some(0, len(MAGIC)) != MAGIC:
        if vmdk_descriptor.looks_like_descriptor(disk.some(0, vmdk_descriptor.MOST_BYTES)):
            raise UnsafeDisk(f"a VMDK descriptor, whose data is in other files; {vmdk_descriptor.REWRITE}")
        raise FormatMismatch("not a VMDK image")
    first = disk.exactly(0, SECTOR, "the VMDK header")
    header = _read_header(first)
    descriptor = vmdk_descriptor.parse(_descriptor_bytes(disk, header))
    size = disk.virtual(header.capacity * SECTOR)
    if descriptor.sectors != header.capacity:
        raise FormatMismatch("not a usable VMDK image: its header and its descriptor say different sizes")
    if header.directory == AT_END:
        header = _footer(disk, first)
    # QEMU reads the second directory too, and both may be used for a repair.
    if header.flags & REDUNDANT_DIRECTORY and header.redundant_directory:
        _check_grains(disk, header, header.redundant_directory)
    if header.redundant_directory != header.directory or not header.flags & REDUNDANT_DIRECTORY:
        _check_grains(disk, header, header.directory)
    return Facts(format=DiskFormat.VMDK, virtual_size=size, detail=descriptor.kind)


def _read_header(data: bytes) -> Header:
    (
        version, flags, capacity, grain, descriptor, descriptor_sectors, table_entries, redundant, directory,
        _overhead, _unclean, newlines, compression,
    ) = struct.unpack_from("<IIQQQQIQQQB4sH", data, 4)  # fmt: skip
    if version not in (1, 2, 3):
        raise FormatMismatch(f"a VMDK image of version {version}; 1, 2 and 3 are taken")
    if flags & NEWLINE_TEST and newlines != NEWLINES:
        raise FormatMismatch("a damaged VMDK image: it was transferred as if it were text")
    if not is_power_of_two(grain) or grain > MOST_GRAIN or not 0 < table_entries <= MOST_TABLE:
        raise FormatMismatch(f"not a usable VMDK image: grains of {grain} sectors, tables of {table_entries} entries")
    if compression > 1 or bool(compression) is not bool(flags & COMPRESSED):
        raise FormatMismatch(f"a VMDK image with an unknown compression ({compression})")
    if capacity == 0 or descriptor != DESCRIPTOR_SECTOR or descriptor_sectors == 0:
        raise UnsafeDisk("a VMDK image without a descriptor of its own")
    return Header(
        flags=flags,
        capacity=capacity,
        grain=grain,
        descriptor_sectors=descriptor_sectors,
        table_entries=table_entries,
        directory=directory,
        redundant_directory=redundant,
    )


def _descriptor_bytes(disk: DiskFile, header: Header) -> bytes:
    length = header.descriptor_sectors * SECTOR
    if length > vmdk_descriptor.MOST_BYTES:
        raise FormatMismatch(f"not a usable VMDK image: a descriptor of {length} bytes")
    data = disk.exactly(DESCRIPTOR_SECTOR * SECTOR, length, "the descriptor")
    _text, end, rest = data.partition(b"\0")
    if not end:
        # QEMU would read on until a zero byte.
        return disk.some(DESCRIPTOR_SECTOR * SECTOR, max(length, LEAST_DESCRIPTOR))
    if any(rest):
        # QEMU stops at the zero byte; another reader may find a second descriptor behind it.
        raise UnsafeDisk(f"a VMDK image with more than one text in its descriptor; {vmdk_descriptor.REWRITE}")
    return data


def _footer(disk: DiskFile, first: bytes) -> Header:
    """The header at the end of a stream: the one at the start again, but with the place of the directory."""
    tail = disk.exactly(max(0, disk.size - TAIL), TAIL, "the VMDK footer")
    marker, data, end = tail[:SECTOR], tail[SECTOR : 2 * SECTOR], tail[2 * SECTOR :]
    if marker[8:] != FOOTER_MARKER or end != END_MARKER or not data.startswith(MAGIC):
        raise TruncatedDisk("the file is cut short: a streamOptimized VMDK image without the footer at its end")
    # All but the places of the directories (offsets 48 and 56), the overhead and the unclean flag.
    if (data[:48], data[73:]) != (first[:48], first[73:]):
        raise UnsafeDisk("a VMDK image whose header and footer are not the same")
    header = _read_header(data)
    if header.directory == AT_END:
        raise FormatMismatch("a damaged VMDK image: its footer names another footer")
    return header


def _check_grains(disk: DiskFile, header: Header, directory: int) -> None:
    """Every grain that a table names must lie in the file."""
    grains = -(-header.capacity // header.grain)
    tables = -(-grains // header.table_entries)
    what = "the grain directory"
    places = array("I")
    for entries in disk.table(directory * SECTOR, tables, "I", what, big_endian=False):
        places.extend(table for table in entries if table)
        if len(places) > MOST_TABLES:
            break
    check_places(places, "a grain table")
    first_grain = 0
    for entries in disk.table(directory * SECTOR, tables, "I", what, big_endian=False):
        for table in entries:
            if table:
                _check_table(disk, header, table, first_grain)
            first_grain += header.table_entries


def _check_table(disk: DiskFile, header: Header, table: int, grain: int) -> None:
    # A compressed grain may be a little larger than a plain one, and says itself how large it is.
    most = header.grain * (2 if header.compressed else 1) + 1
    surely_inside = disk.size // SECTOR - most
    for values in disk.table(table * SECTOR, header.table_entries, "I", "a grain table", big_endian=False):
        if max(values) > surely_inside:
            for index, sector in enumerate(values):
                if sector > surely_inside and sector > ZERO_GRAIN:
                    _check_grain(disk, header, sector, (grain + index) * header.grain)
        grain += len(values)


def _check_grain(disk: DiskFile, header: Header, sector: int, guest_sector: int) -> None:
    if guest_sector >= header.capacity:
        return
    if not header.compressed:
        # The last grain of the disk needs no more bytes than the disk has.
        disk.holds(sector * SECTOR, min(header.grain, header.capacity - guest_sector) * SECTOR, "a grain")
        return
    marker = disk.exactly(sector * SECTOR, GRAIN_MARKER, "a grain")
    length = struct.unpack_from("<I", marker, 8)[0]
    if length > 2 * header.grain * SECTOR:
        raise FormatMismatch("a damaged VMDK image: a grain's length makes no sense")
    disk.holds(sector * SECTOR, GRAIN_MARKER + length, "a grain")
