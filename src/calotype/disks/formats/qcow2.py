"""qcow2, versions 2 and 3. Integers are big-endian. Source: QEMU, docs/interop/qcow2."""

import struct
from array import array
from bisect import bisect_left
from typing import Final

from msgspec import Struct

from calotype.disks.formats.reader import MOST_TABLES, DiskFile, Facts, check_places, rounded_up
from calotype.disks.model import DiskFormat
from calotype.errors import FormatMismatch, TruncatedDisk, UnsafeDisk

MAGIC: Final = b"QFI\xfb"
VERSION_2: Final = b"\0\0\0\2"  # after the magic
HEADER_V2: Final = 72
HEADER_V3: Final = 104
FLATTEN: Final = "flatten it first: qemu-img convert -O qcow2 IMAGE FLAT.qcow2"

# Bits of the incompatible features.
DIRTY, CORRUPT, DATA_FILE, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN_INCOMPATIBLE: Final = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2
RAW_EXTERNAL_DATA: Final = 1 << 1  # of the autoclear features

# Types of header extensions.
END_OF_EXTENSIONS: Final = 0
BACKING_FORMAT: Final = 0xE2792ACA
DATA_FILE_NAME: Final = 0x44415441
ENCRYPTION_HEADER: Final = 0x0537BE77

# Bounds of QEMU's own, beyond which it does not open an image.
MOST_L1_BYTES: Final = 32 * 1024 * 1024
MOST_REFCOUNT_TABLE_BYTES: Final = 8 * 1024 * 1024
MOST_SNAPSHOTS: Final = 65536
MOST_SNAPSHOT_TABLE_BYTES: Final = 64 * 1024 * 1024
MOST_EXTENSIONS: Final = 64

OFFSET: Final = 0x00FFFFFFFFFFFE00  # of a cluster, in L1 and L2 entries
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1


class Header(Struct, frozen=True, kw_only=True):
    version: int
    cluster_bits: int
    size: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    extended_l2: bool
    zstd: bool
    dirty: bool

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        return self.cluster // (16 if self.extended_l2 else 8)


