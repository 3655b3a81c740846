"""Headers of qcow2 images that the service writes itself: of an empty one that a hypervisor fills, and of a copy that
stands without its backing file. Integers are big-endian. Source: QEMU, docs/interop/qcow2.
"""

import struct
from typing import Final

from calotype.disks.formats.qcow2 import BACKING_FORMAT, END_OF_EXTENSIONS, HEADER_V2, HEADER_V3, MAGIC
from calotype.disks.formats.reader import rounded_up

CLUSTER_BITS: Final = 16
CLUSTER: Final = 1 << CLUSTER_BITS
REFCOUNT_ORDER: Final = 4  # 16 bits each
HEADER_BYTES: Final = 2 * 1024 * 1024  # of the largest cluster: the header and its extensions lie in the first one
BACKING: Final = slice(8, 20)  # where a header names its backing file: offset and length
MOST_EXTENSIONS: Final = 64


def empty(size: int) -> bytes:
    """The first bytes of a qcow2 image, version 3, of a disk of `size` bytes that are all zero; the rest of the file is
    what is allocated later. `size` is a multiple of 512."""
    l1_entries = max(1, -(-size // (CLUSTER * CLUSTER // 8)))
    l1_clusters = -(-l1_entries * 8 // CLUSTER)
    used = 3 + l1_clusters  # header, refcount table, refcount block, L1 table
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        MAGIC,
        3,
        0,
        0,
        CLUSTER_BITS,
        size,
        0,  # not encrypted
        l1_entries,
        3 * CLUSTER,
        CLUSTER,
        1,  # cluster of the refcount table: enough for 16 TiB, and it grows
        0,  # no snapshots
        0,
        0,
        0,
        0,
        REFCOUNT_ORDER,
        HEADER_V3,
    )
    table = struct.pack(">Q", 2 * CLUSTER)
    block = struct.pack(">H", 1) * used
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (header, table, block)) + bytes(l1_clusters * CLUSTER)


def names_backing(head: bytes) -> bool:
    """Whether the image whose first bytes these are stands on another one."""
    return head[:4] == MAGIC and any(head[BACKING])


def detached(head: bytes) -> bytes:
    """The same first bytes, without a backing file: for a copy whose lower layers are known from elsewhere.

    `head` is the first cluster, or more. What a guest sees where the image has no clusters is then zero. Anything that
    is no qcow2 header stays as it is: the gate looks at the copy.
    """
    if len(head) < HEADER_V2 or head[:4] != MAGIC:
        return head
    changed = bytearray(head)
    changed[BACKING] = bytes(BACKING.stop - BACKING.start)
    (version,) = struct.unpack_from(">I", head, 4)
    start = HEADER_V2
    if version >= 3 and len(head) >= HEADER_V3:
        (start,) = struct.unpack_from(">I", head, HEADER_V3 - 4)
        if start < HEADER_V3:  # a header that would end within its own fields: what lies there is no extension
            return bytes(changed)
    kept, at = bytearray(), start
    for _ in range(MOST_EXTENSIONS):
        if at + 8 > len(head):
            return bytes(changed)
        kind, length = struct.unpack_from(">II", head, at)
        after = at + 8 + rounded_up(length, 8)
        if kind == END_OF_EXTENSIONS or after > len(head):
            break
        if kind != BACKING_FORMAT:
            kept += head[at:after]
        at = after
    changed[start:at] = kept.ljust(at - start, b"\0")
    return bytes(changed)
