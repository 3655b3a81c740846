"""What a disk can be written as, and by which names an export asks for it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from calotype.disks.model import DiskFormat

MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4
# Of the disk, not of the file. Source: QEMU 7.2, block/vpc.c VHD_MAX_SECTORS, vdi.c VDI_DISK_SIZE_MAX, vhdx.h
# VHDX_MAX_IMAGE_SIZE, qcow2.h QCOW_MAX_L1_SIZE with clusters of 64 KiB; each was asked of `qemu-img create`.
LARGEST_VHD: Final = 2040 * GIB
LARGEST_VDI: Final = 0x1FFFFF80 * MIB  # blocks; 128 MiB less than 512 TiB
LARGEST_VHDX: Final = 64 * TIB
LARGEST_QCOW2: Final = 2048 * TIB
# A table names a place in the file by a sector of 32 bits (VMware, "Virtual Disk Format 5.0"): of a larger disk QEMU
# writes the head, and fails when the data reach there.
LARGEST_VMDK: Final = 2 * TIB


class TargetKind(StrEnum):
    """What a disk can be written as."""

    QCOW2 = "qcow2"
    QCOW2_ZSTD = "qcow2_zstd"  # compressed
    QCOW2_ZLIB = "qcow2_zlib"  # compressed, for readers that are old
    RAW = "raw"  # sparse
    VMDK_STREAM = "vmdk_stream"  # streamOptimized: compressed, for OVF and vSphere
    VMDK_SPARSE = "vmdk_sparse"  # monolithicSparse: what Workstation runs
    VHD = "vhd"  # dynamic, of exactly the disk's size
    VHD_FIXED = "vhd_fixed"  # the disk's bytes and a footer, of exactly the disk's size
    VHDX = "vhdx"
    VDI = "vdi"


class Target(Struct, frozen=True, kw_only=True):
    format: DiskFormat
    options: tuple[str, ...] = ()  # of the format, as qemu-img names them
    most_bytes: int | None = None  # that its disk can have


TARGETS: Final[Mapping[TargetKind, Target]] = {
    TargetKind.QCOW2: Target(format=DiskFormat.QCOW2, options=("compat=1.1",), most_bytes=LARGEST_QCOW2),
    TargetKind.QCOW2_ZSTD: Target(
        format=DiskFormat.QCOW2, options=("compat=1.1", "compression_type=zstd"), most_bytes=LARGEST_QCOW2
    ),
    TargetKind.QCOW2_ZLIB: Target(
        format=DiskFormat.QCOW2, options=("compat=1.1", "compression_type=zlib"), most_bytes=LARGEST_QCOW2
    ),
    TargetKind.RAW: Target(format=DiskFormat.RAW),
    TargetKind.VMDK_STREAM: Target(
        format=DiskFormat.VMDK, options=("subformat=streamOptimized",), most_bytes=LARGEST_VMDK
    ),
    TargetKind.VMDK_SPARSE: Target(
        format=DiskFormat.VMDK, options=("subformat=monolithicSparse",), most_bytes=LARGEST_VMDK
    ),
    TargetKind.VHD: Target(
        format=DiskFormat.VHD, options=("subformat=dynamic", "force_size=on"), most_bytes=LARGEST_VHD
    ),
    TargetKind.VHD_FIXED: Target(
        format=DiskFormat.VHD, options=("subformat=fixed", "force_size=on"), most_bytes=LARGEST_VHD
    ),
    TargetKind.VHDX: Target(format=DiskFormat.VHDX, options=("subformat=dynamic",), most_bytes=LARGEST_VHDX),
    TargetKind.VDI: Target(format=DiskFormat.VDI, most_bytes=LARGEST_VDI),
}


class FileFormat(Struct, frozen=True, kw_only=True):
    """What an export is asked for by one name."""

    kind: TargetKind
    summary: str
    as_stored: bool = False  # an image that is stored in the format is exported byte for byte

    @property
    def format(self) -> DiskFormat:
        return TARGETS[self.kind].format


# `file_format` of an export. The names with a hyphen, and the last ones, are ours; IMS has the first three, and `zvhd`.
FILE_FORMATS: Final[Mapping[str, FileFormat]] = {
    "qcow2": FileFormat(
        kind=TargetKind.QCOW2_ZSTD, summary="as it is stored if that is qcow2, else as `qcow2-zstd`", as_stored=True
    ),
    "vhd": FileFormat(kind=TargetKind.VHD, summary="VHD, dynamic, of exactly the disk's size"),
    "vmdk": FileFormat(kind=TargetKind.VMDK_STREAM, summary="VMDK, streamOptimized: compressed, for OVF and vSphere"),
    "qcow2-plain": FileFormat(kind=TargetKind.QCOW2, summary="qcow2, not compressed"),
    "qcow2-zlib": FileFormat(
        kind=TargetKind.QCOW2_ZLIB, summary="qcow2, clusters compressed with zlib, for readers before QEMU 5.1"
    ),
    "qcow2-zstd": FileFormat(kind=TargetKind.QCOW2_ZSTD, summary="qcow2, clusters compressed with Zstandard"),
    "vmdk-sparse": FileFormat(kind=TargetKind.VMDK_SPARSE, summary="VMDK, monolithicSparse, not compressed"),
    "vhd-fixed": FileFormat(kind=TargetKind.VHD_FIXED, summary="VHD, fixed, of exactly the disk's size"),
    "vhdx": FileFormat(kind=TargetKind.VHDX, summary="VHDX, dynamic"),
    "vdi": FileFormat(kind=TargetKind.VDI, summary="VDI, dynamic"),
    "raw": FileFormat(kind=TargetKind.RAW, summary="the disk's bytes; zeros take no room"),
}


def too_large(kind: TargetKind, virtual_size: int) -> str | None:
    """Why a disk of so many bytes cannot be written as `kind`; None if it can."""
    target = TARGETS[kind]
    if target.most_bytes is None or virtual_size <= target.most_bytes:
        return None
    name = target.format.upper()
    return f"{name} holds a disk of at most {target.most_bytes} bytes; this one has {virtual_size}"
