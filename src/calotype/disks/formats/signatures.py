"""Which formats a file would be taken for, by every mark that some reader goes by, wherever in the file it is."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from calotype.disks.formats import iso, partitions, qcow1, qcow2, qed, vdi, vhd, vhdx, vmdk, vmdk_descriptor
from calotype.disks.formats.reader import DiskFile
from calotype.disks.model import DiskFormat

HEAD: Final = 64 * 1024
AS_QCOW2: Final = "convert it first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
UNPACK: Final = "unpack it first"

# Disk formats that are recognised in order to be refused: (offset, mark) -> name. A negative offset is from the end.
FOREIGN: Final[Mapping[tuple[int, bytes], str]] = {
    (0, b"COWD"): "VMDK of the ESX sparse kind",
    (0, b"\xbe\xba\xfe\xca\x00\x00\x00\x00"): "VMDK of the ESX space-efficient kind",
    (0, b"OOOM"): "UML COW",
    (0, b"WithoutFreeSpace"): "Parallels",
    (0, b"WithouFreSpacExt"): "Parallels",
    (0, b"Bochs Virtual HD Image"): "Bochs",
    (0, b"#!/bin/sh\n#V2.0 Format\n"): "cloop",
    (0, b"EVF\x09\x0d\x0a\xff\x00"): "EWF",
    (-512, b"koly"): "Apple DMG",
}
LUKS: Final = b"LUKS\xba\xbe"
# Not of disks: told by name where a disk is wanted, and bytes like any other in what is declared raw.
PACKED: Final[Mapping[tuple[int, bytes], str]] = {
    (0, b"\x1f\x8b\x08"): "gzip-compressed data",
    (0, b"\xfd7zXZ\x00"): "xz-compressed data",
    (0, b"\x28\xb5\x2f\xfd"): "zstd-compressed data",
    (0, b"\x04\x22\x4d\x18"): "lz4-compressed data",
    (0, b"BZh"): "bzip2-compressed data",
    (0, b"PK\x03\x04"): "a zip archive",
    (0, b"7z\xbc\xaf\x27\x1c"): "a 7-Zip archive",
    (0, b"Rar!\x1a\x07"): "a RAR archive",
    (257, b"ustar"): "a tar archive (or an OVA)",
}


class Marks(Struct, frozen=True, kw_only=True):
    """`formats` holds no `raw`: a file without marks is raw."""

    formats: frozenset[DiskFormat]
    foreign: frozenset[str]  # formats that are never taken
    encrypted: bool  # a LUKS container
    boot_sector: bool
    may_have_boot_sector: bool  # as a raw disk, a fixed VHD (which begins with the guest's bytes) and an ISO image have
    packed: str  # "" or what it is packed as

    @property
    def names(self) -> list[str]:
        encrypted = ["LUKS"] if self.encrypted else []
        return sorted(self.formats) + sorted(self.foreign) + encrypted


def marks_of(disk: DiskFile) -> Marks:
    head = disk.some(0, HEAD)
    foreign = frozenset(name for (offset, mark), name in FOREIGN.items() if _has(disk, head, offset, mark))
    found = {
        DiskFormat.QCOW2: head.startswith(qcow2.MAGIC) and not head.startswith(qcow1.MAGIC),
        DiskFormat.VMDK: head.startswith(vmdk.MAGIC) or vmdk_descriptor.looks_like_descriptor(head),
        DiskFormat.VHD: head.startswith(vhd.COOKIE) or _has(disk, head, -vhd.FOOTER, vhd.COOKIE),
        DiskFormat.VHDX: head.startswith(vhdx.SIGNATURE),
        DiskFormat.VDI: _has(disk, head, vdi.SIGNATURE_OFFSET, vdi.SIGNATURE),
        DiskFormat.ISO: iso.looks_like_iso(disk),
        DiskFormat.QED: head.startswith(qed.MAGIC),
        DiskFormat.QCOW: head.startswith(qcow1.MAGIC),
    }
    formats = frozenset(format_ for format_, there in found.items() if there)
    may_have = formats <= {DiskFormat.ISO} or (formats == {DiskFormat.VHD} and not head.startswith(vhd.COOKIE))
    packed = next((name for (offset, mark), name in PACKED.items() if _has(disk, head, offset, mark)), "")
    return Marks(
        formats=formats,
        foreign=foreign,
        encrypted=head.startswith(LUKS),
        boot_sector=partitions.has_boot_sector(disk) or partitions.gpt_sector(disk) == 512,
        may_have_boot_sector=may_have,
        packed=packed,
    )


def _has(disk: DiskFile, head: bytes, offset: int, mark: bytes) -> bool:
    if offset < 0:
        return disk.size >= -offset and disk.some(disk.size + offset, len(mark)) == mark
    return head.startswith(mark, offset)
