"""Bytes of a disk and of its parts, with bounds on how many are read."""

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

PAGE: Final = 64 * 1024  # what is read at once
KEPT_PAGES: Final = 128
MOST_BYTES: Final = 192 * 1024 * 1024  # that are read from the disk in all
MOST_READS: Final = 300_000  # in all, those of kept pages too: no loop goes on without reading
MOST_AT_ONCE: Final = 4 * 1024 * 1024


class Unreadable(Exception):
    """These bytes make no sense as what they are read as; another part of the disk may."""


class Spent(Exception):
    """As much has been read as may be read."""


class Volume(Protocol):
    """Bytes with a size: a disk, a partition, a logical volume."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises `Unreadable` if they are not all within, `Spent` at the bounds."""
        ...


class Disk:
    """The whole disk: reads pages, keeps the last 8 MiB of them, and counts."""

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        size: int,
        *,
        most_bytes: int = MOST_BYTES,
        most_reads: int = MOST_READS,
    ) -> None:
        """`read_at(offset, n)` returns the `n` bytes there, or fewer where the file has no more."""
        self._read_at = read_at
        self._size = size
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self.bytes_left = most_bytes
        self.reads_left = most_reads

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        within(offset, length, self._size)
        self.reads_left -= 1
        if self.reads_left < 0:
            raise Spent
        first, last = offset // PAGE, (offset + max(length, 1) - 1) // PAGE
        pages = b"".join(self._page(number) for number in range(first, last + 1))
        start = offset - first * PAGE
        return pages[start : start + length]

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is not None:
            self._pages.move_to_end(number)
            return page
        length = min(PAGE, self._size - number * PAGE)
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise Spent
        page = self._read_at(number * PAGE, length).ljust(length, b"\0")
        self._pages[number] = page
        if len(self._pages) > KEPT_PAGES:
            self._pages.popitem(last=False)
        return page


class Part:
    """A stretch of a volume."""

    def __init__(self, whole: Volume, start: int, size: int) -> None:
        self._whole = whole
        self._start = start
        self._size = max(0, min(size, whole.size - start))

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        within(offset, length, self._size)
        return self._whole.read(self._start + offset, length)


class Stretch(NamedTuple):
    """Bytes of a file or of a logical volume that lie in one piece."""

    at: int  # within the file
    size: int
    place: int | None  # within the volume; None: zeros


class Joined:
    """A volume of stretches of other volumes, one after the other."""

    def __init__(self, pieces: list[tuple[Volume, int, int]]) -> None:
        """Each piece: a volume, the offset in it, the size."""
        self._pieces = pieces
        self._size = sum(size for _, _, size in pieces)

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        within(offset, length, self._size)
        parts = []
        for volume, start, size in self._pieces:
            if offset < size and length > 0:
                taken = min(length, size - offset)
                parts.append(volume.read(start + offset, taken))
                offset, length = 0, length - taken
            else:
                offset = max(0, offset - size)
        return b"".join(parts)


def within(offset: int, length: int, size: int) -> None:
    if offset < 0 or length < 0 or length > MOST_AT_ONCE or offset + length > size:
        raise Unreadable("outside of the volume")


def unpack(form: str, data: bytes, offset: int = 0) -> tuple[Any, ...]:
    """`struct.unpack_from`, for which bytes that lack are bytes that make no sense."""
    if offset < 0 or offset + struct.calcsize(form) > len(data):
        raise Unreadable("a structure is cut off")
    return struct.unpack_from(form, data, offset)


def number(form: str, data: bytes, offset: int = 0) -> int:
    return int(unpack(form, data, offset)[0])


def gathered(volume: Volume, stretches: list[Stretch], offset: int, length: int) -> bytes:
    """The bytes of a file whose `stretches` are in order; what no stretch covers is zeros."""
    parts: list[bytes] = []
    end = offset + length
    for stretch in stretches:
        if stretch.at + stretch.size <= offset:
            continue
        if stretch.at >= end or offset >= end:
            break
        if stretch.at > offset:
            parts.append(bytes(stretch.at - offset))
            offset = stretch.at
        taken = min(end, stretch.at + stretch.size) - offset
        if stretch.place is None:
            parts.append(bytes(taken))
        else:
            parts.append(volume.read(stretch.place + offset - stretch.at, taken))
        offset += taken
    if offset < end:
        parts.append(bytes(end - offset))
    return b"".join(parts)
