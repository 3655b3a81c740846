"""QED. Integers are little-endian. Source: QEMU, docs/interop/qed_spec.

oslo.utils knows the mark of this format and nothing else of it, so that what is read here is all that the gate knows.
Nothing keeps an image of it (`gate.NEVER_KEPT`): one that is taken is checked by qemu-img as well, which also finds
clusters that are used twice, and becomes another format.
"""

import struct
from array import array
from typing import Final

from msgspec import Struct

from calotype.disks.formats.reader import MOST_TABLES, DiskFile, Facts, bits_of, check_places, is_power_of_two
from calotype.disks.model import DiskFormat
from calotype.errors import DiskTooLarge, FormatMismatch, UnsafeDisk

MAGIC: Final = b"QED\x00"
HEADER: Final = 64
FLATTEN: Final = "flatten it first: qemu-img convert -O qcow2 IMAGE FLAT.qcow2"

# Bits of the features that a reader must know.
BACKING_FILE, NEED_CHECK, BACKING_IS_RAW = (1 << bit for bit in range(3))
KNOWN_FEATURES: Final = BACKING_FILE | NEED_CHECK | BACKING_IS_RAW

LEAST_CLUSTER: Final = 4096
MOST_CLUSTER: Final = 64 * 1024 * 1024
TABLE_CLUSTERS: Final = (2, 4, 8, 16)  # the specification allows 1 as well, but QEMU opens no such image
# QEMU keeps up to 50 tables in memory. The specification allows tables of 1 GiB; QEMU's own have 256 KiB.
MOST_TABLE_BYTES: Final = 8 * 1024 * 1024

ZERO: Final = 1  # in an L2 table: a cluster that reads as zeros


class Header(Struct, frozen=True, kw_only=True):
    cluster: int  # bytes
    table: int  # bytes of every table, L1 and L2
    reserved: int  # bytes at the start that no table and no data lies in
    l1_offset: int
    size: int
    closed: bool  # by what wrote it

    @property
    def entries(self) -> int:
        return self.table // 8


def parse(disk: DiskFile) -> Facts:
    header = read_header(disk)
    for place in _l2_places(disk, header):
        for l2 in disk.table(place, header.entries, "Q", "an L2 table", big_endian=False):
            _check_clusters(disk, header, l2)
    detail = "closed" if header.closed else "not closed"
    return Facts(format=DiskFormat.QED, virtual_size=header.size, detail=detail)


def read_header(disk: DiskFile) -> Header:
    """The header, all of whose fields make sense. The L2 tables may still lie outside the file."""
    start = disk.exactly(0, HEADER, "the QED header")
    (
        magic, cluster, table_clusters, header_clusters, features, _compatible, _autoclear,
        l1_offset, size, _name_offset, name_size,
    ) = struct.unpack("<4sIIIQQQQQII", start)  # fmt: skip
    if magic != MAGIC:
        raise FormatMismatch("not a QED image")
    if features & (BACKING_FILE | BACKING_IS_RAW) or name_size:
        raise UnsafeDisk(f"a QED image with a backing file; {FLATTEN}")
    unknown = features & ~KNOWN_FEATURES
    if unknown:
        raise UnsafeDisk(f"a QED image with unknown features (bits {unknown:#x})")
    if not LEAST_CLUSTER <= cluster <= MOST_CLUSTER or not is_power_of_two(cluster):
        raise FormatMismatch(f"not a usable QED image: its clusters would be of {cluster} bytes")
    if table_clusters not in TABLE_CLUSTERS:
        raise FormatMismatch(f"not a usable QED image: its tables would be of {table_clusters} clusters")
    table = table_clusters * cluster
    if table > MOST_TABLE_BYTES:
        raise DiskTooLarge(
            f"the tables of the image are of {table} bytes each; at most {MOST_TABLE_BYTES} are allowed; "
            "write it with smaller clusters"
        )
    if not header_clusters:
        raise FormatMismatch("not a usable QED image: its header has no cluster")
    disk.holds(0, header_clusters * cluster, "the QED header")
    if size % 512:
        raise FormatMismatch(f"not a usable QED image: a size of {size} bytes is not a multiple of 512")
    disk.virtual(size)
    if size > (table // 8) ** 2 * cluster:
        raise FormatMismatch(f"not a usable QED image: its tables cannot hold a size of {size} bytes")
    header = Header(
        cluster=cluster, table=table, reserved=header_clusters * cluster, l1_offset=l1_offset, size=size,
        closed=not features & NEED_CHECK,
    )  # fmt: skip
    if l1_offset % cluster or l1_offset < header.reserved:
        raise FormatMismatch("not a usable QED image: its L1 table is not at a place for one")
    return header


def size_in(head: bytes) -> int | None:
    """What the start of a file says of the size of the disk in bytes, whether or not it is true."""
    return struct.unpack_from("<Q", head, 48)[0] or None if len(head) >= HEADER else None


def _l2_places(disk: DiskFile, header: Header) -> "array[int]":
    """Where the L2 tables begin: none of them in the header, in the L1 table, or in one another."""
    places = array("Q", [header.l1_offset])
    for l1 in disk.table(header.l1_offset, header.entries, "Q", "the L1 table", big_endian=False):
        places.extend(entry for entry in l1 if entry)
        if len(places) > MOST_TABLES:
            break
    if any(place % header.cluster or place < header.reserved for place in places):
        raise FormatMismatch("a damaged QED image: an L1 entry makes no sense")
    check_places(places, "a table", length=header.table)
    return places[1:]


def _check_clusters(disk: DiskFile, header: Header, l2: "array[int]") -> None:
    """QEMU reads no cluster that is not whole in the file, and calls a table damaged in which one is not."""
    odd = bits_of(l2, header.cluster - 1 - ZERO) or bits_of(l2, ZERO).bit_count() != l2.count(ZERO)
    within = header.reserved > header.cluster and any(ZERO < entry < header.reserved for entry in l2)
    if odd or within:
        raise FormatMismatch("a damaged QED image: an L2 entry makes no sense")
    if (last := max(l2)) > ZERO:
        disk.holds(last, header.cluster, "a data cluster")
