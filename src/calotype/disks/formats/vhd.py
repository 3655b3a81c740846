"""VHD, which QEMU calls vpc. Integers are big-endian.

Source: Microsoft, "Virtual Hard Disk Image Format Specification"; for the size rule QEMU, block/vpc.c.
"""

import struct
from typing import Final

from msgspec import Struct

from calotype.disks.formats.reader import SECTOR, DiskFile, Facts, is_power_of_two, rounded_up
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk, UnsafeDisk

COOKIE: Final = b"conectix"
DYNAMIC_COOKIE: Final = b"cxsparse"
FOOTER: Final = 512
DYNAMIC_HEADER: Final = 1024
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
UNALLOCATED: Final = 0xFFFFFFFF
MOST_BLOCKS: Final = 4 * 1024 * 1024  # 2 TiB in the smallest blocks in use, 512 KiB
MOST_BLOCK: Final = 256 * 1024 * 1024
SECTORS_OF_LARGEST_GEOMETRY: Final = 65535 * 16 * 255
# Only these go by the geometry (cylinders, heads, sectors); for everyone else the current size is the size.
GEOMETRY_CREATORS: Final = (b"vpc ", b"qemu")


class Footer(Struct, frozen=True, kw_only=True):
    kind: int
    data_offset: int
    current_size: int
    geometry_size: int  # bytes
    creator: bytes
    identity: bytes  # all that two copies must agree on

    @property
    def by_geometry(self) -> bool:
        """Whether the guest sees the size of the geometry, which may be smaller than the current size."""
        largest = self.geometry_size == SECTORS_OF_LARGEST_GEOMETRY * SECTOR
        return self.creator in GEOMETRY_CREATORS and not largest

    @property
    def virtual_size(self) -> int:
        return self.geometry_size if self.by_geometry else self.current_size // SECTOR * SECTOR


def parse(disk: DiskFile) -> Facts:
    if disk.some(0, 8) == COOKIE:
        return _dynamic(disk, read_footer(disk.exactly(0, FOOTER, "the VHD header")))
    return _fixed(disk, read_footer(disk.some(max(0, disk.size - FOOTER), FOOTER)))


def footer_of(disk: DiskFile) -> Footer:
    """The footer that says what the guest sees: the copy at the start of a dynamic disk, the end of a fixed one."""
    at_start = disk.some(0, 8) == COOKIE
    return read_footer(disk.some(0 if at_start else max(0, disk.size - FOOTER), FOOTER))


def read_footer(data: bytes) -> Footer:
    if len(data) < FOOTER:
        raise TruncatedDisk("the file ends within the VHD footer")
    if data[:8] != COOKIE:
        raise FormatMismatch("not a VHD image: it has no footer")
    (checksum,) = struct.unpack_from(">I", data, 64)
    if checksum != _checksum(data, 64):
        raise FormatMismatch("a damaged VHD image: the checksum of its footer is wrong")
    version, data_offset = struct.unpack_from(">IQ", data, 12)
    (current_size, cylinders, heads, sectors, kind) = struct.unpack_from(">QHBBI", data, 48)
    if version >> 16 != 1:
        raise FormatMismatch(f"a VHD image of version {version >> 16}; only 1 is taken")
    if kind == DIFFERENCING:
        raise UnsafeDisk("a differencing VHD image, which needs its parent; merge it first")
    if kind not in (FIXED, DYNAMIC):
        raise FormatMismatch(f"not a usable VHD image: disk type {kind}")
    return Footer(
        kind=kind,
        data_offset=data_offset,
        current_size=current_size,
        geometry_size=cylinders * heads * sectors * SECTOR,
        creator=data[28:32],
        identity=data[:84],
    )


def _checksum(data: bytes, at: int) -> int:
    """One's complement of the sum of all bytes but the checksum's own four at offset `at`."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def _fixed(disk: DiskFile, footer: Footer) -> Facts:
    if footer.kind != FIXED:
        raise FormatMismatch("a damaged VHD image: a dynamic disk without its header")
    size = disk.virtual(footer.virtual_size)
    if size > disk.size - FOOTER:
        raise TruncatedDisk(
            f"the file is cut short: a fixed VHD disk of {size} bytes is in a file of {disk.size} bytes"
        )
    return Facts(format=DiskFormat.VHD, virtual_size=size, detail="fixed")


def _dynamic(disk: DiskFile, footer: Footer) -> Facts:
    if footer.kind != DYNAMIC:
        raise FormatMismatch("a damaged VHD image: a fixed disk with a header")
    end = disk.size - FOOTER
    if end < FOOTER or disk.some(end, 8) != COOKIE:
        raise TruncatedDisk("the file is cut short: a dynamic VHD image without its footer")
    if read_footer(disk.exactly(end, FOOTER, "the VHD footer")).identity != footer.identity:
        raise FormatMismatch("a damaged VHD image: its header and its footer are not the same")
    size = disk.virtual(footer.virtual_size)
    head = disk.exactly(footer.data_offset, DYNAMIC_HEADER, "the dynamic disk header")
    if head[:8] != DYNAMIC_COOKIE:
        raise FormatMismatch("a damaged VHD image: no dynamic disk header where one should be")
    table_offset, _version, entries, block, checksum = struct.unpack_from(">QIIII", head, 16)
    if checksum != _checksum(head, 36):
        raise FormatMismatch("a damaged VHD image: the checksum of its header is wrong")
    if any(head[40:56]) or any(head[64 : 64 + 512]) or any(head[576 : 576 + 8 * 24]):
        raise UnsafeDisk("a VHD image that names a parent; merge it first")
    if not is_power_of_two(block) or not SECTOR <= block <= MOST_BLOCK:
        raise FormatMismatch(f"not a usable VHD image: blocks of {block} bytes")
    if entries > MOST_BLOCKS or entries * block < size:
        raise FormatMismatch(f"not a usable VHD image: {entries} blocks do not fit a size of {size} bytes")
    bitmap = rounded_up(-(-block // SECTOR // 8), SECTOR)
    guest = 0
    for values in disk.table(table_offset, entries, "I", "the block table", big_endian=True):
        for sector in values:
            if sector != UNALLOCATED:
                # The last block of the disk needs no more bytes than the disk has; the footer is no block's.
                needed = bitmap + max(0, min(block, size - guest))
                disk.holds(sector * SECTOR, needed + FOOTER, "a data block and the footer")
            guest += block
    return Facts(format=DiskFormat.VHD, virtual_size=size, detail="dynamic")
