"""Small disk images of every format, built by hand, so that a test can bend any field of them.

Each builder, called without arguments, gives a sound image whose guest bytes are `CONTENT`, then zeros.
"""

import struct
import uuid
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from calotype.disks.formats.crc32c import crc32c

SECTOR: Final = 512
KIB: Final = 1024
MIB: Final = 1024 * KIB
CONTENT: Final = bytes(range(1, 256)) * 257 + b"\x01"  # 64 KiB without a zero byte at either end
SIZE: Final = 4 * MIB

assert len(CONTENT) == 64 * KIB


def raw(size: int = SIZE) -> bytes:
    return CONTENT + bytes(size - len(CONTENT))


def padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


# --- qcow2 ------------------------------------------------------------------------------------------------------------


def qcow2(
    *,
    version: int = 3,
    size: int = SIZE,
    cluster_bits: int = 16,
    backing: bytes = b"",
    backing_offset: int | None = None,
    crypt: int = 0,
    l1_entries: int = 1,
    l1_offset: int | None = None,
    l1_entry: int | None = None,
    l2_entry: int | None = None,
    l2_second: int = 0,
    refcount_offset: int | None = None,
    refcount_clusters: int = 1,
    refcount_entry: int | None = None,
    snapshots: int = 0,
    snapshots_offset: int = 0,
    incompatible: int = 0,
    autoclear: int = 0,
    refcount_order: int = 4,
    header_length: int = 104,
    compression: int = 0,
    extensions: tuple[tuple[int, bytes], ...] = (),
    content: bytes = CONTENT,
) -> bytes:
    """Header, refcount table, refcount block, L1 table, L2 table and one data cluster, in this order."""
    cluster = 1 << cluster_bits
    places = {name: index * cluster for index, name in enumerate(("header", "table", "block", "l1", "l2", "data"))}
    head = b"".join(struct.pack(">II", kind, len(data)) + padded(data, 8) for kind, data in extensions)
    if extensions:
        head += bytes(8)
    start = 72 if version == 2 else header_length
    if backing and backing_offset is None:
        backing_offset = start + len(head)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing_offset or 0,
        len(backing),
        cluster_bits,
        size,
        crypt,
        l1_entries,
        places["l1"] if l1_offset is None else l1_offset,
        places["table"] if refcount_offset is None else refcount_offset,
        refcount_clusters,
        snapshots,
        snapshots_offset,
    )
    if version != 2:
        header += struct.pack(">QQQII", incompatible, 0, autoclear, refcount_order, header_length)
        header += bytes([compression]) + bytes(7) if header_length > 104 else b""
    copied = 1 << 63
    counts = struct.pack(">6H", *[1] * 6)
    parts = [
        header + head + backing,
        struct.pack(">Q", places["block"] if refcount_entry is None else refcount_entry),
        counts,
        struct.pack(">Q", (places["l2"] | copied) if l1_entry is None else l1_entry),
        struct.pack(">QQ", (places["data"] | copied) if l2_entry is None else l2_entry, l2_second),
        content[:cluster],
    ]
    return b"".join(padded(part, cluster) for part in parts)


# --- VMDK -------------------------------------------------------------------------------------------------------------

DESCRIPTOR: Final = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="{kind}"

