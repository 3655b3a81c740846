"""Streams of files: the right bytes, and a descriptor that is closed whatever happens."""

import asyncio
import os
from pathlib import Path

import pytest

from calotype.blobs.download import CHUNK_BYTES, stream
from calotype.blobs.local import BlobReader
from calotype.errors import ObjectChanged


def reader_of(path: Path, data: bytes) -> BlobReader:
    path.write_bytes(data)
    return BlobReader(os.open(path, os.O_RDONLY), len(data))


def is_closed(reader: BlobReader) -> bool:
    return reader.fileno() == -1


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (0, 1), (0, 3 * CHUNK_BYTES + 5), (7, CHUNK_BYTES), (CHUNK_BYTES - 1, 2), (3 * CHUNK_BYTES + 4, 1)],
)
async def test_a_stream_is_the_asked_bytes_and_closes_its_file(tmp_path: Path, start: int, length: int) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 5)
    reader = reader_of(tmp_path / "f", data)

    chunks = [chunk async for chunk in stream(reader, start, length)]

    assert b"".join(chunks) == data[start : start + length]
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert is_closed(reader)


async def test_a_client_that_leaves_closes_the_file(tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "f", bytes(3 * CHUNK_BYTES))
    chunks = stream(reader, 0, reader.size)

    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert is_closed(reader)


async def test_a_cancelled_read_closes_the_file_when_the_thread_is_done(tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "f", bytes(2 * CHUNK_BYTES))

    async def download() -> None:
        async for _ in stream(reader, 0, reader.size):
            pass

    task = asyncio.create_task(download())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not is_closed(reader):  # noqa: ASYNC110 - a thread is waited for, which has no event to tell
        await asyncio.sleep(0)

    assert is_closed(reader)


async def test_a_stream_that_nobody_began_leaks_nothing(tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "f", b"bytes")
    fd = reader.fileno()

    chunks = stream(reader, 0, 5)
    del chunks, reader

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_a_file_that_became_shorter_cuts_the_stream(tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "f", bytes(1000))
    (tmp_path / "f").write_bytes(bytes(10))

    with pytest.raises(ObjectChanged):
        [chunk async for chunk in stream(reader, 0, 1000)]

    assert is_closed(reader)
