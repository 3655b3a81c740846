"""From guest bytes to compressed ones: one thread reads and writes, others compress, and what waits is bounded.

At most 24 blocks of 1 MiB are in flight, as they are or packed, and 8 that a `GuestDisk` takes ahead: 32 MiB, and what
those are packed to that are being packed, 8 more.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

from calotype.disks.writers.deflate import Deflate
from calotype.disks.writers.guest_bytes import UNIT, GuestDisk, blocks
from calotype.errors import JobCancelled

MOST_THREADS: Final = 8
IN_FLIGHT: Final = 24  # blocks: enough to go on while one of the threads waits for a core
ZEROS: Final = bytes(UNIT)

Units = Sequence[bytes | None]  # packed, one after the other; None: nothing but zeros
Progress = Callable[[int], None]  # bytes of the disk that are done
Cancelled = Callable[[], bool]


def threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def packed(
    disk: GuestDisk, deflate: Deflate, *, progress: Progress, cancelled: Cancelled
) -> Iterator[tuple[int, Units]]:
    """Yield the number of a unit, then it and those that follow it packed; in order, without most of the zero ones.

    The last unit of the disk is filled up with zeros. Raises `JobCancelled` once `cancelled` says so, between blocks,
    and what the disk raises; no thread is left then.
    """
    waiting = deque[tuple[int, int, Future[Units]]]()

    def first() -> tuple[int, Units]:
        start, length, result = waiting.popleft()
        units = result.result()
        progress(start + length)
        return start // UNIT, units

    with ThreadPoolExecutor(threads(), thread_name_prefix="deflate") as pool:
        try:
            for start, data in disk.read(blocks(disk.extents(), disk.size)):
                if cancelled():
                    raise JobCancelled("cancelled while the disk was compressed")
                waiting.append((start, len(data), pool.submit(partial(_packed, data, deflate))))
                while waiting and (len(waiting) == IN_FLIGHT or waiting[0][2].done()):
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(cancel_futures=True)


def _packed(data: bytes | bytearray, deflate: Deflate) -> Units:
    units: list[bytes | None] = []
    for at in range(0, len(data), UNIT):
        unit = data[at : at + UNIT]
        if len(unit) < UNIT:
            unit = unit.ljust(UNIT, b"\0")
        units.append(None if unit == ZEROS else deflate(unit))
    return units