# Extent description
{extent}

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "8"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
"""


def vmdk_descriptor(
    kind: str = "monolithicSparse", extent: str = 'RW 8192 SPARSE "disk.vmdk"', extra: str = ""
) -> bytes:
    return (DESCRIPTOR.format(kind=kind, extent=extent) + extra).encode()


def vmdk_header(
    *,
    version: int = 1,
    flags: int = 1,
    capacity: int = SIZE // SECTOR,
    grain: int = 128,
    descriptor_offset: int = 1,
    descriptor_sectors: int = 20,
    table_entries: int = 512,
    redundant: int = 0,
    directory: int = 21,
    overhead: int = 128,
    newlines: bytes = b"\n \r\n",
    compression: int = 0,
) -> bytes:
    return padded(
        b"KDMV"
        + struct.pack(
            "<IIQQQQIQQQB4sH",
            version,
            flags,
            capacity,
            grain,
            descriptor_offset,
            descriptor_sectors,
            table_entries,
            redundant,
            directory,
            overhead,
            0,
            newlines,
            compression,
        ),
        SECTOR,
    )


def vmdk(
    descriptor: bytes | None = None,
    *,
    table: int = 22,
    grain: int = 128,
    header: bytes | None = None,
    content: bytes = CONTENT,
) -> bytes:
    """monolithicSparse: header, descriptor (20 sectors), directory, one grain table (4 sectors), the grain."""
    text = vmdk_descriptor() if descriptor is None else descriptor
    return (
        (vmdk_header() if header is None else header)
        + text[: 20 * SECTOR].ljust(20 * SECTOR, b"\0")
        + padded(struct.pack("<I", table), SECTOR)
        + padded(struct.pack("<I", grain), 4 * SECTOR)
        + bytes((128 - 26) * SECTOR)
        + content.ljust(64 * KIB, b"\0")
    )


def vmdk_stream(*, footer: bytes | None = None, descriptor: bytes | None = None) -> bytes:
    """streamOptimized: header, descriptor, the compressed grain, its table, the directory, footer."""
    flags = 1 | 1 << 16 | 1 << 17
    extent = 'RW 8192 SPARSE "disk.vmdk"'
    text = vmdk_descriptor("streamOptimized", extent) if descriptor is None else descriptor
    head = vmdk_header(version=3, flags=flags, directory=0xFFFFFFFFFFFFFFFF, compression=1)
    data = zlib.compress(CONTENT)
    out = padded(head + text.ljust(20 * SECTOR, b"\0"), 128 * SECTOR)
    grain = len(out) // SECTOR
    out = padded(out + struct.pack("<QI", 0, len(data)) + data, SECTOR)
    out += padded(struct.pack("<QII", 4, 0, 1), SECTOR)
    table = len(out) // SECTOR
    out += padded(struct.pack("<I", grain), 4 * SECTOR)
    out += padded(struct.pack("<QII", 1, 0, 2), SECTOR)
    directory = len(out) // SECTOR
    out += padded(struct.pack("<I", table), SECTOR)
    foot = vmdk_header(version=3, flags=flags, directory=directory, compression=1) if footer is None else footer
    return out + padded(struct.pack("<QII", 1, 0, 3), SECTOR) + foot + bytes(SECTOR)


# --- VHD --------------------------------------------------------------------------------------------------------------


def _checksum(data: bytes) -> int:
    return ~sum(data) & 0xFFFFFFFF


def vhd_footer(
    *,
    kind: int = 3,
    size: int = SIZE,
    data_offset: int | None = None,
    creator: bytes = b"win ",
    geometry: tuple[int, int, int] = (120, 4, 17),
    version: int = 0x00010000,
    checksum: int | None = None,
) -> bytes:
    if data_offset is None:
        data_offset = 0xFFFFFFFFFFFFFFFF if kind == 2 else 512
    start = struct.pack(">8sIIQI4sI4sQQHBBI", b"conectix", 2, version, data_offset, 0, creator, 0, b"Wi2k", size, size, *geometry, kind)  # fmt: skip # noqa: E501
    rest = uuid.UUID(int=1).bytes + bytes(428)
    if checksum is None:
        checksum = _checksum(start + rest)
    return start + struct.pack(">I", checksum) + rest


def vhd(
    *,
    entries: int = 2,
    block: int = 2 * MIB,
    table_offset: int = 1536,
    entry: int = 4,
    parent: bytes = b"",
    parent_name: str = "",
    locators: bytes = b"",
    located: bytes = b"",
    footer: bytes | None = None,
    end: bytes | None = None,
    content: bytes = CONTENT,
) -> bytes:
    """Dynamic: the footer's copy, the header, what a locator points to, if anything, the table, one block (bitmap and
    data), the footer."""
    foot = vhd_footer() if footer is None else footer
    head = struct.pack(">8sQQIII", b"cxsparse", 0xFFFFFFFFFFFFFFFF, table_offset, 0x00010000, entries, block)
    name = parent_name.encode("utf-16-be").ljust(512, b"\0")
    rest = parent.ljust(16, b"\0") + bytes(8) + name + locators.ljust(192, b"\0") + bytes(256)
    head += struct.pack(">I", _checksum(head + rest)) + rest
    table = padded(struct.pack(">II", entry, 0xFFFFFFFF), SECTOR)
    data = b"\xff" * SECTOR + content.ljust(block, b"\0") if block == 2 * MIB else bytes(SECTOR)
    return foot + head + padded(located, 2 * SECTOR) + table + data + (foot if end is None else end)


def vhd_fixed(size: int = SIZE, *, footer: bytes | None = None, content: bytes | None = None) -> bytes:
    data = raw(size) if content is None else content.ljust(size, b"\0")
    return data + (vhd_footer(kind=2, size=size) if footer is None else footer)


# --- VHDX -------------------------------------------------------------------------------------------------------------

BAT: Final = "2DC27766-F623-4200-9D64-115E9BFD4A08"
METADATA: Final = "8B7CA206-4790-4B9A-B8FE-575F050F886E"
FILE_PARAMETERS: Final = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B"
VIRTUAL_SIZE: Final = "2FA54224-CD1B-4876-B211-5DBED83BF4B8"
PAGE_83: Final = "BECA12AB-B2E6-4523-93EF-C309E000C746"
LOGICAL_SECTOR: Final = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F"
PHYSICAL_SECTOR: Final = "CDA348C7-445D-4471-9CC9-E9885251C556"
PARENT_LOCATOR: Final = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"
VHDX_LOCATOR: Final = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le  # the kind that a locator begins with


def _guarded(data: bytes) -> bytes:
    """With the checksum at offset 4 put in."""
    return data[:4] + struct.pack("<I", crc32c(data)) + data[8:]


def vhdx_header(*, log: bytes = bytes(16), version: int = 1, sequence: int = 1) -> bytes:
    start = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence, bytes(16), bytes(16), log, 0, version, MIB, MIB)
    return _guarded(start.ljust(4 * KIB, b"\0")).ljust(64 * KIB, b"\0")


def vhdx_regions(regions: list[tuple[str, int, int, int]]) -> bytes:
    entries = b"".join(
        uuid.UUID(guid).bytes_le + struct.pack("<QII", offset, length, required)
        for guid, offset, length, required in regions
    )
    return _guarded((struct.pack("<4sIII", b"regi", 0, len(regions), 0) + entries).ljust(64 * KIB, b"\0"))


def vhdx(
    *,
    size: int = SIZE,
    block: int = MIB,
    parameters: int = 0,
    sector: int = 512,
    entry: int = 4 << 20 | 6,
    log: bytes = bytes(16),
    version: int = 1,
    items: tuple[tuple[str, bytes, int], ...] = (),
    regions: tuple[tuple[str, int, int, int], ...] = (),
    bat_length: int = MIB,
) -> bytes:
    """Headers, log (at 1 MiB), block table (2 MiB), metadata (3 MiB), one block (4 MiB)."""
    known: list[tuple[str, bytes, int]] = [
        (FILE_PARAMETERS, struct.pack("<II", block, parameters), 4),
        (VIRTUAL_SIZE, struct.pack("<Q", size), 6),
        (PAGE_83, bytes(16), 6),
        (LOGICAL_SECTOR, struct.pack("<I", sector), 6),
        (PHYSICAL_SECTOR, struct.pack("<I", 512), 6),
        *items,
    ]
    table, data = b"", b""
    for guid, value, flags in known:
        table += uuid.UUID(guid).bytes_le + struct.pack("<IIII", 64 * KIB + len(data), len(value), flags, 0)
        data += padded(value, 16)
    metadata = (struct.pack("<8sHH", b"metadata", 0, len(known)).ljust(32, b"\0") + table).ljust(64 * KIB, b"\0") + data
    region_table = vhdx_regions([(BAT, 2 * MIB, bat_length, 1), (METADATA, 3 * MIB, MIB, 1), *regions])
    out = b"vhdxfile".ljust(64 * KIB, b"\0")
    out += vhdx_header(log=log, version=version) + vhdx_header(log=log, version=version, sequence=0)
    out = (out + region_table + region_table).ljust(2 * MIB, b"\0")
    out = (out + struct.pack("<Q", entry)).ljust(3 * MIB, b"\0")
    return (out + metadata).ljust(4 * MIB, b"\0") + CONTENT.ljust(MIB, b"\0")


# --- VDI --------------------------------------------------------------------------------------------------------------


def vdi(
    *,
    version: int = 0x00010001,
    kind: int = 1,
    size: int = SIZE,
    block: int = MIB,
    blocks: int = SIZE // MIB,
    allocated: int = 1,
    entry: int = 0,
    link: bytes = bytes(16),
    parent: bytes = bytes(16),
    sector: int = 512,
    map_offset: int = 512,
    data_offset: int = 1024,
    content: bytes = CONTENT,
) -> bytes:
    head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe"
    head += struct.pack("<IIII", version, 0x190, kind, 0) + bytes(256)
    head += struct.pack("<IIIIIII", map_offset, data_offset, 0, 0, 0, sector, 0)
    head += struct.pack("<QIIII", size, block, 0, blocks, allocated)
    head += uuid.UUID(int=1).bytes + uuid.UUID(int=2).bytes + link + parent
    table = struct.pack("<4I", entry, *[0xFFFFFFFF] * 3)
    return padded(head, SECTOR) + padded(table, SECTOR) + content.ljust(MIB, b"\0")


# --- QED --------------------------------------------------------------------------------------------------------------


def qed(
    *,
    size: int = SIZE,
    cluster: int = 4 * KIB,
    table: int = 2,
    header: int = 1,
    features: int = 0,
    compatible: int = 0,
    autoclear: int = 0,
    backing: bytes = b"",
    backing_size: int | None = None,
    l1_offset: int | None = None,
    l1: Mapping[int, int] = {},
    l2: Mapping[int, int] = {},
) -> bytes:
    """Header, L1 table, L2 table and as many clusters as the content needs. `l1`, `l2`: other entries, by index."""
    at_l1 = header * cluster
    at_l2 = at_l1 + table * cluster
    at_data = at_l2 + table * cluster
    named = len(backing) if backing_size is None else backing_size
    head = struct.pack(
        "<4sIIIQQQQQII", b"QED\0", cluster, table, header, features, compatible, autoclear,
        at_l1 if l1_offset is None else l1_offset, size, 64 if named else 0, named,
    )  # fmt: skip
    clusters = -(-len(CONTENT) // cluster)
    first = {0: at_l2, **l1}
    second = {**{index: at_data + index * cluster for index in range(clusters)}, **l2}
    return b"".join(
        [
            padded(head + backing, header * cluster),
            table_of("<Q", first, table * cluster),
            table_of("<Q", second, table * cluster),
            padded(CONTENT, cluster),
        ]
    )


def table_of(entry: str, values: Mapping[int, int], length: int) -> bytes:
    """A table of `length` bytes with the `values` at their indices, and zeros."""
    table = bytearray(length)
    for index, value in values.items():
        struct.pack_into(entry, table, index * struct.calcsize(entry), value)
    return bytes(table)


# --- qcow, version 1 --------------------------------------------------------------------------------------------------


def qcow1(
    *,
    version: int = 1,
    size: int = SIZE,
    cluster_bits: int = 12,
    l2_bits: int = 9,
    backing: bytes = b"",
    backing_offset: int | None = None,
    crypt: int = 0,
    l1_offset: int = 48,
    l1: Mapping[int, int] = {},
    l2: Mapping[int, int] = {},
    compressed: bool = False,
) -> bytes:
    """Header with the L1 table (512 bytes), L2 table, and the content: by clusters, or all of them compressed.
    `l1`, `l2`: other entries, by index."""
    cluster, at_data = 1 << cluster_bits, SECTOR + (8 << l2_bits)
    second, data = dict[int, int](), b""
    for index, start in enumerate(range(0, len(CONTENT), cluster)):
        piece = padded(CONTENT[start : start + cluster], cluster)
        second[index] = at_data + len(data)
        if compressed:
            packer = zlib.compressobj(wbits=-12)
            piece = packer.compress(piece) + packer.flush()
            second[index] |= 1 << 63 | len(piece) << (63 - cluster_bits)
        data += piece
    if backing and backing_offset is None:
        backing_offset = SECTOR - 100
    head = struct.pack(
        ">4sIQIIQBBHIQ", b"QFI\xfb", version, backing_offset or 0, len(backing), 0, size, cluster_bits, l2_bits, 0,
        crypt, l1_offset,
    )  # fmt: skip
    first = head + table_of(">Q", {0: SECTOR, **l1}, SECTOR - len(head))
    if backing_offset == SECTOR - 100:
        first = first[:-100] + backing[:100].ljust(100, b"\0")
    return first + table_of(">Q", {**second, **l2}, 8 << l2_bits) + data


# --- ISO and raw disks ------------------------------------------------------------------------------------------------


def iso(*, blocks: int = 64, boot_sector: bool = False, start: bytes = b"") -> bytes:
    system = start.ljust(32 * KIB, b"\0")
    if boot_sector:
        system = with_boot_sector(system)
    primary = b"\x01CD001\x01".ljust(80, b"\0") + struct.pack("<I", blocks) + struct.pack(">I", blocks)
    primary = primary.ljust(128, b"\0") + struct.pack("<H", 2048) + struct.pack(">H", 2048)
    last = b"\xffCD001\x01"
    return (system + primary.ljust(2048, b"\0") + last.ljust(2048, b"\0")).ljust(64 * 2048, b"\0")


def with_boot_sector(data: bytes) -> bytes:
    """A partition of type 0x83 from sector 64 on, and the signature."""
    partition = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0x83, b"\0\2\0", 64, 128)
    return data[:446] + partition + bytes(48) + b"\x55\xaa" + data[512:]


def gpt(size: int = SIZE) -> bytes:
    """A raw disk with a GUID partition table of no partitions, whose backup is in its last sector."""
    last = size // SECTOR - 1
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, last, 34, last - 33, bytes(16), 2, 128, 128, 0
    )
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    protective = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, last) + bytes(48)
    return (padded(protective + b"\x55\xaa" + head, SECTOR)).ljust(size, b"\0")


SOUND: Final[Mapping[str, Callable[[], bytes]]] = {
    "qcow2": qcow2,
    "vmdk": vmdk,
    "vmdk-stream": vmdk_stream,
    "vhd": vhd,
    "vhd-fixed": vhd_fixed,
    "vhdx": vhdx,
    "vdi": vdi,
    "iso": iso,
    "qed": qed,
    "qcow": qcow1,
    "qcow-compressed": lambda: qcow1(compressed=True),
    "raw": raw,
}
FORMAT_OF: Final = {name: name.split("-")[0] for name in SOUND}
