"""The whole disk: its partitions and volumes, their file systems, and the system on them."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from calotype.disks.guest.reader import lvm
from calotype.disks.guest.reader.blocks import Unreadable, Volume
from calotype.disks.guest.reader.btrfs import Btrfs
from calotype.disks.guest.reader.ext import Ext
from calotype.disks.guest.reader.fat import Fat
from calotype.disks.guest.reader.ntfs import Ntfs
from calotype.disks.guest.reader.partitions import Table, table_of
from calotype.disks.guest.reader.system import System, starts_by_efi, system_on
from calotype.disks.guest.reader.tree import FileSystem
from calotype.disks.guest.reader.ufs import Ufs
from calotype.disks.guest.reader.xfs import Xfs

PARSERS: Final[tuple[Callable[[Volume], FileSystem], ...]] = (Ext, Xfs, Btrfs, Ntfs, Ufs, Fat)
MOST_VOLUMES: Final = 256


class Found(NamedTuple):
    system: System
    file_system: str
    firmware: str  # "bios", "uefi", "both", or "" where neither finds anything to start


def search(disk: Volume) -> Found | None:
    """The first system that says its name, else the first that is there. Raises `Spent`."""
    try:
        table = table_of(disk)
    except Unreadable:
        table = Table("", [], False)
    nameless: Found | None = None
    for files in _file_systems(disk, table):
        try:
            system = system_on(files)
        except Unreadable:
            continue
        if system is not None:
            found = Found(system, files.name, _firmware(table))
            if system.id:
                return found
            nameless = nameless or found
    return nameless


def _file_systems(disk: Volume, table: Table) -> Iterator[FileSystem]:
    volumes = [*(partition.volume for partition in table.partitions), disk]
    physical = []
    for volume in volumes[:MOST_VOLUMES]:
        if lvm.is_physical_volume(volume):
            physical.append(volume)
        else:
            yield from _on(volume)
    if physical:
        for logical in _logical(physical):
            yield from _on(logical)


def _logical(physical: list[Volume]) -> list[Volume]:
    try:
        return list(lvm.logical_volumes(physical))[:MOST_VOLUMES]
    except Unreadable:
        return []


def _on(volume: Volume) -> Iterator[FileSystem]:
    for parser in PARSERS:
        try:
            files = parser(volume)
        except Unreadable:
            continue
        yield files
        if isinstance(files, Btrfs):
            yield from _subvolumes(files)
        return


def _subvolumes(files: Btrfs) -> Iterator[FileSystem]:
    try:
        yield from files.subvolumes()
    except Unreadable:
        return


def _firmware(table: Table) -> str:
    """What can start the disk. A BIOS runs the code at its start; on a GPT, this wants a place to go on from."""
    bios = table.boot_code and (table.kind != "gpt" or any(partition.is_bios for partition in table.partitions))
    uefi = any(_starts(partition.volume) for partition in table.partitions if partition.is_efi)
    return "both" if bios and uefi else "bios" if bios else "uefi" if uefi else ""


def _starts(volume: Volume) -> bool:
    try:
        return starts_by_efi(Fat(volume))
    except Unreadable:
        return False
