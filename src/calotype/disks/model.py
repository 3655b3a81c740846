"""The formats of disk images, and what an inspection finds."""

from enum import StrEnum

from msgspec import Struct


class DiskFormat(StrEnum):
    """Names as the Image API has them; `vhd` is what qemu calls vpc. It has none for the last two."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    ISO = "iso"
    QED = "qed"
    QCOW = "qcow"  # version 1


class OpaqueKind(StrEnum):
    """Formats that have no public description: files of them are kept as they came, and never read."""

    ZVHD = "zvhd"
    ZVHD2 = "zvhd2"


class Window(Struct, frozen=True, kw_only=True):
    """Where in a file an image lies that is only a part of it."""

    offset: int  # bytes; a multiple of 512
    length: int  # bytes


class Inspection(Struct, frozen=True, kw_only=True):
    """What the gate found in a file that it let pass."""

    format: DiskFormat
    virtual_size: int  # bytes that a guest sees
    file_size: int  # bytes
    self_contained: bool = True
    snapshots: int = 0  # internal ones, with states of the disk that a guest does not see
    detail: str = ""  # of the format: "streamOptimized", "fixed", "v3 zlib" …


class Opaque(Struct, frozen=True, kw_only=True):
    """A file that was let pass without being looked into: it is of no format that can be read."""

    format: OpaqueKind  # as it is declared
    file_size: int  # bytes

    @property
    def virtual_size(self) -> None:
        """Nobody can tell."""
