"""qcow, the first version of what became qcow2. Integers are big-endian. Source: QEMU, block/qcow.c.

oslo.utils knows the mark of this version and nothing else of it, so that what is read here is all that the gate knows.
Nothing keeps an image of it (`gate.NEVER_KEPT`); qemu-img has no check for one.
"""

import struct
from array import array
from typing import Final

from msgspec import Struct

from calotype.disks.formats.reader import MOST_TABLES, SECTOR, DiskFile, Facts, bits_of, check_places
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk, UnsafeDisk

MAGIC: Final = b"QFI\xfb\x00\x00\x00\x01"
HEADER: Final = 48
FLATTEN: Final = "flatten it first: qemu-img convert -O qcow2 IMAGE FLAT.qcow2"
MOST_L1_BYTES: Final = 32 * 1024 * 1024  # as of a qcow2; QEMU would read 2 GiB

COMPRESSED: Final = (
    1 << 63
)  # in an L2 entry: below it the length in bytes, then the offset, each of as many bits as fit


class Header(Struct, frozen=True, kw_only=True):
    cluster_bits: int
    l2_bits: int
    size: int
    l1_offset: int

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        return 1 << self.l2_bits

    @property
    def l1_entries(self) -> int:
        return -(-self.size >> (self.cluster_bits + self.l2_bits))


def parse(disk: DiskFile) -> Facts:
    header = read_header(disk)
    _check_places(disk, header)
    guest = 0  # offset on the virtual disk that an L2 table begins at
    for l1 in disk.table(header.l1_offset, header.l1_entries, "Q", "the L1 table", big_endian=True):
        for entry in l1:
            if entry:
                place = guest
                for l2 in disk.table(entry, header.l2_entries, "Q", "an L2 table", big_endian=True):
                    place = _check_l2(disk, header, l2, place)
            guest += header.cluster * header.l2_entries
    return Facts(format=DiskFormat.QCOW, virtual_size=header.size, detail="v1")


def read_header(disk: DiskFile) -> Header:
    """The header, all of whose fields make sense. The tables may still lie outside the file."""
    start = disk.exactly(0, HEADER, "the qcow header")
    (
        magic, backing_offset, backing_size, _modified, size, cluster_bits, l2_bits, crypt, l1_offset,
    ) = struct.unpack(">8sQIIQBB2xIQ", start)  # fmt: skip
    if magic != MAGIC:
        raise FormatMismatch("not a qcow image of version 1")
    if backing_offset or backing_size:
        raise UnsafeDisk(f"a qcow image with a backing file; {FLATTEN}")
    if crypt:
        raise UnsafeDisk("an encrypted qcow image; decrypt it first")
    if not 9 <= cluster_bits <= 16:
        raise FormatMismatch(f"not a usable qcow image: its clusters would be of 2^{cluster_bits} bytes")
    if not 6 <= l2_bits <= 13:
        raise FormatMismatch(f"not a usable qcow image: its L2 tables would be of 2^{l2_bits} entries")
    if size % SECTOR:
        raise FormatMismatch(f"not a usable qcow image: a size of {size} bytes is not a multiple of 512")
    disk.virtual(size)
    header = Header(cluster_bits=cluster_bits, l2_bits=l2_bits, size=size, l1_offset=l1_offset)
    if header.l1_entries * 8 > MOST_L1_BYTES:
        raise FormatMismatch(f"not a usable qcow image: a size of {size} bytes wants {header.l1_entries} L1 entries")
    if l1_offset < HEADER:
        raise FormatMismatch("not a usable qcow image: its L1 table is not at a place for one")
    return header


def _check_places(disk: DiskFile, header: Header) -> None:
    """No L2 table lies in the header, in the L1 table, or in another one."""
    places = array("Q")
    for l1 in disk.table(header.l1_offset, header.l1_entries, "Q", "the L1 table", big_endian=True):
        places.extend(entry for entry in l1 if entry)
        if len(places) > MOST_TABLES:
            break
    length, l1_end = header.l2_entries * 8, header.l1_offset + header.l1_entries * 8
    if any(place < HEADER or header.l1_offset - length < place < l1_end for place in places):
        raise FormatMismatch("a damaged qcow image: an L1 entry makes no sense")
    check_places(places, "an L2 table", length=length)


def _check_l2(disk: DiskFile, header: Header, l2: "array[int]", guest: int) -> int:
    """Check a slice of an L2 table whose first entry is for the offset `guest`; return the offset after its last."""
    if max(l2) >= COMPRESSED:
        _check_compressed(disk, header, [entry for entry in l2 if entry >= COMPRESSED])
        standard = array("Q", [entry if entry < COMPRESSED else 0 for entry in l2])
    else:
        standard = l2
    if bits_of(standard, SECTOR - 1):
        raise FormatMismatch("a damaged qcow image: an L2 entry makes no sense")
    if max(standard) + header.cluster > disk.size:
        _check_standard(disk, header, standard, guest)
    return guest + len(l2) * header.cluster


def _check_standard(disk: DiskFile, header: Header, l2: "array[int]", guest: int) -> None:
    """One by one: the last cluster of the disk needs no more bytes than the disk has."""
    for entry in l2:
        needed = min(header.cluster, header.size - guest)
        if entry and needed > 0:
            disk.holds(entry, needed, "a data cluster")
        guest += header.cluster


def _check_compressed(disk: DiskFile, header: Header, entries: list[int]) -> None:
    bits, most = 63 - header.cluster_bits, header.cluster - 1
    low = (1 << bits) - 1
    if min([entry >> bits & most for entry in entries]) == 0:
        raise FormatMismatch("a damaged qcow image: a compressed cluster has no bytes")
    end = max([(entry & low) + (entry >> bits & most) for entry in entries])
    if end > disk.size:
        raise TruncatedDisk(
            f"the file is cut short: it has {disk.size} bytes, but a compressed cluster would end at byte {end}"
        )