def parse(disk: DiskFile) -> Facts:
    header = read_header(disk)
    _check_refcounts(disk, header)
    _check_snapshots(disk, header)
    _check_clusters(disk, header, header.l1_offset, -(-header.size // (header.cluster * header.l2_entries)))
    words = [f"v{header.version}", "zstd" if header.zstd else "zlib"]
    if header.snapshots:
        words.append(f"{header.snapshots} snapshots")
    return Facts(format=DiskFormat.QCOW2, virtual_size=header.size, detail=" ".join(words), snapshots=header.snapshots)


def read_header(disk: DiskFile) -> Header:
    """The header, all of whose fields make sense. The tables it names may still lie outside the file."""
    start = disk.exactly(0, HEADER_V2, "the qcow2 header")
    (
        magic, version, backing_offset, backing_size, cluster_bits, size, crypt, l1_entries,
        l1_offset, refcount_offset, refcount_clusters, snapshots, snapshots_offset,
    ) = struct.unpack(">4sIQIIQIIQQIIQ", start)  # fmt: skip
    if magic != MAGIC or version not in (2, 3):
        raise FormatMismatch("not a qcow2 image of version 2 or 3")
    if backing_offset or backing_size:
        raise UnsafeDisk(f"a qcow2 image with a backing file; {FLATTEN}")
    if crypt:
        raise UnsafeDisk("an encrypted qcow2 image; decrypt it first")
    if not 9 <= cluster_bits <= 21:
        raise FormatMismatch(f"not a usable qcow2 image: its clusters would be of 2^{cluster_bits} bytes")
    cluster = 1 << cluster_bits
    incompatible, header_length, zstd = 0, HEADER_V2, False
    if version == 3:
        incompatible, header_length, zstd = _version_3(disk, cluster)
    _check_extensions(disk, header_length, cluster)
    extended = bool(incompatible & EXTENDED_L2)
    header = Header(
        version=version, cluster_bits=cluster_bits, size=size, l1_entries=l1_entries, l1_offset=l1_offset,
        refcount_offset=refcount_offset, refcount_clusters=refcount_clusters, snapshots=snapshots,
        snapshots_offset=snapshots_offset, extended_l2=extended, zstd=zstd, dirty=bool(incompatible & DIRTY),
    )  # fmt: skip
    if size % 512:
        raise FormatMismatch(f"not a usable qcow2 image: a size of {size} bytes is not a multiple of 512")
    disk.virtual(size)
    if extended and cluster_bits < 14:
        raise FormatMismatch("not a usable qcow2 image: its clusters are too small for subclusters")
    if l1_entries * 8 > MOST_L1_BYTES or -(-size // (cluster * header.l2_entries)) > l1_entries:
        raise FormatMismatch(f"not a usable qcow2 image: {l1_entries} L1 entries do not fit a size of {size} bytes")
    if l1_offset % cluster or refcount_offset % cluster or not refcount_offset or not l1_offset:
        raise FormatMismatch("not a usable qcow2 image: its tables are not at cluster boundaries")
    if not 0 < refcount_clusters * cluster <= max(MOST_REFCOUNT_TABLE_BYTES, cluster):
        raise FormatMismatch(f"not a usable qcow2 image: a refcount table of {refcount_clusters} clusters")
    return header


def _version_3(disk: DiskFile, cluster: int) -> tuple[int, int, bool]:
    """Incompatible features, length of the header, whether clusters are compressed with zstd."""
    rest = disk.exactly(HEADER_V2, HEADER_V3 - HEADER_V2, "the qcow2 header")
    incompatible, _compatible, autoclear, refcount_order, length = struct.unpack(">QQQII", rest)
    if incompatible & DATA_FILE or autoclear & RAW_EXTERNAL_DATA:
        raise UnsafeDisk(f"a qcow2 image with an external data file; {FLATTEN}")
    unknown = incompatible & ~KNOWN_INCOMPATIBLE
    if unknown:
        raise UnsafeDisk(f"a qcow2 image with unknown features (incompatible bits {unknown:#x})")
    if incompatible & CORRUPT:
        raise FormatMismatch("a qcow2 image that is marked as corrupt; repair it first: qemu-img check -r all IMAGE")
    if refcount_order > 6:
        raise FormatMismatch(f"not a usable qcow2 image: refcounts of 2^{refcount_order} bits")
    if not HEADER_V3 <= length <= cluster or length % 8:
        raise FormatMismatch(f"not a usable qcow2 image: a header of {length} bytes")
    kind = disk.exactly(HEADER_V3, 1, "the qcow2 header")[0] if length > HEADER_V3 else 0
    if kind > 1 or bool(kind) is not bool(incompatible & COMPRESSION_TYPE):
        raise UnsafeDisk(f"a qcow2 image with an unknown compression (type {kind})")
    return incompatible, length, kind == 1


def _check_extensions(disk: DiskFile, offset: int, cluster: int) -> None:
    """No header extension may name another file, whether or not a feature bit goes with it."""
    for _ in range(MOST_EXTENSIONS):
        head = disk.some(offset, 8)
        if len(head) < 8 or offset + 8 > cluster:
            return
        kind, length = struct.unpack(">II", head)
        if kind == DATA_FILE_NAME:
            raise UnsafeDisk(f"a qcow2 image that names an external data file; {FLATTEN}")
        if kind == ENCRYPTION_HEADER:
            raise UnsafeDisk("an encrypted qcow2 image; decrypt it first")
        if kind == BACKING_FORMAT:
            raise UnsafeDisk(f"a qcow2 image that names the format of a backing file; {FLATTEN}")
        if offset + 8 + length > cluster:
            raise FormatMismatch("not a usable qcow2 image: a header extension is longer than the header's cluster")
        if kind == END_OF_EXTENSIONS:
            return
        offset += 8 + rounded_up(length, 8)
    raise FormatMismatch(f"not a usable qcow2 image: more than {MOST_EXTENSIONS} header extensions")


def _check_refcounts(disk: DiskFile, header: Header) -> None:
    entries = header.refcount_clusters * header.cluster // 8
    what = "the refcount table"
    for values in disk.table(header.refcount_offset, entries, "Q", what, big_endian=True):
        last = max(values)
        if last:
            disk.holds(last, header.cluster, "a refcount block")
        if any(value % header.cluster for value in values):
            raise FormatMismatch("a damaged qcow2 image: a refcount block is not at a cluster boundary")


def _check_snapshots(disk: DiskFile, header: Header) -> None:
    """The snapshots' tables must be there as well; their clusters are those that QEMU's own check looks at."""
    if not header.snapshots:
        return
    if header.snapshots > MOST_SNAPSHOTS or header.snapshots_offset % header.cluster:
        raise FormatMismatch(f"not a usable qcow2 image: {header.snapshots} snapshots")
    offset = header.snapshots_offset
    for _ in range(header.snapshots):
        head = disk.exactly(offset, 40, "the snapshot table")
        l1_offset, l1_entries, id_size, name_size = struct.unpack_from(">QIHH", head)
        (extra_size,) = struct.unpack_from(">I", head, 36)
        if l1_entries * 8 > MOST_L1_BYTES or l1_offset % header.cluster or extra_size > 1024:
            raise FormatMismatch("a damaged qcow2 image: a snapshot's table makes no sense")
        disk.holds(l1_offset, l1_entries * 8, "a snapshot's L1 table")
        length = 40 + extra_size + id_size + name_size
        disk.holds(offset, length, "the snapshot table")  # the padding after the last one may be missing
        offset += rounded_up(length, 8)
        if offset - header.snapshots_offset > MOST_SNAPSHOT_TABLE_BYTES:
            raise FormatMismatch("not a usable qcow2 image: its snapshot table is too large")


def _check_clusters(disk: DiskFile, header: Header, l1_offset: int, l1_entries: int) -> None:
    """Every cluster that the guest can reach must lie in the file."""
    what = "the L1 table"
    places = array("Q")
    for l1 in disk.table(l1_offset, l1_entries, "Q", what, big_endian=True):
        places.extend(entry & OFFSET for entry in l1 if entry & OFFSET)
        if len(places) > MOST_TABLES:
            break
    check_places(places, "an L2 table")
    guest = 0  # offset on the virtual disk that an L2 table begins at
    step = header.cluster * header.l2_entries
    words = header.cluster // 8
    for l1 in disk.table(l1_offset, l1_entries, "Q", what, big_endian=True):
        for entry in l1:
            if entry & OFFSET:
                if entry & ~(OFFSET | COPIED) or (entry & OFFSET) % header.cluster:
                    raise FormatMismatch("a damaged qcow2 image: an L1 entry makes no sense")
                place = guest
                for l2 in disk.table(entry & OFFSET, words, "Q", "an L2 table", big_endian=True):
                    place = _check_l2(disk, header, l2, place)
            guest += step


def _check_l2(disk: DiskFile, header: Header, l2: "array[int]", guest: int) -> int:
    """Check a slice of an L2 table whose first entry is for the offset `guest`; return the offset after its last.

    Sorted, the entries fall into classes by their two highest bits, so that all but a few are never looked at.
    """
    if header.extended_l2:
        return _check_subclusters(disk, header, l2, guest)
    after = guest + len(l2) * header.cluster
    ordered = sorted(l2)
    if not ordered[-1]:
        return after
    compressed, copied = bisect_left(ordered, COMPRESSED), bisect_left(ordered, COPIED)
    fits = max(0, disk.size - header.cluster)
    highest = max(ordered[compressed - 1] if compressed else 0, ordered[-1] & ~COPIED if copied < len(ordered) else 0)
    if highest > fits:
        _check_standard(disk, header, l2, guest)
    if compressed < copied:
        _check_compressed(disk, header, ordered[compressed:copied])
    return after


def _check_standard(disk: DiskFile, header: Header, l2: "array[int]", guest: int) -> None:
    """One by one: the last cluster of the disk needs no more bytes than the disk has."""
    for entry in l2:
        if entry and entry & (COMPRESSED | COPIED) != COMPRESSED:
            if entry & ~(OFFSET | COPIED | ZERO):
                raise FormatMismatch("a damaged qcow2 image: an L2 entry makes no sense")
            needed = min(header.cluster, header.size - guest)
            if not entry & ZERO and needed > 0 and entry & OFFSET:
                disk.holds(entry & OFFSET, needed, "a data cluster")
        guest += header.cluster


def _check_compressed(disk: DiskFile, header: Header, entries: list[int]) -> None:
    """The low bits are an offset in bytes, those above it the number of further sectors; the last may be cut."""
    bits = 62 - (header.cluster_bits - 8)
    low = (1 << bits) - 1
    sectors = COMPRESSED - 1
    end = rounded_up(disk.size, 512)
    for entry in entries:
        offset = entry & low
        if (offset & ~511) + (((entry & sectors) >> bits) + 1) * 512 > end:
            raise TruncatedDisk(
                f"the file is cut short: it has {disk.size} bytes, but a compressed cluster at byte {offset} goes on"
            )


def _check_subclusters(disk: DiskFile, header: Header, l2: "array[int]", guest: int) -> int:
    """Entries are pairs: the cluster, then a bit for each of its 32 subclusters (the low half: it has data)."""
    subcluster = header.cluster // 32
    for entry, bitmap in zip(*(iter(l2),) * 2, strict=True):
        if entry & COMPRESSED:
            _check_compressed(disk, header, [entry])
        elif entry & ~(OFFSET | COPIED):
            raise FormatMismatch("a damaged qcow2 image: an L2 entry makes no sense")
        elif entry & OFFSET:
            needed = min((bitmap & 0xFFFFFFFF).bit_length() * subcluster, header.size - guest)
            if needed > 0:
                disk.holds(entry & OFFSET, needed, "a data cluster")
        guest += header.cluster
    return guest
