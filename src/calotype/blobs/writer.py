"""Writing a new file from front to back, with holes for zeros, and past the page cache where it is large.

Past the page cache (O_DIRECT): an uploaded image is often larger than the memory and not read again soon; keeping its
pages would cost the kernel as much as a hash costs us, and push out what others read. The sync at the end then has
nothing left to write.
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from typing import Final

from calotype.blobs.sparse import Piece, written_pieces

ALIGNED: Final = 4096  # what every disk and file system with direct writes is content with
BUFFER_BYTES: Final = 1024 * 1024  # of one direct write, while it lasts
LEAST_DIRECT_BYTES: Final = 256 * 1024  # smaller writes, as of a slow client, are the page cache's to gather
MOST_PIECES: Final = 1024  # of one system call (IOV_MAX)


class DirectBuffers(threading.local):
    """For each thread that writes past the page cache, the aligned memory that it writes from."""

    def __init__(self) -> None:
        self.buffer = mmap.mmap(-1, BUFFER_BYTES)


class FileWriter:
    """Writes to the open empty file `fd`, which stays the caller's. `sparse`: runs of zeros of 64 KiB become holes.
    `direct`: past the page cache. Used by one thread at a time. Raises `OSError`; not synced."""

    def __init__(self, fd: int, *, sparse: bool, direct: DirectBuffers | None = None) -> None:
        self._fd = fd
        self._sparse = sparse
        self._buffers = direct
        self._may_be_direct = direct is not None
        self._is_direct = False
        self._at = 0  # where `_rest` goes; aligned
        self._rest = b""  # of what was given, the end that is not aligned

    def write(self, pieces: Sequence[Piece]) -> None:
        given = [self._rest, *pieces] if self._rest else pieces
        size = sum(map(len, given))
        body, self._rest = _split(given, size - size % ALIGNED)
        start, self._at = self._at, self._at + size - size % ALIGNED
        if not self._sparse:
            self._write(body, start)
            return
        for offset, run in written_pieces(body, start):
            self._write(run, offset)

    def finish(self) -> None:
        """Write the rest, and give the file its length: it may end in a hole."""
        self._be_direct(False)
        if self._rest:
            write_all(self._fd, [self._rest], self._at)
        os.ftruncate(self._fd, self._at + len(self._rest))

    def _write(self, pieces: Sequence[Piece], offset: int) -> None:
        size = sum(map(len, pieces))
        if self._buffers is None or not self._be_direct(self._may_be_direct and size >= LEAST_DIRECT_BYTES):
            write_all(self._fd, pieces, offset)
            return
        try:
            _write_direct(self._fd, self._buffers.buffer, pieces, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._may_be_direct = False  # wants another alignment, or cannot after all
            self._be_direct(False)
            write_all(self._fd, pieces, offset)

    def _be_direct(self, wanted: bool) -> bool:
        if wanted != self._is_direct:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            try:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._may_be_direct = False  # a file system in memory, for one, has no other place than it
                return False
            self._is_direct = wanted
        return wanted


def _split(pieces: Sequence[Piece], at: int) -> tuple[Sequence[Piece], bytes]:
    """The first `at` bytes, without copying, and the few after them."""
    body: list[Piece] = []
    for index, piece in enumerate(pieces):
        if len(piece) > at:
            view = memoryview(piece)
            if at:
                body.append(view[:at])
            return body, b"".join([view[at:], *pieces[index + 1 :]])
        body.append(piece)
        at -= len(piece)
    return body, b""


def _write_direct(fd: int, buffer: mmap.mmap, pieces: Sequence[Piece], offset: int) -> None:
    have = 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            part = view[: BUFFER_BYTES - have]
            buffer[have : have + len(part)] = part
            have += len(part)
            view = view[len(part) :]
            if have == BUFFER_BYTES:
                write_all(fd, [memoryview(buffer)], offset)
                offset, have = offset + have, 0
    if have:
        write_all(fd, [memoryview(buffer)[:have]], offset)


def write_all(fd: int, pieces: Sequence[Piece], offset: int) -> None:
    """Write `pieces` one after the other from `offset` on."""
    for first in range(0, len(pieces), MOST_PIECES):
        some = pieces[first : first + MOST_PIECES]
        wanted = sum(map(len, some))
        written = os.pwritev(fd, some, offset)
        if written < wanted:  # rare: a signal, or a disk that is nearly full and says so at the next call
            rest = memoryview(b"".join(some))[written:]
            while rest:
                rest = rest[os.pwrite(fd, rest, offset + wanted - len(rest)) :]
        offset += wanted
