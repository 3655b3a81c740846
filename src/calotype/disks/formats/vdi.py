"""VDI of VirtualBox, version 1.1. Integers are little-endian. Source: QEMU, block/vdi.c."""

import struct
from typing import Final

from calotype.disks.formats.reader import SECTOR, DiskFile, Facts, rounded_up
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, UnsafeDisk

SIGNATURE: Final = b"\x7f\x10\xda\xbe"
SIGNATURE_OFFSET: Final = 0x40
VERSION: Final = 0x00010001
BLOCK: Final = 1024 * 1024  # the only block size that is in use, and all that QEMU reads
UNALLOCATED: Final = 0xFFFFFFFE  # this, and the value above it: a block that reads as zeros
KINDS: Final = {1: "dynamic", 2: "static"}
MOST_BLOCKS: Final = 0x20000000


def parse(disk: DiskFile) -> Facts:
    head = disk.exactly(0, SECTOR, "the VDI header")
    if head[SIGNATURE_OFFSET : SIGNATURE_OFFSET + 4] != SIGNATURE:
        raise FormatMismatch("not a VDI image")
    version, _header_size, kind = struct.unpack_from("<III", head, 0x44)
    map_offset, data_offset = struct.unpack_from("<II", head, 0x154)
    sector, _unused, size, block, extra, blocks, allocated = struct.unpack_from("<IIQIIII", head, 0x168)
    link, parent = head[0x1A8:0x1B8], head[0x1B8:0x1C8]
    if version != VERSION:
        raise FormatMismatch(f"a VDI image of version {version >> 16}.{version & 0xFFFF}; only 1.1 is taken")
    if kind not in KINDS or any(link) or any(parent):
        raise UnsafeDisk("a VDI image that is a difference to another one; clone it first: VBoxManage clonemedium")
    size = rounded_up(size, SECTOR)
    disk.virtual(size)
    if sector != SECTOR or block != BLOCK or extra or map_offset % SECTOR or data_offset % SECTOR or not map_offset:
        raise FormatMismatch("not a usable VDI image: its block size or its tables' places make no sense")
    if blocks > MOST_BLOCKS or blocks * block < size or allocated > blocks:
        raise FormatMismatch(f"not a usable VDI image: {blocks} blocks do not fit a size of {size} bytes")
    guest = 0
    for values in disk.table(map_offset, blocks, "I", "the block map", big_endian=False):
        for number in values:
            if number < UNALLOCATED:
                if number >= allocated:
                    raise FormatMismatch("a damaged VDI image: its map names more blocks than it has")
                # The last block of the disk needs no more bytes than the disk has.
                disk.holds(data_offset + number * block, max(0, min(block, size - guest)), "a data block")
            guest += block
    return Facts(format=DiskFormat.VDI, virtual_size=size, detail=KINDS[kind])
