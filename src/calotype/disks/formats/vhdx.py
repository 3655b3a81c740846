"""VHDX, version 1. Integers are little-endian. Source: Microsoft, [MS-VHDX]."""

import struct
from collections.abc import Mapping
from itertools import pairwise
from typing import Final
from uuid import UUID

from msgspec import Struct

from calotype.disks.formats.crc32c import crc32c
from calotype.disks.formats.reader import DiskFile, Facts, is_power_of_two
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk, UnsafeDisk

SIGNATURE: Final = b"vhdxfile"
KIB: Final = 1024
MIB: Final = 1024 * KIB
HEADERS: Final = (64 * KIB, 128 * KIB)
HEADER: Final = 4 * KIB
REGIONS: Final = 192 * KIB
TABLE: Final = 64 * KIB
MOST_ENTRIES: Final = 2047
MOST_VIRTUAL: Final = 64 * 1024**4

BAT: Final = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA: Final = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")

FILE_PARAMETERS: Final = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_SIZE: Final = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
PAGE_83: Final = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR: Final = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR: Final = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR: Final = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
LENGTHS: Final[Mapping[UUID, int]] = {
    FILE_PARAMETERS: 8, VIRTUAL_SIZE: 8, PAGE_83: 16, LOGICAL_SECTOR: 4, PHYSICAL_SECTOR: 4,
}  # fmt: skip

LEAVE_ALLOCATED, HAS_PARENT = 1, 2  # flags of the file parameters
REQUIRED_ITEM: Final = 4  # flag of a metadata entry
FULLY_PRESENT, PARTIALLY_PRESENT = 6, 7  # states of a block
PARENT: Final = "a differencing VHDX image, which needs its parent; merge it first"


class Metadata(Struct, frozen=True, kw_only=True):
    block: int  # bytes
    size: int  # bytes
    sector: int  # bytes
    fixed: bool


def parse(disk: DiskFile) -> Facts:
    if disk.some(0, 8) != SIGNATURE:
        raise FormatMismatch("not a VHDX image")
    log = _log(disk)
    regions = _regions(disk)
    _check_apart([log, *regions.values()])
    if BAT not in regions or METADATA not in regions:
        raise FormatMismatch("a damaged VHDX image: a table is missing")
    metadata = _metadata(disk, *regions[METADATA])
    disk.virtual(metadata.size)
    _check_blocks(disk, metadata, *regions[BAT])
    detail = "fixed" if metadata.fixed else "dynamic"
    return Facts(format=DiskFormat.VHDX, virtual_size=metadata.size, detail=detail)


def _log(disk: DiskFile) -> tuple[int, int]:
    """Offset and length of the log, which must be empty. Of the two headers, the valid one with the higher number
    counts."""
    current: tuple[int, bytes] | None = None
    for offset in HEADERS:
        data = disk.exactly(offset, HEADER, "the VHDX header")
        checksum, sequence = struct.unpack_from("<IQ", data, 4)
        valid = data[:4] == b"head" and checksum == crc32c(data[:4] + bytes(4) + data[8:])
        if valid and (current is None or sequence > current[0]):
            current = (sequence, data)
    if current is None:
        raise FormatMismatch("a damaged VHDX image: neither of its headers is valid")
    data = current[1]
    log_version, version, log_length, log_offset = struct.unpack_from("<HHIQ", data, 64)
    if version != 1:
        raise FormatMismatch(f"a VHDX image of version {version}; only 1 is taken")
    if any(data[48:64]):
        raise FormatMismatch("a VHDX image that was not closed: its log must be replayed; open and close it once first")
    if log_version or log_offset < MIB or log_offset % MIB:
        raise FormatMismatch("a damaged VHDX image: its log makes no sense")
    return log_offset, log_length


def _check_apart(places: list[tuple[int, int]]) -> None:
    """QEMU opens no image whose log and regions share bytes."""
    if any(offset + length > after for (offset, length), (after, _) in pairwise(sorted(places))):
        raise FormatMismatch("a damaged VHDX image: two of its regions overlap")


