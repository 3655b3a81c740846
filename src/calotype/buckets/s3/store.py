"""A bucket on an S3 server: an object is the object at the bucket's prefix and its key.

What jobs and the API ask of `buckets.folder.FolderStore`, they ask of this. Everything here waits for the network: call
it in a thread. Any number of threads and processes may do so at once.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from starlette.requests import ClientDisconnect

from calotype.blobs.faults import storage_fault
from calotype.blobs.sparse import Cancelled, Progress, written_pieces
from calotype.blobs.threads import to_the_end
from calotype.blobs.writer import write_all
from calotype.buckets.address import object_key
from calotype.buckets.model import ObjectInfo, ObjectKey, ObjectPage
from calotype.buckets.s3.listing import MOST_KEYS, info_of, listed
from calotype.buckets.s3.reading import S3Object, ranges
from calotype.buckets.s3.uploads import (
    MOST_PARTS,
    PART_BYTES,
    UNKNOWN_PART_BYTES,
    Notes,
    Upload,
    expected_etag,
    part_bytes,
    put_whole,
)
from calotype.buckets.s3.wire import Wire
from calotype.errors import (
    BucketReadOnly,
    DigestMismatch,
    ImageTooLarge,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    UploadCut,
    VerificationFailed,
)

MOST_PAGES: Final = 20  # of the server, for one of ours: where it has many keys that are none here
SENT_AT_ONCE: Final = 3  # parts of one file; with parts of 8 MiB, 24 MiB are in memory


class S3Store:
    """Raises `Unavailable` when the server is away, `BucketDenied` when it refuses, `BucketNotFound` when it has no
    such bucket, and the leaves of `InvalidObjectKey` for a key that is none, before it asks anything."""

    owned: Final = False

    def __init__(self, wire: Wire, *, bucket: str, notes: Notes, read_only: bool) -> None:
        self.bucket = bucket
        self.read_only = read_only
        self.wire = wire
        self._notes = notes

    # --- reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether there is a place to ask; what is there, each call finds out for itself."""
        return True

    def stat(self, key: str) -> ObjectInfo:
        """Raises `ObjectNotFound`."""
        key = object_key(key)
        try:
            return info_of(self.wire, key, self.wire.request("HEAD", key))
        except ObjectNotFound:
            listed(self.wire, prefix=key, after="", limit=1)  # a HEAD does not tell a bucket that is missing
            raise

    def open(self, key: str) -> tuple[ObjectInfo, S3Object]:
        """What is known of an object, and its bytes. Raises `ObjectNotFound`."""
        info = self.stat(key)
        return info, S3Object(self.wire, info)

    def hold(self, key: str, expected_etag: str) -> S3Object:
        """The version `expected_etag` of an object. Raises `ObjectNotFound`, `ObjectChanged`."""
        info = self.stat(key)
        if info.etag != expected_etag:
            raise ObjectChanged(f"object {self.bucket}:{key} was changed meanwhile")
        return S3Object(self.wire, info)

    def page(self, *, prefix: str = "", marker: str = "", limit: int = MOST_KEYS) -> ObjectPage:
        """The first `limit` objects, 1000 at most, whose keys begin with `prefix` and come after `marker`. Fewer, and a
        marker, where the server has tens of thousands of keys between them that are none here."""
        limit = max(1, min(limit, MOST_KEYS))
        found: list[ObjectInfo] = []
        for _ in range(MOST_PAGES):
            entries, are_more = listed(self.wire, prefix=prefix, after=marker, limit=min(limit + 1, MOST_KEYS))
            for entry in entries:
                if entry.info is not None:
                    if len(found) == limit:
                        return ObjectPage(objects=found, next_marker=found[-1].key)
                    found.append(entry.info)
                marker = entry.key
            if not are_more or not entries:
                return ObjectPage(objects=found, next_marker=None)
        return ObjectPage(objects=found, next_marker=ObjectKey(marker))

    def snapshot(
        self,
        key: str,
        target: Path,
        expected_etag: str,
        *,
        part: tuple[int, int] | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> bool:
        """As `FolderStore.snapshot`: `target` holds the object's bytes, or just the `part`. Never a link."""
        self.fetch(key, target, expected_etag, part=part, progress=progress, cancelled=cancelled)
        return False

    def fetch(
        self,
        key: str,
        target: Path,
        expected_etag: str,
        *,
        part: tuple[int, int] | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> str:
        """Write an object, or a `part` of it (offset and length), to `target`, made anew; return the MD5 of what came.
        Runs of zeros are holes. While the server is away it is tried again, from where it was, for the bucket's
        `patience_s`. `progress` is told the bytes done.

        `target` is there only when it is whole, also after a kill. Not synced. Raises `ObjectNotFound`,
        `ObjectChanged`, `JobCancelled`, `NoSpace`; then there is no `target`.
        """
        target.unlink(missing_ok=True)
        growing = target.with_name(f"{target.name}.part")
        growing.unlink(missing_ok=True)
        with self.hold(key, expected_etag) as held:
            start, length = part or (0, held.size)
            if start + length > held.size:
                raise ObjectChanged(f"object {self.bucket}:{key} was changed meanwhile")
        try:
            fd = os.open(growing, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                digest = self._written(held.info, fd, start, length, progress, cancelled)
            finally:
                os.close(fd)
            growing.rename(target)
        except BaseException as error:
            growing.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise storage_fault(error) from error
            raise
        return digest

    def _written(
        self,
        info: ObjectInfo,
        fd: int,
        start: int,
        length: int,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with ExitStack() as closing:
            coming = ranges(self.wire, info, start, length, cancelled=cancelled)
            closing.callback(coming.close)  # type: ignore[attr-defined]  # it is a generator
            for at, block in coming:
                digest.update(block)
                for to, pieces in written_pieces([block], at - start):
                    write_all(fd, pieces, to)
                if progress is not None:
                    progress(at - start + len(block))
        os.ftruncate(fd, length)
        return digest.hexdigest()

    # --- writing ------------------------------------------------------------------------------------------------------

    def check_put(self, key: str, *, exclusive: bool) -> None:
        """Whether an object could be put now: to be known before its bytes are read.

        Raises `BucketReadOnly`, `ObjectExists` for an exclusive one.
        """
        self.check_writable()
        object_key(key)
        if exclusive:
            self._check_free(key)

    def put_file(self, source: Path, key: str, *, exclusive: bool, token: str = "") -> ObjectInfo:
        """Make the bytes of `source`, which nobody changes any more, an object; it is as durable as the server makes
        it, and was compared with `source` by its size and digest, or byte for byte where the server tells no digest.

        Running it again after a stop at any point ends in the same place: an object that is there already, and is
        equal to `source`, is no `ObjectExists`. Two that put the same key at the same moment: an exclusive one of more
        than 8 MiB sees the other only up to its last look, where the server knows no conditions on uploads in parts.
        Raises also `BucketReadOnly`, `VerificationFailed`.
        """
        self.check_put(key, exclusive=False)
        if exclusive:
            try:
                self._check_free(key)
            except ObjectExists:
                return self._equal_one(source, key)
        try:
            expected = self._sent(source, key, exclusive=exclusive)
        except ObjectExists:
            return self._equal_one(source, key)
        info = self.stat(key)
        if info.etag != expected and not self._is_equal(info, source):
            raise VerificationFailed(f"what bucket {self.bucket} has at {key} is not what was sent")
        return info

    def _sent(self, source: Path, key: str, *, exclusive: bool) -> str:
        """The etag that the object has where etags are made as AWS makes them."""
        with source.open("rb") as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            if size <= PART_BYTES:
                data = os.pread(fd, PART_BYTES, 0)
                put_whole(self.wire, key, data, exclusive=exclusive)
                return expected_etag([hashlib.md5(data, usedforsecurity=False).digest()], in_parts=False)
            upload = Upload(self.wire, key, self._notes)
            length = part_bytes(size)
            with upload.aborted_on_error():
                upload.begin()
                stop = threading.Event()

                def send(number: int, at: int) -> None:
                    data = os.pread(fd, length, at)
                    self.wire.patiently(lambda: upload.send(number, data), stop)

                threads = ThreadPoolExecutor(SENT_AT_ONCE, thread_name_prefix="s3-send")
                try:
                    sent = [threads.submit(send, number, at) for number, at in enumerate(range(0, size, length), 1)]
                    for one in sent:
                        one.result()
                finally:
                    stop.set()
                    threads.shutdown(wait=True, cancel_futures=True)
                if exclusive:
                    self._check_free(key)
                upload.complete(exclusive=exclusive)
            return upload.expected

    def _equal_one(self, source: Path, key: str) -> ObjectInfo:
        """What is there, if it is equal to `source`. Raises `ObjectExists`."""
        info = self.stat(key)
        if not self._is_equal(info, source):
            raise ObjectExists(self.bucket, key)
        return info

    def _is_equal(self, info: ObjectInfo, source: Path) -> bool:
        with source.open("rb") as file, ExitStack() as closing:
            if os.fstat(file.fileno()).st_size != info.size:
                return False
            coming = ranges(self.wire, info, 0, info.size)
            closing.callback(coming.close)  # type: ignore[attr-defined]  # it is a generator
            return all(os.pread(file.fileno(), len(block), at) == block for at, block in coming)

    async def put(
        self,
        chunks: AsyncIterable[bytes],
        key: str,
        *,
        exclusive: bool,
        most_bytes: int,
        idle_s: float,
        announced: int | None = None,
        expected_md5: str | None = None,
    ) -> ObjectInfo:
        """Store an object from bytes that arrive, all or nothing. Two parts are in memory. What can be refused is to be
        refused before, with `check_put`.

        Raises `ObjectExists`, `DigestMismatch`, `UploadCut`, and `ImageTooLarge` at the first byte past `most_bytes`,
        or, where nobody announced how many bytes would come, past 156 GiB.
        """
        length = UNKNOWN_PART_BYTES if announced is None else part_bytes(announced)
        if announced is None:
            most_bytes = min(most_bytes, length * MOST_PARTS)
        upload: Upload | None = None
        digest, number = hashlib.md5(usedforsecurity=False), 0
        try:
            async for block, is_last in _blocks(chunks, length, most_bytes, idle_s, announced):
                await asyncio.to_thread(digest.update, block)
                if is_last:
                    _check_digest(digest.hexdigest(), expected_md5)
                if is_last and upload is None:
                    await to_the_end(lambda block=block: put_whole(self.wire, key, block, exclusive=exclusive))
                    break
                if upload is None:
                    upload = Upload(self.wire, key, self._notes)
                    await to_the_end(upload.begin)
                number += 1
                if block:
                    await to_the_end(upload.send, number, block)
            if upload is not None:
                if exclusive:
                    await asyncio.to_thread(self._check_free, key)
                await to_the_end(lambda: upload.complete(exclusive=exclusive))
        except BaseException:
            if upload is not None:
                await to_the_end(upload.abort)
            raise
        return await asyncio.to_thread(self.stat, key)

    def delete(self, key: str) -> None:
        """Raises `ObjectNotFound`, `BucketReadOnly`."""
        self.check_writable()
        self.stat(key)
        self.wire.request("DELETE", key)

    def check_writable(self) -> None:
        if self.read_only:
            raise BucketReadOnly(self.bucket)

    def _check_free(self, key: str) -> None:
        try:
            self.stat(key)
        except ObjectNotFound:
            return
        raise ObjectExists(self.bucket, key)


def _check_digest(md5: str, expected: str | None) -> None:
    if expected is not None and md5 != expected:
        raise DigestMismatch("the bytes that arrived do not have the announced MD5")


async def _blocks(
    chunks: AsyncIterable[bytes], length: int, most_bytes: int, idle_s: float, announced: int | None
) -> AsyncIterator[tuple[bytes, bool]]:
    """What arrives, in blocks of `length`, and whether each is the last, which may be smaller, and empty."""
    gathered = bytearray()
    total = 0
    coming = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(coming)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise UploadCut(f"no byte arrived for {idle_s:g} s") from None
        except ClientDisconnect:
            raise UploadCut("the client went away before the last byte") from None
        total += len(chunk)
        if total > most_bytes:
            raise ImageTooLarge(f"more than {most_bytes} bytes arrived")
        if announced is not None and total > announced:
            raise UploadCut(f"more than the announced {announced} bytes arrived")
        gathered += chunk
        while len(gathered) > length:  # not >=: the last block is known to be it
            yield bytes(memoryview(gathered)[:length]), False
            del gathered[:length]
    if announced is not None and total != announced:
        raise UploadCut(f"{total} bytes arrived, {announced} were announced")
    yield bytes(gathered), True
