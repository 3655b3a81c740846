"""The memory, and the threads, that all uploads of a process share."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from calotype.blobs.writer import BUFFER_BYTES, DirectBuffers

BLOCK_BYTES: Final = 4 * 1024 * 1024  # a full block, when few uploads are under way
LEAST_BLOCK_BYTES: Final = 64 * 1024
BLOCKS_PER_UPLOAD: Final = 4  # one that fills, one in work, two that wait
# What an upload costs outside of its blocks, as measured: the chunk in hand, the server's read buffer, and what the
# allocator keeps of them.
SERVER_BYTES: Final = 1536 * 1024


class BufferBudget:
    """`total_bytes` bounds the memory of all uploads at any time, with what the server holds for them. Who finds too
    little left waits, first come, first served: an upload that is large or fast cannot keep others out. For one event
    loop.

    Blocks shrink as uploads come, so that each gets along with its share; a share that is not used is anyone's.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0  # in blocks
        self._uploads = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.buffers = DirectBuffers()
        # Idle uploads hold no thread; hashing leaves the interpreter lock alone, writing waits for the disk.
        self._workers = 4 + 3 * (os.cpu_count() or 1)
        self.threads = ThreadPoolExecutor(self._workers, thread_name_prefix="receive")

    @property
    def most_held_bytes(self) -> int:
        """What all blocks together may hold now: the total without what is held elsewhere, but half of it anyway, so
        that a thousand clients that send nothing keep nobody out."""
        elsewhere = self._uploads * SERVER_BYTES + self._workers * BUFFER_BYTES if self._uploads else 0
        return max(self.total_bytes - elsewhere, (self.total_bytes + 1) // 2)

    @property
    def block_bytes(self) -> int:
        """How large a block of one upload may grow now."""
        share = self.most_held_bytes // (BLOCKS_PER_UPLOAD * max(1, self._uploads))
        return min((self.total_bytes + 1) // 2, BLOCK_BYTES, max(LEAST_BLOCK_BYTES, share))

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """One more upload is under way."""
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1
            self._wake()

    def take_now(self, n: int) -> bool:
        """Take `n` bytes if they are there and nobody waits."""
        if self._waiting or self.held_bytes + n > self.most_held_bytes:
            return False
        self.held_bytes += n
        return True

    async def take(self, n: int) -> None:
        """Wait for `n` bytes, at most `block_bytes`. Who holds bytes that no one works on must not call this."""
        if self.take_now(n):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((n, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(n)
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove((n, turn))
                self._wake()
            raise

    def give(self, n: int) -> None:
        self.held_bytes -= n
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self.held_bytes + self._waiting[0][0] <= self.most_held_bytes:
            n, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.held_bytes += n
                turn.set_result(None)

    def close(self) -> None:
        self.threads.shutdown(wait=True)
