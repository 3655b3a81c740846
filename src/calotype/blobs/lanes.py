"""What is done to the blocks of an upload, each thing in a thread of its own while there is work for it."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from calotype.blobs.sparse import Piece

SYNC_EVERY_BYTES: Final = 64 * 1024 * 1024  # so that the sync at the end is short

Work = Callable[[list[Piece]], None]


class Block:
    """Bytes that follow each other. `left`: how many lanes have not done it yet."""

    __slots__ = ("left", "pieces", "size")

    def __init__(self, pieces: list[Piece], size: int, lanes: int) -> None:
        self.pieces = pieces
        self.size = size
        self.left = lanes


class Lane:
    """Does one thing to every block of an upload, in order, in whichever of the threads is free. `perform` raises
    nothing."""

    def __init__(self, perform: Callable[[Block], None], threads: ThreadPoolExecutor) -> None:
        self._perform = perform
        self._threads = threads
        self._blocks: deque[Block] = deque()
        self._lock = threading.Lock()
        self._running = False

    def put(self, block: Block) -> None:
        with self._lock:
            self._blocks.append(block)
            if self._running:
                return
            self._running = True
        self._threads.submit(self._run)

    def _run(self) -> None:
        self._perform(self._blocks.popleft())
        with self._lock:
            self._running = bool(self._blocks)
            if self._running:  # behind the other uploads: none keeps a thread for itself
                self._threads.submit(self._run)


def hashing(hash_: "hashlib._Hash") -> Work:
    def update(pieces: list[Piece]) -> None:
        for piece in pieces:
            hash_.update(piece)

    return update


def syncing(fd: int) -> Work:
    """Bring what was written to the disk while more arrives: a sync at the end of many gigabytes would keep others
    waiting, and the memory that they take."""
    unsynced = 0

    def sync(pieces: list[Piece]) -> None:
        nonlocal unsynced
        unsynced += sum(map(len, pieces))
        if unsynced >= SYNC_EVERY_BYTES:
            unsynced = 0
            os.fdatasync(fd)

    return sync
