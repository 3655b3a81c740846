"""How large the disk in a file is for its guest, as its format says it; kept until the file changes."""

import os
import threading
import time
from collections import OrderedDict
from typing import Final

from calotype.disks.formats.qcow2 import read_header
from calotype.disks.formats.reader import SECTOR, DiskFile, rounded_up
from calotype.disks.formats.signatures import marks_of
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat
from calotype.errors import DiskRefused
from calotype.servers.shelves import SETTLED_NS, Version, version_of

MOST_KEPT: Final = 65_536
NO_LIMIT: Final = 2**63 - 1  # whether a disk is too large is not judged here

Key = tuple[Version, str | None]


class DiskSizes:
    """Any number of threads may ask."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, int | None] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, fd: int, declared: str | None) -> int | None:
        """Bytes; None where the content is no disk of the format `declared`, or of none that is taken. Whether it can
        become an image is for those to judge who make one. Raises `OSError`."""
        found = os.fstat(fd)
        key = (version_of(found), declared)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        size = _virtual_size(fd, found.st_size, declared)
        if time.time_ns() - found.st_ctime_ns > SETTLED_NS:
            with self._lock:
                self._kept[key] = size
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        return size


def _virtual_size(fd: int, size: int, declared: str | None) -> int | None:
    def read_at(offset: int, length: int) -> bytes:
        return os.pread(fd, length, offset)

    if declared == DiskFormat.RAW:
        return rounded_up(size, SECTOR)
    disk = DiskFile(read_at, size, most_virtual_bytes=NO_LIMIT)
    try:
        # Its header alone: the tables of one that a server writes to are large, and another at every look.
        if declared == DiskFormat.QCOW2 or (declared is None and marks_of(disk).names == [DiskFormat.QCOW2]):
            return read_header(disk).size
        return inspect(fd, declared=declared, most_virtual_bytes=NO_LIMIT).virtual_size
    except DiskRefused:
        return None
