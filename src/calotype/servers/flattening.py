"""From the thread that a disk is captured in to qemu-img in its sandbox, to make a chain of files one disk."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from calotype.disks.convert import Converter
from calotype.disks.model import DiskFormat
from calotype.errors import JobCancelled
from calotype.servers.disk_files import Flatten

LOOK_S: Final = 0.5  # how often it is asked whether to go on


def flattening(converter: Converter) -> Flatten:
    def flatten(
        layers: Sequence[tuple[Path, DiskFormat]],
        target: Path,
        *,
        virtual_size: int,
        progress: Callable[[float], None],
        cancelled: Callable[[], bool],
    ) -> None:
        async def watched() -> None:
            work = asyncio.create_task(converter.flatten(layers, target, virtual_size=virtual_size, progress=progress))
            while not (await asyncio.wait([work], timeout=LOOK_S))[0]:
                if cancelled():
                    work.cancel()
                    await asyncio.wait([work])
                    raise JobCancelled("cancelled while the disk was made one file")
            work.result()

        # A loop of this thread's own, and an ordinary one: what another kind of loop needs to start a child may be
        # allowed to the main thread only.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(watched())

    return flatten
