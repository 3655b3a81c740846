"""Whether two disks hold the same bytes, asked only where either has data."""

from heapq import merge
from itertools import tee
from typing import Final

from calotype.disks.writers.guest_bytes import Bytes, GuestDisk, blocks
from calotype.disks.writers.pipeline import Cancelled, Progress
from calotype.errors import JobCancelled, VerificationFailed

AHEAD: Final = 4  # blocks of each disk that are read ahead


def same(one: GuestDisk, other: GuestDisk, *, progress: Progress, cancelled: Cancelled) -> None:
    """Return if they do. For a thread. At most 10 MiB are in memory.

    Raises `VerificationFailed`, `JobCancelled`, and what the disks raise.
    """
    if one.size != other.size:
        raise VerificationFailed("the result does not have the same virtual size as the image")
    places, again = tee(blocks(merge(one.extents(), other.extents()), one.size))
    pieces = zip(one.read(places, _ahead), other.read(again, _ahead), strict=True)
    for (start, length, load), (_, _, load_other) in pieces:
        if cancelled():
            raise JobCancelled("cancelled while the result was compared with the image")
        data, other_data = load(), load_other()
        if data != other_data:
            place = start + _first_difference(data, other_data)
            raise VerificationFailed(
                f"the result does not hold the same bytes as the image, first at byte {place} of the disk"
            )
        progress(start + length)


def _ahead() -> int:
    return AHEAD


def _first_difference(one: Bytes, other: Bytes) -> int:
    return next(at for at, (byte, other_byte) in enumerate(zip(one, other, strict=True)) if byte != other_byte)
