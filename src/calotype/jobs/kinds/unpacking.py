"""Taking the compression off an image in a job: room, quota and progress as it grows, whatever way the image comes."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from calotype.blobs.digest import digest_file
from calotype.blobs.faults import storage_fault
from calotype.blobs.threads import to_the_end
from calotype.blobs.writer import FileWriter
from calotype.disks import unpack as disks_unpack
from calotype.disks.sandbox import Sandbox
from calotype.disks.unpack import UNPACKED, Packing, packing_of, unpacked
from calotype.errors import JobCancelled, UnpackRefused
from calotype.jobs.run import Run

GROW_BYTES: Final = 256 * 1024 * 1024  # of what comes out, between two looks at room and quota
WATCH_S: Final = 1.0  # how often the size is looked at of what the tool writes
FOLDER: Final = "zstd"  # in the job's scratch folder, where the tool works

# Told, while it grows, how large a file is, and by how much it may grow until the next time: takes so many bytes of the
# project's quota, and waits for that much room.
Grew = Callable[[int, int], Awaitable[None]]


async def unpack(
    run: Run, sandbox: Sandbox, source: Path, packing: Packing, target: Path, *, most_bytes: int, grew: Grew
) -> None:
    """Write what is packed in `source` to the new file `target`; zeros take no room. On any failure the caller removes
    `target`; what came out in the end is the caller's to reserve.

    gzip, xz and bzip2 go straight from where `source` lies, 5 MiB in memory; zstd by its tool, in the sandbox. Raises
    `UnpackRefused` for what is damaged, cut, followed by other bytes, more than `most_bytes`, or packed once more;
    `NoSpace`, `JobCancelled`, and what `grew` raises.
    """
    if packing is Packing.ZSTD:
        await _by_the_tool(run, sandbox, source, target, most_bytes, grew)
    else:
        await _streamed(run, source, packing, target, most_bytes, grew)
    if await asyncio.to_thread(packing_of, target) is not None:
        raise UnpackRefused("the image is packed twice; unpack it before sending it")


async def _streamed(run: Run, source: Path, packing: Packing, target: Path, most_bytes: int, grew: Grew) -> None:
    try:
        size = (await asyncio.to_thread(source.stat)).st_size
        with await asyncio.to_thread(source.open, "rb") as packed, await asyncio.to_thread(target.open, "xb") as file:
            writer = FileWriter(file.fileno(), sparse=True)
            pieces = unpacked(
                packed, packing, most_bytes=most_bytes, progress=lambda done: run.advance_bytes(done, size)
            )
            total, is_done = 0, False
            while not is_done:
                await grew(total, min(GROW_BYTES, most_bytes - total))
                total, is_done = await to_the_end(partial(_some, run, pieces, writer, total))
            await to_the_end(writer.finish)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_fault(error) from error


def _some(run: Run, pieces: Iterator[bytes], writer: FileWriter, total: int) -> tuple[int, bool]:
    """Write the next `GROW_BYTES`, about; return how many bytes there are in all, and whether these were the last."""
    until = total + GROW_BYTES
    for piece in pieces:
        if run.stop.is_set():
            raise JobCancelled("cancelled while the image was unpacked")
        writer.write([piece])
        total += len(piece)
        if total >= until:
            return total, False
    return total, True


async def _by_the_tool(run: Run, sandbox: Sandbox, source: Path, target: Path, most_bytes: int, grew: Grew) -> None:
    folder = run.scratch / FOLDER
    await to_the_end(partial(_emptied, folder))
    expected = await asyncio.to_thread(disks_unpack.zstd_says, source)
    tool = asyncio.ensure_future(disks_unpack.unpack_zstd(sandbox, source, folder, most_bytes=most_bytes))
    told = -GROW_BYTES
    try:
        while not tool.done():
            size = await asyncio.to_thread(_size, folder / UNPACKED)
            if size - told >= GROW_BYTES:
                await grew(size, min(GROW_BYTES, most_bytes - size))
                told = size
            if expected:
                run.advance_bytes(min(size, expected), expected)
            await asyncio.wait({tool}, timeout=WATCH_S)
        made = tool.result()
    finally:
        if not tool.done():
            tool.cancel()
            await asyncio.wait({tool})
    await to_the_end(partial(_moved, run, made, target))


def _moved(run: Run, made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:  # to another file system
        digest_file(made, hash_algorithm="sha256", copy_to=target, sparse=True, cancelled=run.stop)
    shutil.rmtree(made.parent, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
