"""Partition tables, which tell whether a raw disk is whole. Source: UEFI specification, chapter 5."""

import struct
import zlib
from typing import Final

from calotype.disks.formats.reader import DiskFile

BOOT_SIGNATURE: Final = b"\x55\xaa"  # at 510, of a master boot record, and of any other boot sector
GPT_SIGNATURE: Final = b"EFI PART"
XFS_SIGNATURE: Final = b"XFSB"  # a disk without a partition table may begin with it
SECTOR_SIZES: Final = (512, 4096)


def has_boot_sector(disk: DiskFile) -> bool:
    return disk.some(510, 2) == BOOT_SIGNATURE


def gpt_sector(disk: DiskFile) -> int | None:
    """The sector size of the disk's GUID partition table; None if it has none."""
    for sector in SECTOR_SIZES:
        if disk.some(sector, 8) == GPT_SIGNATURE:
            return sector
    return None


def table_of(disk: DiskFile) -> str:
    """What kind of partition table is there: "gpt", "mbr" or "". Raises `TruncatedDisk` for a GPT without its end."""
    sector = gpt_sector(disk)
    if sector is None:
        return "mbr" if has_boot_sector(disk) else ""
    header = disk.some(sector, 92)
    if len(header) == 92:
        length, checksum = struct.unpack_from("<II", header, 12)
        backup = struct.unpack_from("<Q", header, 32)[0]
        whole = disk.some(sector, length) if 92 <= length <= sector else b""
        if whole and zlib.crc32(whole[:16] + bytes(4) + whole[20:]) == checksum:
            disk.holds(backup * sector, sector, "the backup partition table at the end of the disk")
    return "gpt"
