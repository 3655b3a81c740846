"""The gate: nothing reaches qemu-img, and nothing becomes an image, that has not passed here.

It decides on content. Two independent readers must agree: the parsers of `calotype.disks.formats`, which read the whole
of the tables, and `format_inspector` of oslo.utils, which OpenStack trusts. QED and the first version of qcow it calls
unsafe whatever is in them: there the two agree on the format, and our own parser alone says that an image is safe. A
file that would be taken for two formats is refused, except an ISO image that can also be booted as a disk.

Time and memory do not depend on what a file says: tables are read in slices of 64 KiB, at most 512 MiB of them.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import IO, BinaryIO, Final, cast

from oslo_utils.imageutils import format_inspector

from calotype.disks.formats import iso, partitions, qcow1, qcow2, qed, vdi, vhd, vhdx, vmdk
from calotype.disks.formats.reader import SECTOR, DiskFile, Facts, rounded_up
from calotype.disks.formats.signatures import AS_QCOW2, UNPACK, Marks, marks_of
from calotype.disks.model import DiskFormat, Inspection, Opaque, OpaqueKind, Window
from calotype.errors import EmptyDisk, FormatMismatch, TruncatedDisk, UnsafeDisk

PARSERS: Final[Mapping[DiskFormat, Callable[[DiskFile], Facts]]] = {
    DiskFormat.QCOW2: qcow2.parse,
    DiskFormat.VMDK: vmdk.parse,
    DiskFormat.VHD: vhd.parse,
    DiskFormat.VHDX: vhdx.parse,
    DiskFormat.VDI: vdi.parse,
    DiskFormat.ISO: iso.parse,
    DiskFormat.QED: qed.parse,
    DiskFormat.QCOW: qcow1.parse,
}
# What a `disk_format` of the Image API says about the bytes, and the two formats that it has no name for. Those of no
# public description (zvhd, zvhd2) say nothing: whatever is found is what it is; see `keep` for what is found to be
# nothing.
DECLARED: Final[Mapping[str, DiskFormat | None]] = {
    "raw": DiskFormat.RAW,
    "gpt": DiskFormat.RAW,  # with a partition table
    "ami": DiskFormat.RAW,
    "aki": DiskFormat.RAW,
    "ari": DiskFormat.RAW,
    "qcow2": DiskFormat.QCOW2,
    "vmdk": DiskFormat.VMDK,
    "vhd": DiskFormat.VHD,
    "vhdx": DiskFormat.VHDX,
    "vdi": DiskFormat.VDI,
    "iso": DiskFormat.ISO,
    "qed": DiskFormat.QED,
    "qcow": DiskFormat.QCOW,
    "zvhd": None,
    "zvhd2": None,
}
NEVER_TAKEN: Final = frozenset({"ploop"})
# Only sources: what they become is stored. Hypervisors have given them up, and the Image API has no names for them.
NEVER_KEPT: Final = frozenset({DiskFormat.QED, DiskFormat.QCOW})
OPAQUE: Final = frozenset(OpaqueKind)
ZSTD: Final = "zstd-compressed data"  # what a ZVHD2 may be; no other packing is

# How much of a file oslo.utils is shown: up to the end of a VHDX's first tables, or of a VMDK's descriptor.
SHOWN: Final = 320 * 1024
SHOWN_OF_VMDK: Final = 1024 * 1024 + 64 * 1024
SHOWN_AT_END: Final = 3 * SECTOR
CHUNK: Final = 64 * 1024
SEEN: Final = frozenset({DiskFormat.QCOW2, DiskFormat.VMDK, *NEVER_KEPT})  # formats that oslo.utils must find as well


def inspect(
    file: BinaryIO | int, *, declared: str | None, most_virtual_bytes: int, window: Window | None = None
) -> Inspection:
    """What the whole of an open file is, or what lies in the `window` of it, if it may pass. For a thread: it reads,
    and takes milliseconds.

    `file` is a descriptor or a seekable binary file. `declared` is a `disk_format` of the Image API; None: whatever is
    found is right, but compressed files and archives are not. `raw`, `ami`, `aki` and `ari` are whatever is no other
    format. Raises a leaf of `DiskRefused`; its text says what was wrong with the content.
    """
    read_at, size = _reader(file)
    return inspect_at(read_at, size, declared=declared, most_virtual_bytes=most_virtual_bytes, window=window)


def keep(
    file: BinaryIO | int, *, declared: str | None, most_virtual_bytes: int, converted: bool = False
) -> Inspection | Opaque:
    """`inspect`, for bytes that are to be stored: what is declared as ZVHD or ZVHD2 and is of no other format passes
    unseen, unless it is an archive or packed otherwise than with zstd. What is `NEVER_KEPT` passes only if it is
    `converted` to what is stored."""
    read_at, size = _reader(file)
    return keep_at(read_at, size, declared=declared, most_virtual_bytes=most_virtual_bytes, converted=converted)


def keep_at(
    read_at: Callable[[int, int], bytes],
    size: int,
    *,
    declared: str | None,
    most_virtual_bytes: int,
    converted: bool = False,
) -> Inspection | Opaque:
    """`keep` for anything that can be read at an offset."""
    disk = DiskFile(read_at, size, most_virtual_bytes=most_virtual_bytes)
    if declared in OPAQUE and size > 0 and _is_unknown(disk, marks_of(disk)):
        _check_second_opinion(disk, Facts(format=DiskFormat.RAW, virtual_size=0))
        return Opaque(format=OpaqueKind(declared), file_size=size)
    found = inspect_at(read_at, size, declared=declared, most_virtual_bytes=most_virtual_bytes)
    if found.format in NEVER_KEPT and not converted:
        raise FormatMismatch(f"the content is of the format {found.format}, which is not kept as it is; {AS_QCOW2}")
    return found


def _is_unknown(disk: DiskFile, marks: Marks) -> bool:
    """Whether nothing tells what a file is: neither a mark, nor what a raw disk begins with. Raises `FormatMismatch`
    for an archive."""
    if marks.names:
        return False
    if marks.packed:
        if marks.packed != ZSTD:
            raise FormatMismatch(f"the content is {marks.packed}, not a disk image; {UNPACK}")
        return True
    head = disk.some(0, SECTOR)
    return not (marks.boot_sector or head.startswith(partitions.XFS_SIGNATURE)) and any(head)


def inspect_at(
    read_at: Callable[[int, int], bytes],
    size: int,
    *,
    declared: str | None,
    most_virtual_bytes: int,
    window: Window | None = None,
) -> Inspection:
    """`inspect` for anything that can be read at an offset: `read_at(offset, n)` returns `n` bytes within `size`."""
    if window is not None:
        return inspect_at(*_through(window, read_at, size), declared=declared, most_virtual_bytes=most_virtual_bytes)
    disk = DiskFile(read_at, size, most_virtual_bytes=most_virtual_bytes)
    if size == 0:
        raise EmptyDisk("the file is empty")
    marks = marks_of(disk)
    found = _only_format(marks)
    _check_declared(declared, found, marks)
    facts = _raw(disk) if found is DiskFormat.RAW else PARSERS[found](disk)
    _check_second_opinion(disk, facts)
    return Inspection(
        format=facts.format,
        virtual_size=facts.virtual_size,
        file_size=size,
        detail=facts.detail,
        snapshots=facts.snapshots,
    )


def _through(
    window: Window, read_at: Callable[[int, int], bytes], size: int
) -> tuple[Callable[[int, int], bytes], int]:
    """The reader and the size of what lies in a window."""
    if window.offset + window.length > size:
        raise TruncatedDisk(f"the file has {size} bytes; the image in it would end at {window.offset + window.length}")
    return lambda offset, length: read_at(window.offset + offset, length), window.length


def _reader(file: BinaryIO | int) -> tuple[Callable[[int, int], bytes], int]:
    """Reading at an offset, and the size."""
    if isinstance(file, int):
        return _descriptor_reader(file)
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return _seeking(file), file.seek(0, io.SEEK_END)
    return _descriptor_reader(descriptor)


def _descriptor_reader(descriptor: int) -> tuple[Callable[[int, int], bytes], int]:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise UnsafeDisk("not a regular file")

    def read_at(offset: int, length: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(descriptor, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    return read_at, state.st_size


def _seeking(file: BinaryIO) -> Callable[[int, int], bytes]:
    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return read_at


def _only_format(marks: Marks) -> DiskFormat:
    names = marks.names
    if len(names) > 1:
        raise FormatMismatch(f"the file would be taken for several formats at once: {', '.join(names)}")
    if marks.encrypted:
        raise UnsafeDisk("a LUKS container: the disk is encrypted; decrypt it first")
    for name in marks.foreign:
        raise FormatMismatch(f"the content is an image of the format {name}, which is not taken; {AS_QCOW2}")
    found = next(iter(marks.formats), DiskFormat.RAW)
    if marks.boot_sector and not marks.may_have_boot_sector:
        raise FormatMismatch(f"the file would be taken for several formats at once: {found}, a partitioned raw disk")
    return found


def _check_declared(declared: str | None, found: DiskFormat, marks: Marks) -> None:
    content = f"of the format {found}" if found is not DiskFormat.RAW else marks.packed or "of no known disk format"
    if declared is None:
        if found is DiskFormat.RAW and marks.packed:
            raise FormatMismatch(f"the content is {marks.packed}, not a disk image; {UNPACK}")
        return
    if declared in NEVER_TAKEN:
        raise FormatMismatch(f"images of the format {declared} are not taken; {AS_QCOW2}")
    if declared not in DECLARED:
        raise FormatMismatch("the declared disk_format is not a known one")
    wanted = DECLARED[declared]
    if wanted is not None and wanted is not found:
        raise FormatMismatch(f"the image is declared as {declared}, but the content is {content}")
    if declared == "gpt" and not marks.boot_sector:
        raise FormatMismatch("the image is declared as gpt, but the content has no partition table")


def _raw(disk: DiskFile) -> Facts:
    """What a guest sees of a raw file ends at a whole sector."""
    size = disk.virtual(rounded_up(disk.size, SECTOR))
    return Facts(format=DiskFormat.RAW, virtual_size=size, detail=partitions.table_of(disk))


def _check_second_opinion(disk: DiskFile, facts: Facts) -> None:
    """Raise if oslo.utils sees another format than we do, or something unsafe where it can see at all.

    It must see the mark of a QED, and that of a qcow, whose versions it calls by one name. What it says of their safety
    is not asked for: its answer is no, always. They are safe by what our own parsers have read, every field of the
    header and every table, and nothing keeps them (`NEVER_KEPT`).
    """
    shown = _shown(disk, SHOWN_OF_VMDK if facts.format is DiskFormat.VMDK else SHOWN)
    wrapper = format_inspector.InspectWrapper(cast("IO[bytes]", shown))  # it takes any iterator of chunks
    try:
        for _ in wrapper:
            pass
        wrapper.close()
        inspectors = {str(inspector): inspector for inspector in wrapper.formats or ()}
    except Exception as error:
        # It stumbles over text that goes on with other bytes (AttributeError), which is a raw disk like any other.
        if facts.format is DiskFormat.RAW:
            return
        raise UnsafeDisk(f"a damaged {facts.format} image: its header makes no sense") from error
    name = DiskFormat.QCOW2.value if facts.format is DiskFormat.QCOW else facts.format.value
    other = inspectors.keys() - {name, "raw", "gpt"}
    if other:
        raise FormatMismatch(f"the content is also of the format {', '.join(sorted(other))}, beside {facts.format}")
    inspector = inspectors.get(name)
    if inspector is None and facts.format in SEEN:
        raise FormatMismatch(f"a damaged {facts.format} image: its header makes no sense")
    if inspector is not None and facts.format in SEEN - NEVER_KEPT:
        try:
            inspector.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            failures = sorted(error.failures.keys() - _misread(disk, facts))
            if failures:
                raise UnsafeDisk(f"a {facts.format} image that is not safe ({', '.join(failures)})") from error
        except format_inspector.ImageFormatError as error:
            raise UnsafeDisk(f"a {facts.format} image that is not safe: its header is not complete") from error


def _misread(disk: DiskFile, facts: Facts) -> frozenset[str]:
    """Of what oslo.utils may find wrong with an image, what it cannot tell. It does not know subclusters; and in a
    qcow2 of version 2 it takes the first header extension for the feature bits, which only version 3 has. Our own
    parser has looked at every feature bit, and at every extension of both versions."""
    old = facts.format is DiskFormat.QCOW2 and disk.some(4, 4) == qcow2.VERSION_2
    return frozenset({"unknown_features", "data_file"} if old else {"unknown_features"})


def _shown(disk: DiskFile, most: int) -> Iterator[bytes]:
    """The start of the file in chunks, then its last sectors."""
    offset = 0
    while offset < min(most, disk.size):
        chunk = disk.some(offset, CHUNK)
        yield chunk
        offset += len(chunk)
    if offset < disk.size:
        start = max(offset, disk.size - SHOWN_AT_END)
        yield disk.some(start, disk.size - start)
