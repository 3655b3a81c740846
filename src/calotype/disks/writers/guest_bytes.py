"""The bytes that a guest sees, and where on the disk there are any."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, Protocol, Self

from calotype.disks.formats.reader import SECTOR, rounded_up
from calotype.disks.model import Window
from calotype.errors import ConversionFailed

UNIT: Final = 64 * 1024  # what both formats compress at once: a grain, a cluster
BLOCK: Final = 16 * UNIT  # what is read at once

Place = tuple[int, int]  # first byte, how many
Bytes = bytes | bytearray
Load = Callable[[], Bytes]
Ahead = Callable[[], int]


class GuestDisk(Protocol):
    """A disk to be read once, from its start to its end. Three real ones: `RawDisk`, `Qcow2Disk`, and `NbdDisk` for all
    else."""

    @property
    def size(self) -> int:
        """In bytes; a multiple of 512."""
        ...

    def extents(self) -> Iterator[Place]:
        """Where there may be data, in order, none twice; what lies between reads as zeros."""
        ...

    def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
        """Yield each place, which is of at most `BLOCK` bytes, in the order given, with the function that gets its
        bytes: to be called once, in any thread, while the disk is open.

        Takes at most `ahead()` places ahead. Both raise `ConversionFailed` where the image cannot be read.
        """
        ...

    def interrupt(self) -> None:
        """End a read that waits, from another thread; it raises."""
        ...


class RawDisk:
    """A raw file, or a part of it. The last sector is filled up as qemu does: with what follows, or with zeros."""

    def __init__(self, descriptor: int, size: int, start: int = 0) -> None:
        self._descriptor = descriptor
        self._start = start
        self.size = rounded_up(size, SECTOR)

    @classmethod
    def of(cls, descriptor: int, window: Window | None = None) -> Self:
        if window is None:
            return cls(descriptor, os.fstat(descriptor).st_size)
        return cls(descriptor, window.length, window.offset)

    def extents(self) -> Iterator[Place]:
        for start, length in data_in(self._descriptor, self._start, self._start + self.size):
            yield start - self._start, length

    def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
        for start, length in places:
            yield start, length, partial(self._exactly, start, length)

    def _exactly(self, start: int, length: int) -> bytes:
        try:
            data = read_at(self._descriptor, length, self._start + start)
        except OSError as error:
            raise ConversionFailed(f"the image cannot be read at byte {start} of the disk") from error
        return data.ljust(length, b"\0")

    def interrupt(self) -> None:
        """A file's reads end by themselves."""


def data_in(descriptor: int, start: int, end: int) -> Iterator[Place]:
    """Where in a part of a file there may be data; what lies between is holes, or behind the file's end."""
    at = start
    while at < end:
        try:
            first = os.lseek(descriptor, at, os.SEEK_DATA)
            after = os.lseek(descriptor, first, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on
                return
            raise
        if first >= end:
            return
        at = min(after, end)
        yield first, at - first


def read_at(descriptor: int, length: int, at: int) -> bytes:
    """So many bytes of a file; fewer only at its end."""
    data = os.pread(descriptor, length, at)
    while data and len(data) < length:
        more = os.pread(descriptor, length - len(data), at + len(data))
        if not more:
            break
        data += more
    return data


def blocks(extents: Iterable[Place], size: int) -> Iterator[Place]:
    """Cut what holds data into pieces: whole units but at the end of the disk, at most `BLOCK` bytes, in order, none
    twice. None crosses a multiple of `BLOCK`."""
    done = 0
    for start, length in extents:
        at, end = max(done, start // UNIT * UNIT), min(size, rounded_up(start + length, UNIT))
        while at < end:
            after = min(end, (at // BLOCK + 1) * BLOCK)
            yield at, after - at
            at = after
        done = max(done, end)
