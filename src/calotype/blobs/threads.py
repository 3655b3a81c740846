"""Work in threads that outlives no one."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Callable[..., T], *arguments: object) -> T:
    """Run `work` in a thread and wait until it has ended, also when cancelled meanwhile; only then let the cancellation
    go on. For work whose files nobody else may touch before it is over; it must be bounded by itself."""
    running = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # looked at: the cancellation is what is told
        raise cancelled
    return running.result()
