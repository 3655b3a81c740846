"""From guest bytes to compressed ones: one thread for each disk reads and writes, others, that all disks share, unpack
and compress; and what waits is bounded.

At most 24 blocks of 1 MiB are in flight, as they are or packed, and 8 that a `GuestDisk` takes ahead: 32 MiB, and what
those are packed to that are being packed, 8 more. Disks that are written at once share these; each has one of either.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Final

from calotype.disks.writers.compression import Compress
from calotype.disks.writers.guest_bytes import UNIT, Bytes, GuestDisk, Load, blocks
from calotype.errors import JobCancelled

MOST_THREADS: Final = 8
IN_FLIGHT: Final = 24  # blocks: enough to go on while one of the threads waits for a core
AHEAD: Final = 8  # blocks
ZEROS: Final = bytes(UNIT)

Units = Sequence[bytes | None]  # packed, one after the other; None: nothing but zeros
Progress = Callable[[int], None]  # bytes of the disk that are done
Cancelled = Callable[[], bool]


class Crew:
    """The threads that compress, one a core, and how much each disk that is being written may keep in memory.

    They start when there is something to do, and end with the crew.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="compress")
        self._lock = threading.Lock()
        self._disks = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this is open, what may be in memory is shared with one disk more."""
        with self._lock:
            self._disks += 1
        try:
            yield
        finally:
            with self._lock:
                self._disks -= 1

    def in_flight(self) -> int:
        """Blocks that one disk may have in the threads' hands, or waiting to be written."""
        return max(1, IN_FLIGHT // max(1, self._disks))

    def ahead(self) -> int:
        """Blocks that may be read ahead of one disk."""
        return max(1, AHEAD // max(1, self._disks))

    def submit(self, work: Callable[[], Units]) -> "Future[Units]":
        return self._pool.submit(work)


def packed(
    disk: GuestDisk, compress: Compress, crew: Crew, *, progress: Progress, cancelled: Cancelled
) -> Iterator[tuple[int, Units]]:
    """Yield the number of a unit, then it and those that follow it packed; in order, without most of the zero ones.

    The last unit of the disk is filled up with zeros. Raises `JobCancelled` once `cancelled` says so, between blocks,
    and what the disk raises; no thread is busy with this disk then.
    """
    waiting = deque[tuple[int, int, Future[Units]]]()

    def first() -> tuple[int, Units]:
        start, length, result = waiting[0]
        units = result.result()
        waiting.popleft()
        progress(start + length)
        return start // UNIT, units

    with crew.working():
        try:
            for start, length, load in disk.read(blocks(disk.extents(), disk.size), crew.ahead):
                if cancelled():
                    raise JobCancelled("cancelled while the disk was compressed")
                waiting.append((start, length, crew.submit(partial(_packed, load, compress))))
                while waiting and (len(waiting) >= crew.in_flight() or waiting[0][2].done()):
                    yield first()
            while waiting:
                yield first()
        finally:
            wait([result for _, _, result in waiting if not result.cancel()])


def _packed(load: Load, compress: Compress) -> Units:
    data: Bytes = load()
    units: list[bytes | None] = []
    for at in range(0, len(data), UNIT):
        unit = data[at : at + UNIT]
        if len(unit) < UNIT:
            unit = unit.ljust(UNIT, b"\0")
        units.append(None if unit == ZEROS else compress(unit))
    return units
