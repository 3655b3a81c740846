"""The digest that a file in a bucket is expected to have, as whoever sends it knows it: of the bytes as they lie there,
before anything is unpacked or converted. What is made of other bytes is never published."""

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from calotype.blobs.faults import storage_fault
from calotype.blobs.local import BlobReader
from calotype.blobs.threads import to_the_end
from calotype.errors import DigestMismatch, JobCancelled, MalformedBody

FORM: Final = re.compile(r"(?:(sha256):([0-9a-fA-F]{64})|(sha512):([0-9a-fA-F]{128}))")
READ_BYTES: Final = 4 * 1024 * 1024


def source_digest(text: str) -> str:
    """`sha256:<64 hex>` or `sha512:<128 hex>`, in lower case. Raises `MalformedBody`."""
    if not FORM.fullmatch(text):
        raise MalformedBody("source_digest: wants sha256:<64 hexadecimal digits> or sha512:<128 hexadecimal digits>")
    return text.lower()


def check(file: Path | BlobReader, expected: str, *, cancelled: threading.Event) -> None:
    """Read the file once. Raises `DigestMismatch`, `JobCancelled` within 4 MiB."""
    algorithm = expected.partition(":")[0]
    found = hashlib.new(algorithm)
    try:
        with _opened(file) as reader:
            at = 0
            while block := reader.read_at(at, READ_BYTES):
                if cancelled.is_set():
                    raise JobCancelled("cancelled while the digest of the source was computed")
                found.update(block)
                at += len(block)
    except OSError as error:
        raise storage_fault(error) from error
    check_equal(algorithm, found.hexdigest(), expected)


def _opened(file: Path | BlobReader) -> BlobReader:
    if isinstance(file, BlobReader):
        return file
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return BlobReader(fd, os.fstat(fd).st_size)


def check_equal(algorithm: str, value: str, expected: str) -> None:
    """Raises `DigestMismatch`."""
    if f"{algorithm}:{value}" != expected:
        raise DigestMismatch(f"the file has the digest {algorithm}:{value}, not {expected}")


@asynccontextmanager
async def checked(path: Path | BlobReader, expected: str | None) -> AsyncIterator[None]:
    """Check the digest of a file while it is worked on: what is done within is not to be used before this has ended
    well. Both read the same bytes, once from the disk. None: nothing is expected.

    Raises `DigestMismatch` as soon as both are done; an error within goes first.
    """
    if expected is None:
        yield
        return
    stop = threading.Event()
    reading = asyncio.ensure_future(to_the_end(partial(check, path, expected, cancelled=stop)))
    try:
        yield
        await asyncio.wait({reading})
        reading.result()
    finally:
        if not reading.done():
            stop.set()
            await asyncio.wait({reading})
        if not reading.cancelled():
            reading.exception()  # looked at: what went wrong within is what is told
