"""Bytes that leave: one way for whole files and ranges, of images and objects alike."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from calotype.blobs.local import BlobReader
from calotype.errors import ObjectChanged, RangeNotSatisfiable

CHUNK_BYTES: Final = 1024 * 1024  # one chunk of a download is in memory
UNIT: Final = "bytes="
SINGLE: Final = re.compile(r"[ \t]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t]*")
MOST_DIGITS: Final = 19  # more than any size has; int() refuses thousands


async def stream(reader: BlobReader, start: int, length: int) -> AsyncIterator[bytes]:
    """Yield `length` bytes from offset `start`, in chunks, and close the reader, whatever happens.

    Raises `ObjectChanged` when the file has become shorter: the status is sent, so that only the connection can be cut.
    """
    loop = asyncio.get_running_loop()
    end = start + length
    reading: asyncio.Future[bytes] | None = None
    try:
        while start < end:
            reading = loop.run_in_executor(None, reader.read_at, start, min(CHUNK_BYTES, end - start))
            chunk = await asyncio.shield(reading)
            reading = None
            if not chunk:
                raise ObjectChanged("the file became shorter while it was read")
            start += len(chunk)
            yield chunk
    finally:
        if reading is None or reading.done():
            reader.close()
        else:  # cancelled while a thread reads: the descriptor's number must not be another file's before it is done
            reading.add_done_callback(lambda _done: reader.close())


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last offset that a `Range` header asks for, or None when the whole is to be sent.

    RFC 9110, section 14: a header that is malformed, of another unit or of several ranges may be ignored, and is.
    Raises `RangeNotSatisfiable` when the range is well-formed and no byte of the `size` bytes is in it.
    """
    if header is None or header[: len(UNIT)].lower() != UNIT:
        return None
    asked = SINGLE.fullmatch(header[len(UNIT) :])
    if asked is None:
        return None
    first, last = _number(asked["first"]), _number(asked["last"])
    if first is None:
        if last is None:
            return None
        if last == 0:
            raise RangeNotSatisfiable(size)
        return (max(0, size - last), size - 1) if size else None  # the last n bytes of nothing are all of it
    if last is not None and last < first:
        return None
    if first >= size:
        raise RangeNotSatisfiable(size)
    return first, size - 1 if last is None else min(last, size - 1)


def _number(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= MOST_DIGITS else 10**MOST_DIGITS
