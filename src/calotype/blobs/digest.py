"""Digests of a file that is there, in one pass, with a copy of it on the way if wanted."""

import hashlib
import itertools
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.blobs.faults import storage_fault
from calotype.blobs.model import Digests
from calotype.blobs.sparse import READ_BYTES, Cancelled, Progress, clone, data_extents, written_pieces
from calotype.blobs.writer import write_all
from calotype.errors import JobCancelled, ObjectChanged

WAITING: Final = 2  # blocks that wait for a hash
ZERO_BLOCK: Final = bytes(READ_BYTES)


def digest_file(
    path: Path,
    *,
    hash_algorithm: str,
    copy_to: Path | None = None,
    sparse: bool = False,
    progress: Progress | None = None,
    cancelled: Cancelled | threading.Event | None = None,
) -> Digests:
    """Read a file once; return its size and digests, those of exactly the bytes that are in the copy.

    `copy_to` is made anew; not synced: publishing does that. Holes of the source are not read and stay holes; with
    `sparse`, other runs of zeros become holes too. `progress` is told the bytes done, after each block.
    Raises `JobCancelled` within a block of `cancelled`, `ObjectChanged` when the file becomes shorter meanwhile,
    `FileNotFoundError`, `NoSpace`, `Unavailable`; then there is no copy.
    """
    stop = cancelled.is_set if isinstance(cancelled, threading.Event) else cancelled
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if copy_to is None:
                return _digest(fd, -1, hash_algorithm, sparse, progress, stop)
            with _copy(copy_to) as target:
                if not sparse and clone(fd, target):
                    return _digest(target, -1, hash_algorithm, sparse, progress, stop)
                return _digest(fd, target, hash_algorithm, sparse, progress, stop)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_fault(error) from error


@contextmanager
def _copy(path: Path) -> Iterator[int]:
    path.unlink(missing_ok=True)
    target = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            yield target
        finally:
            os.close(target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _digest(
    source: int, target: int, hash_algorithm: str, sparse: bool, progress: Progress | None, stop: Cancelled | None
) -> Digests:
    """`target` is an empty file to write what was read to, or -1."""
    size = os.fstat(source).st_size
    os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    with _Hash("md5") as md5, _Hash(hash_algorithm) as other:
        for offset, block, is_hole in _blocks(source, size):
            if stop is not None and stop():
                raise JobCancelled("cancelled while the digests were computed")
            md5.update(block)
            other.update(block)
            if target >= 0 and not is_hole:
                for at, pieces in written_pieces([block], offset) if sparse else [(offset, [block])]:
                    write_all(target, pieces, at)
            if progress is not None:
                progress(offset + len(block))
        values = md5.value(), other.value()
    if target >= 0:
        os.ftruncate(target, size)
    return Digests(size=size, md5=values[0], hash_algorithm=hash_algorithm, hash_value=values[1])


def _blocks(fd: int, size: int) -> Iterator[tuple[int, memoryview, bool]]:
    """Yield (offset, bytes, whether they are a hole) of the whole file."""
    at = 0
    for offset, length in itertools.chain(data_extents(fd, size), [(size, 0)]):
        while at < offset:
            n = min(READ_BYTES, offset - at)
            yield at, memoryview(ZERO_BLOCK)[:n], True
            at += n
        while at < offset + length:
            block = os.pread(fd, min(READ_BYTES, offset + length - at), at)
            if not block:
                raise ObjectChanged("the file became shorter while it was read")
            yield at, memoryview(block), False
            at += len(block)


class _Hash:
    """A hash in a thread of its own. Leaving the context ends the thread."""

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._blocks: queue.Queue[memoryview | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name=f"digest-{algorithm}", daemon=True)

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)

    def update(self, block: memoryview) -> None:
        self._blocks.put(block)

    def value(self) -> str:
        """The digest of all blocks; there can be no more."""
        self._end()
        return self._hash.hexdigest()

    def __enter__(self) -> "_Hash":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()
