"""Partitions of a disk: GPT and MBR. Sources: UEFI specification, chapter 5; the MBR as every BIOS has read it."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from calotype.disks.guest.reader.blocks import Part, Unreadable, Volume, number, unpack

SECTOR: Final = 512
SECTOR_SIZES: Final = (512, 4096)
MOST_GPT_ENTRIES: Final = 256
MOST_LOGICAL: Final = 60
BOOT_SIGNATURE: Final = 0xAA55
BOOT_CODE: Final = 440  # bytes at the start of a boot sector

EFI_SYSTEM: Final = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
BIOS_BOOT: Final = bytes.fromhex("4861682149646f6e744e656564454649")
LEGACY_BOOTABLE: Final = 4  # bit of a GPT entry's attributes
MBR_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
MBR_EFI_SYSTEM, MBR_PROTECTIVE = 0xEF, 0xEE


class Partition(NamedTuple):
    volume: Volume
    is_efi: bool  # where UEFI looks for what to start
    is_bios: bool  # marked as what a BIOS starts from


class Table(NamedTuple):
    kind: str  # "gpt", "mbr", or "" for a disk without partitions
    partitions: list[Partition]
    boot_code: bool  # whether a BIOS finds something to run


def table_of(disk: Volume) -> Table:
    """The partitions that lie within the disk, in the order of the table."""
    if disk.size < 2 * SECTOR:
        return Table("", [], False)
    boot_sector = disk.read(0, SECTOR)
    marked = number("<H", boot_sector, 510) == BOOT_SIGNATURE
    boot_code = marked and any(boot_sector[:BOOT_CODE])
    for sector in SECTOR_SIZES:
        if disk.size >= 3 * sector and disk.read(sector, 8) == b"EFI PART":
            return Table("gpt", list(_gpt(disk, sector)), boot_code)
    partitions = list(_mbr(disk, boot_sector)) if marked else []
    return Table("mbr" if partitions else "", partitions, boot_code)


def _gpt(disk: Volume, sector: int) -> Iterator[Partition]:
    first, count, size = unpack("<QII", disk.read(sector, sector), 72)
    if not 128 <= size <= 4096 or size % 8:
        raise Unreadable("a partition table of odd entries")
    for index in range(min(count, MOST_GPT_ENTRIES)):
        entry = disk.read(first * sector + index * size, 128)
        kind, _, start, last, attributes = unpack("<16s16sQQQ", entry)
        if any(kind) and 0 < start <= last and start * sector < disk.size:
            volume = Part(disk, start * sector, (last - start + 1) * sector)
            bios = kind == BIOS_BOOT or bool(attributes & LEGACY_BOOTABLE)
            yield Partition(volume, kind == EFI_SYSTEM, bios)


def _mbr(disk: Volume, boot_sector: bytes) -> Iterator[Partition]:
    for active, kind, start, count in _entries(boot_sector):
        if kind in MBR_EXTENDED:
            yield from _logical(disk, start)
        elif kind != MBR_PROTECTIVE and start * SECTOR < disk.size:
            yield Partition(Part(disk, start * SECTOR, count * SECTOR), kind == MBR_EFI_SYSTEM, active)


def _logical(disk: Volume, extended: int) -> Iterator[Partition]:
    """A chain of sectors, each with one partition and the place of the next sector."""
    at = extended
    for _ in range(MOST_LOGICAL):
        if (at + 1) * SECTOR > disk.size:
            return
        boot_sector = disk.read(at * SECTOR, SECTOR)
        if number("<H", boot_sector, 510) != BOOT_SIGNATURE:
            return
        following = None
        for active, kind, start, count in _entries(boot_sector):
            if kind in MBR_EXTENDED:
                following = extended + start
            elif (at + start) * SECTOR < disk.size:
                volume = Part(disk, (at + start) * SECTOR, count * SECTOR)
                yield Partition(volume, kind == MBR_EFI_SYSTEM, active)
        if following is None:
            return
        at = following


def _entries(boot_sector: bytes) -> Iterator[tuple[bool, int, int, int]]:
    """Whether it is active, its type, its first sector and how many it has."""
    for index in range(4):
        status, kind, start, count = unpack("<BxxxBxxxII", boot_sector, 446 + 16 * index)
        if status in (0, 0x80) and kind and start and count:
            yield status == 0x80, kind, start, count
