"""The bytes that a guest sees, and where on the disk there are any."""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Final, Protocol, Self

from calotype.disks.formats.reader import SECTOR, rounded_up
from calotype.disks.model import Window
from calotype.errors import ConversionFailed

UNIT: Final = 64 * 1024  # what both formats compress at once: a grain, a cluster
BLOCK: Final = 16 * UNIT  # what is read at once

Place = tuple[int, int]  # first byte, how many


class GuestDisk(Protocol):
    """A disk to be read once, from its start to its end. Two real ones: `RawDisk`, and `NbdDisk` for all else."""

    @property
    def size(self) -> int:
        """In bytes; a multiple of 512."""
        ...

    def extents(self) -> Iterator[Place]:
        """Where there may be data, in order, none twice; what lies between reads as zeros."""
        ...

    def read(self, places: Iterable[Place]) -> Iterator[tuple[int, bytes | bytearray]]:
        """Yield the bytes of each place, which is of at most `BLOCK` bytes, with its start; in the order given.

        Takes a bounded number of places ahead. Raises `ConversionFailed` where the image cannot be read.
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
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self._descriptor, self._start + at, os.SEEK_DATA) - self._start
                end = os.lseek(self._descriptor, self._start + start, os.SEEK_HOLE) - self._start
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data from here on
                    return
                raise
            if start >= self.size:
                return
            at = min(end, self.size)
            yield start, at - start

    def read(self, places: Iterable[Place]) -> Iterator[tuple[int, bytes | bytearray]]:
        for start, length in places:
            yield start, self._exactly(start, length)

    def _exactly(self, start: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, self._start + start)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), self._start + start + len(data))
                if not more:
                    return data.ljust(length, b"\0")
                data += more
        except OSError as error:
            raise ConversionFailed(f"the image cannot be read at byte {start} of the disk") from error
        return data

    def interrupt(self) -> None:
        """A file's reads end by themselves."""


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
