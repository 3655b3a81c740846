"""Holes: finding zeros in bytes that pass, and holes in files that are there."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from calotype.errors import JobCancelled, ObjectChanged

HOLE_BYTES: Final = 64 * 1024  # the smallest run of zeros that becomes a hole; holes are aligned to it
ZEROS: Final = bytearray(HOLE_BYTES)  # a bytearray: only that compares with any buffer by memcmp
FICLONE: Final = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)
COPY_BYTES: Final = 64 * 1024 * 1024  # of one copy_file_range call, so that a copy can be stopped
READ_BYTES: Final = 4 * 1024 * 1024
NO_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})

Piece = bytes | bytearray | memoryview
Progress = Callable[[int], None]
Cancelled = Callable[[], bool]


def written_pieces(pieces: Sequence[Piece], start: int) -> Iterator[tuple[int, list[memoryview]]]:
    """What of `pieces`, which begin at the offset `start` of a file, must be written so that runs of zeros are holes.

    Yields (offset, pieces that follow each other), in order. A run at either end that only a later or earlier block
    could show to be zero is written.
    """
    run: list[memoryview] = []
    run_at = offset = start
    for segment, size in _segments(pieces, start):
        if size == HOLE_BYTES and all(_is_zero(part) for part in segment):
            if run:
                yield run_at, run
            run, run_at = [], offset + size
        else:
            run += segment
        offset += size
    if run:
        yield run_at, run


def _is_zero(part: memoryview) -> bool:
    zeros = ZEROS if len(part) == HOLE_BYTES else ZEROS[: len(part)]
    return zeros == part  # in this order: a memoryview on the left would compare byte by byte


def _segments(pieces: Sequence[Piece], start: int) -> Iterator[tuple[list[memoryview], int]]:
    """Cut at the multiples of HOLE_BYTES of the file; a segment may span pieces."""
    parts: list[memoryview] = []
    size = 0
    room = HOLE_BYTES - start % HOLE_BYTES
    for piece in pieces:
        view = memoryview(piece)
        at = 0
        while at < len(view):
            part = view[at : at + room - size]
            parts.append(part)
            size += len(part)
            at += len(part)
            if size == room:
                yield parts, size
                parts, size, room = [], 0, HOLE_BYTES
    if parts:
        yield parts, size


def data_extents(fd: int, size: int, *, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of all in the first `size` bytes of a file, from `start` on, that is no hole, in order.

    Moves the file's position. A file system that knows no holes has one extent.
    """
    at = start
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.EINVAL:
                yield at, size - at
            elif error.errno != errno.ENXIO:  # ENXIO: nothing but a hole from here on
                raise
            return
        if begin >= size:
            return
        yield begin, min(end, size) - begin
        at = end


def clone(source: int, target: int) -> bool:
    """Make the open file `target` share the blocks of `source`, where the file system can; say whether it did."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in NO_CLONE:
            return False
        raise
    return True


def copy(
    source: int,
    target: int,
    size: int,
    *,
    start: int = 0,
    block_bytes: int = COPY_BYTES,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> None:
    """Make the empty open file `target` equal to the `size` bytes of `source` from `start` on: sharing blocks where it
    can be, else copied inside the kernel; holes stay holes. `cancelled` is asked before each block.

    Raises `ObjectChanged` when the source is shorter, `JobCancelled`.
    """
    if start == 0 and os.fstat(source).st_size == size and clone(source, target):
        if progress is not None:
            progress(size)
        return
    os.ftruncate(target, size)
    for offset, length in data_extents(source, start + size, start=start):
        at, end = offset, offset + length
        while at < end:
            if cancelled is not None and cancelled():
                raise JobCancelled("cancelled while copying")
            at += _copy_some(source, target, at, at - start, min(block_bytes, end - at))
            if progress is not None:
                progress(at - start)
    if progress is not None:
        progress(size)


def _copy_some(source: int, target: int, at: int, to: int, n: int) -> int:
    try:
        copied = os.copy_file_range(source, target, n, at, to)
    except OSError as error:
        if error.errno not in NO_CLONE:
            raise
        copied = os.pwrite(target, os.pread(source, min(n, READ_BYTES), at), to)
    if not copied:
        raise ObjectChanged("the source became shorter while it was read")
    return copied
