"""Bytes that arrive over the network: counted, hashed and written while they pass, in bounded memory.

Chunks are gathered to blocks, without copying where they are large. The writer and each hash take the blocks in order,
each in a thread of its own while it has work. At most `BLOCKS_PER_UPLOAD` blocks of an upload exist at once; when the
slowest of the threads is behind, the client is not read from.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct
from starlette.requests import ClientDisconnect

from calotype.blobs.budget import BLOCKS_PER_UPLOAD, BufferBudget
from calotype.blobs.digest import digest_file
from calotype.blobs.faults import storage_fault
from calotype.blobs.lanes import Block, Lane, Work, hashing, syncing
from calotype.blobs.model import Digests
from calotype.blobs.sparse import Piece
from calotype.blobs.threads import to_the_end
from calotype.blobs.writer import FileWriter
from calotype.errors import ImageTooLarge, Unavailable, UploadCut

__all__ = ["GREW_BYTES", "Arrived", "BufferBudget", "digest_file", "receive", "store"]

GREW_BYTES: Final = 64 * 1024 * 1024  # at most so many bytes arrive between two calls of `grew`
GREW_EVERY_S: Final = 5.0
SMALL_CHUNK_BYTES: Final = 16 * 1024  # smaller ones are copied together: a million tiny objects cost more than a copy
FLUSH_AFTER_S: Final = 1.0  # a slow client's bytes are passed on after so long, so that they hold no memory
STALLED_AFTER_S: Final = 120.0  # an upload that gets no memory, or whose disk does not answer, is ended

Grew = Callable[[int], Awaitable[None]]


class Arrived(Struct, frozen=True, kw_only=True):
    size: int  # bytes
    digests: dict[str, str]  # algorithm -> hex


async def receive(
    chunks: AsyncIterable[bytes],
    target: Path,
    *,
    hash_algorithm: str,
    most_bytes: int,
    budget: BufferBudget,
    sparse: bool,
    idle_s: float,
    grew: Grew | None = None,
    announced: int | None = None,
) -> Digests:
    """Write `chunks` to the new file `target`; return their size and digests. Not synced: publishing does that.

    `sparse`: runs of zeros of 64 KiB, aligned, become holes. `announced`: how many bytes the client said would come.
    `grew(total)` is awaited about every 5 s while bytes come, and so that never more than `GREW_BYTES` beyond the last
    told total (0 at first) are stored; what it raises ends the upload.
    Raises `ImageTooLarge` at the first byte past `most_bytes`; `UploadCut` when the client goes away, brings no byte
    for `idle_s`, or not as many as announced; `NoSpace`, `Unavailable`. However it ends without a result: no thread
    works on it any more, and the file is gone.
    """
    file = _NewFile(target)
    try:
        await to_the_end(file.open)
        arrived = await store(
            chunks,
            file.fd,
            algorithms=("md5", hash_algorithm),
            most_bytes=most_bytes,
            budget=budget,
            sparse=sparse,
            direct=True,
            idle_s=idle_s,
            grew=grew,
            announced=announced,
        )
        await to_the_end(file.close)
    except BaseException:
        await to_the_end(file.remove)
        raise
    return Digests(
        size=arrived.size,
        md5=arrived.digests["md5"],
        hash_algorithm=hash_algorithm,
        hash_value=arrived.digests[hash_algorithm],
    )


async def store(
    chunks: AsyncIterable[bytes],
    fd: int,
    *,
    algorithms: Sequence[str],
    most_bytes: int,
    budget: BufferBudget,
    sparse: bool,
    direct: bool,
    idle_s: float,
    grew: Grew | None = None,
    announced: int | None = None,
) -> Arrived:
    """As `receive`, into the open empty file `fd`, which stays the caller's; with any hashes or none. `direct`: past
    the page cache, for what is not read again soon."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    writer = FileWriter(fd, sparse=sparse, direct=budget.buffers if direct else None)
    works = [writer.write, *map(hashing, hashes.values())]
    stream = _Stream(writer, works if direct else [*works, syncing(fd)], budget)
    limits = _Limits(most_bytes=most_bytes, announced=announced, idle_s=idle_s)
    with budget.upload():
        try:
            await stream.take_all(chunks, limits, grew)
        finally:
            await stream.settle()
    return Arrived(size=stream.total, digests={name: hash_.hexdigest() for name, hash_ in hashes.items()})


class _Limits(Struct, frozen=True, kw_only=True):
    most_bytes: int
    announced: int | None
    idle_s: float


class _NewFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.made = False

    def open(self) -> None:
        try:
            self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise  # a token that is used twice: a bug, and the file is someone else's
        except OSError as error:
            raise storage_fault(error) from error
        self.made = True

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        try:
            os.close(fd)
        except OSError as error:  # a network file system tells only now that it is full
            raise storage_fault(error) from error

    def remove(self) -> None:
        if self.made:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
            self.path.unlink(missing_ok=True)


