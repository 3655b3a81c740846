"""ISO 9660 and UDF: what a CD or DVD holds. Source: ECMA-119, ECMA-167."""

import struct
from typing import Final

from calotype.disks.formats.reader import SECTOR, DiskFile, Facts, rounded_up
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk

DESCRIPTORS: Final = 32 * 1024  # where the volume descriptors begin
DESCRIPTOR: Final = 2048
MOST_DESCRIPTORS: Final = 64
ISO_9660: Final = b"CD001"
IDENTIFIERS: Final = (ISO_9660, b"BEA01", b"NSR02", b"NSR03")
PRIMARY, LAST = 1, 255


def looks_like_iso(disk: DiskFile) -> bool:
    return disk.some(DESCRIPTORS + 1, 5) in IDENTIFIERS


def parse(disk: DiskFile) -> Facts:
    """The guest sees the file as it is. Raises `TruncatedDisk` if it is shorter than its volume says."""
    size = disk.virtual(rounded_up(disk.size, SECTOR))
    if not looks_like_iso(disk):
        raise FormatMismatch("not an ISO image: no volume descriptor")
    for number in range(MOST_DESCRIPTORS):
        data = disk.some(DESCRIPTORS + number * DESCRIPTOR, DESCRIPTOR)
        if len(data) < DESCRIPTOR:
            raise TruncatedDisk("the file ends within the volume descriptors of the ISO image")
        if data[1:6] != ISO_9660 or data[0] == LAST:
            break
        if data[0] == PRIMARY:
            (blocks,) = struct.unpack_from("<I", data, 80)
            (block,) = struct.unpack_from("<H", data, 128)
            disk.holds(0, blocks * block, "the volume of the ISO image")
            return Facts(format=DiskFormat.ISO, virtual_size=size, detail="ISO 9660")
    return Facts(format=DiskFormat.ISO, virtual_size=size, detail="UDF")
