"""Every parser of what strangers send, given sound files that were bent: it parses, or refuses as it should."""

import struct

from calotype.disks import gate
from tests.disks import build


def test_the_last_entry_of_a_snapshot_table_needs_no_padding() -> None:
    """qemu-img writes none: found by booting an image with a snapshot."""
    cluster = 64 * 1024
    entry = struct.pack(">QIHHIIQII", 3 * cluster, 1, 1, 5, 0, 0, 0, 0, 0) + b"1first"

    content = build.qcow2(snapshots=1, snapshots_offset=6 * cluster) + entry
    found = gate.inspect_at(
        lambda offset, length: content[offset : offset + length],
        len(content),
        declared="qcow2",
        most_virtual_bytes=2**40,
    )

    assert len(content) % 8
    assert found.snapshots == 1