class _Stream:
    """One upload. Runs in the event loop, but for what the lanes' threads do."""

    def __init__(self, writer: FileWriter, works: Sequence[Work], budget: BufferBudget) -> None:
        """`works`: what is to be done to every block; the writer's `write` among it."""
        self._budget = budget
        self.total = 0  # bytes that have arrived
        self._stopped = False  # blocks are passed over from then on
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._lanes = [Lane(self._performing(work), budget.threads) for work in works]
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._clock = asyncio.timeout(None)
        self._taking = False  # whether the clock runs
        self._pieces: list[Piece] = []
        self._gathered = 0  # bytes in them
        self._in_flight = 0  # blocks handed on and not done
        self._wakeup: asyncio.Future[None] | None = None
        self._reading = False  # whether it is the client that is waited for
        self._since = self._loop.time()  # when that began, or the other

    # --- in the event loop --------------------------------------------------------------------------------------------

    async def take_all(self, chunks: AsyncIterable[bytes], limits: _Limits, grew: Grew | None) -> None:
        try:
            async with self._clock:
                self._taking = True
                pulse = _Pulse(self, limits.idle_s)
                try:
                    await self._take_all(chunks, limits, grew)
                finally:
                    self._taking = False
                    pulse.stop()
        except TimeoutError:
            self._raise_if_failed()
            if not self._clock.expired():
                raise
            if self._reading:
                raise UploadCut(f"no byte arrived for {limits.idle_s:g} s") from None
            raise Unavailable("the storage of the service does not keep up; try again later") from None
        except ClientDisconnect:
            raise UploadCut("the client went away before the last byte") from None
        self._raise_if_failed()

    async def _take_all(self, chunks: AsyncIterable[bytes], limits: _Limits, grew: Grew | None) -> None:
        told, told_at = 0, self._loop.time()
        self._turn(reading=True)
        async for chunk in chunks:
            self._turn(reading=False)
            self._raise_if_failed()
            self.total += len(chunk)
            if self.total > limits.most_bytes:
                raise ImageTooLarge(f"more than {limits.most_bytes} bytes arrived")
            if limits.announced is not None and self.total > limits.announced:
                raise UploadCut(f"more than the announced {limits.announced} bytes arrived")
            if grew is not None and (self.total - told > GREW_BYTES or self._since - told_at >= GREW_EVERY_S):
                await grew(self.total)
                told, told_at = self.total, self._since
            await self._accept(chunk)
            self._turn(reading=True)
        self._turn(reading=False)
        if limits.announced is not None and self.total != limits.announced:
            raise UploadCut(f"{self.total} bytes arrived, {limits.announced} were announced")
        await self._flush()
        await self._until(lambda: not self._in_flight)
        self._raise_if_failed()
        await to_the_end(self._finish)

    async def _accept(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk):
            n = min(len(chunk) - at, max(self._budget.block_bytes - self._gathered, 0))
            if n and not self._budget.take_now(n):
                await self._flush()  # what waits for memory must hold none that nobody works on
                n = min(len(chunk) - at, self._budget.block_bytes)
                await self._budget.take(n)
            if n:
                self._gather(chunk if n == len(chunk) else memoryview(chunk)[at : at + n], n)
                at += n
            if self._gathered >= self._budget.block_bytes:
                await self._flush()

    def _gather(self, piece: Piece, n: int) -> None:
        if n >= SMALL_CHUNK_BYTES:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))
        self._gathered += n

    async def _flush(self) -> None:
        if self._gathered:
            await self._until(lambda: self._in_flight < BLOCKS_PER_UPLOAD - 1)
            self._raise_if_failed()
            self._dispatch()

    def _dispatch(self) -> None:
        block = Block(self._pieces, self._gathered, len(self._lanes))
        self._pieces, self._gathered = [], 0
        self._in_flight += 1
        for lane in self._lanes:
            lane.put(block)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._wakeup = self._loop.create_future()
            await self._wakeup

    def _turn(self, *, reading: bool) -> None:
        self._reading = reading
        self._since = self._loop.time()

    def pulse(self, idle_s: float) -> None:
        """Called often: pass a slow client's bytes on, and end what has waited for too long."""
        waited = self._loop.time() - self._since
        if waited >= (idle_s if self._reading else STALLED_AFTER_S):
            self._interrupt()
        elif self._reading and self._gathered and waited >= FLUSH_AFTER_S and self._in_flight < BLOCKS_PER_UPLOAD - 1:
            self._dispatch()

    def _interrupt(self) -> None:
        if self._taking and not self._clock.expired():
            self._clock.reschedule(self._loop.time())

    def _raise_if_failed(self) -> None:
        if isinstance(self._error, OSError):
            raise storage_fault(self._error) from self._error
        if self._error is not None:
            raise self._error

    def _done(self, size: int) -> None:
        self._in_flight -= 1
        self._budget.give(size)
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def settle(self) -> None:
        """Return, or go on being cancelled, when no thread has anything of this upload in hand."""
        self._stopped = True
        cancelled: asyncio.CancelledError | None = None
        while self._in_flight:
            try:
                await self._until(lambda: not self._in_flight)
            except asyncio.CancelledError as error:
                cancelled = error
        self._budget.give(self._gathered)
        self._pieces, self._gathered = [], 0
        if cancelled is not None:
            raise cancelled

    # --- in the threads of the lanes ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        try:
            self._writer.finish()
        except OSError as error:
            raise storage_fault(error) from error

    def _performing(self, work: Work) -> Callable[[Block], None]:
        def perform(block: Block) -> None:
            try:
                if not self._stopped:
                    work(block.pieces)
            except BaseException as error:  # noqa: BLE001 - carried to the event loop and raised there
                self._fail(error)
            with self._lock:
                block.left -= 1
                if block.left:
                    return
            self._loop.call_soon_threadsafe(self._done, block.size)

        return perform

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
            self._stopped = True
        self._loop.call_soon_threadsafe(self._interrupt)


class _Pulse:
    """Calls a stream's `pulse` until stopped."""

    def __init__(self, stream: _Stream, idle_s: float) -> None:
        self._stream = stream
        self._idle_s = idle_s
        self._every_s = min(FLUSH_AFTER_S / 2, idle_s / 4)
        self._beat()

    def _beat(self) -> None:
        self._stream.pulse(self._idle_s)
        self._next = asyncio.get_running_loop().call_later(self._every_s, self._beat)

    def stop(self) -> None:
        self._next.cancel()