def _regions(disk: DiskFile) -> dict[UUID, tuple[int, int]]:
    """Region -> (offset, length), each inside the file."""
    data = disk.exactly(REGIONS, TABLE, "the region table")
    signature, checksum, count = struct.unpack_from("<4sII", data)
    if signature != b"regi" or checksum != crc32c(data[:4] + bytes(4) + data[8:]) or count > MOST_ENTRIES:
        raise FormatMismatch("a damaged VHDX image: its region table is not valid")
    regions: dict[UUID, tuple[int, int]] = {}
    for index in range(count):
        raw, offset, length, required = struct.unpack_from("<16sQII", data, 16 + 32 * index)
        region = UUID(bytes_le=raw)
        if region in regions:
            raise FormatMismatch("a damaged VHDX image: a region is there twice")
        if region not in (BAT, METADATA):
            if required & 1:
                raise UnsafeDisk(f"a VHDX image with an unknown region ({region})")
            continue
        if offset < MIB or offset % MIB or length % MIB or not length:
            raise FormatMismatch("a damaged VHDX image: a region's place makes no sense")
        disk.holds(offset, length, "a region")
        regions[region] = (offset, length)
    return regions


def _metadata(disk: DiskFile, offset: int, length: int) -> Metadata:
    table = disk.exactly(offset, TABLE, "the metadata table")
    signature, count = struct.unpack_from("<8s2xH", table)
    if signature != b"metadata" or count > MOST_ENTRIES:
        raise FormatMismatch("a damaged VHDX image: its metadata table is not valid")
    items: dict[UUID, bytes] = {}
    for index in range(count):
        raw, place, size, flags = struct.unpack_from("<16sIII", table, 32 + 32 * index)
        item = UUID(bytes_le=raw)
        if item == PARENT_LOCATOR:
            raise UnsafeDisk(PARENT)
        if item not in LENGTHS:
            if flags & REQUIRED_ITEM:
                raise UnsafeDisk(f"a VHDX image with unknown metadata ({item})")
            continue
        if item in items or size != LENGTHS[item] or place < TABLE or place + size > length:
            raise FormatMismatch("a damaged VHDX image: its metadata makes no sense")
        items[item] = disk.exactly(offset + place, size, "the metadata")
    try:
        block, flags = struct.unpack("<II", items[FILE_PARAMETERS])
        (size,) = struct.unpack("<Q", items[VIRTUAL_SIZE])
        (sector,) = struct.unpack("<I", items[LOGICAL_SECTOR])
    except KeyError:
        raise FormatMismatch("a damaged VHDX image: its metadata is not complete") from None
    if flags & HAS_PARENT:
        raise UnsafeDisk(PARENT)
    if sector != 512:
        raise FormatMismatch(f"a VHDX image with sectors of {sector} bytes; only those with 512 are taken")
    if not is_power_of_two(block) or not MIB <= block <= 256 * MIB or size % sector or size > MOST_VIRTUAL:
        raise FormatMismatch(f"not a usable VHDX image: a size of {size} bytes in blocks of {block}")
    return Metadata(block=block, size=size, sector=sector, fixed=bool(flags & LEAVE_ALLOCATED))


def _check_blocks(disk: DiskFile, metadata: Metadata, offset: int, length: int) -> None:
    """Entries of `ratio` blocks are followed by one of a bitmap, which only a differencing disk uses."""
    blocks = -(-metadata.size // metadata.block)
    ratio = (metadata.sector << 23) // metadata.block
    entries = blocks + (blocks - 1) // ratio
    if entries * 8 > length:
        raise TruncatedDisk(f"a VHDX image whose block table is too short for {blocks} blocks")
    index = 0
    for values in disk.table(offset, entries, "Q", "the block table", big_endian=False):
        for entry in values:
            state = entry & 7
            if state >= FULLY_PRESENT and (index + 1) % (ratio + 1):
                if state == PARTIALLY_PRESENT:
                    raise UnsafeDisk(PARENT)
                guest = (index - index // (ratio + 1)) * metadata.block
                place = (entry >> 20) * MIB
                if place < MIB:
                    raise FormatMismatch("a damaged VHDX image: a block's place makes no sense")
                disk.holds(place, min(metadata.block, metadata.size - guest), "a data block")
            index += 1
