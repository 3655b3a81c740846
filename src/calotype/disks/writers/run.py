"""From an image in a file to a compressed one: raw and qcow2 files are read directly, all else by qemu-nbd in the
sandbox.

qemu-nbd sees the image and a folder for its socket, and nothing else. Its end of the socket is not trusted.
"""

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar
from uuid import uuid4

from msgspec import Struct

from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import OUT_FOLDER, Limits, Result, Sandbox
from calotype.disks.writers.guest_bytes import GuestDisk, RawDisk
from calotype.disks.writers.nbd import NbdDisk, ServerGone
from calotype.disks.writers.pipeline import Cancelled, Crew, Progress
from calotype.disks.writers.qcow2_disk import Qcow2Disk
from calotype.disks.writers.same import same
from calotype.errors import ConversionFailed

SOCKET: Final = "nbd"
START_S: Final = 60.0  # until qemu-nbd listens
RETRY_S: Final = 0.01
END_S: Final = 5.0  # until a server that went away has ended
STEPS: Final = 1000  # that progress is told in, at most
# What we read ourselves; None: a variant of the format that is left to qemu.
DIRECTLY: Final[Mapping[DiskFormat, Callable[[int, Window | None], GuestDisk | None]]] = {
    DiskFormat.RAW: RawDisk.of,
    DiskFormat.ISO: RawDisk.of,
    DiskFormat.QCOW2: Qcow2Disk.of,
}

T = TypeVar("T")


class Writer(Protocol):
    def __call__(
        self, disk: GuestDisk, target: Path, crew: Crew, /, *, progress: Progress, cancelled: Cancelled
    ) -> None: ...


class Work(Protocol):
    def __call__(self, *, progress: Progress, cancelled: Cancelled) -> None: ...


class ServerFailed(Exception):
    """qemu-nbd did not serve the image to its end."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.status)
        self.result = result


async def write(
    writer: Writer,
    sandbox: Sandbox,
    crew: Crew,
    source: Path,
    source_format: DiskFormat,
    image: str,
    target: Path,
    *,
    virtual_size: int,
    limits: Limits,
    window: Window | None,
    progress: Callable[[float], None],
) -> None:
    """Write the disk in `source`, which has passed the gate, to the existing, empty file `target`.

    `image` is how qemu is told of it, where we do not read it ourselves, and `window` where in `source` it lies.
    `progress` gets 0.0 to 1.0, in the event loop. When this returns or raises, also on cancellation, no thread is busy
    with it and no child is left.
    Raises `ServerFailed`, `TimeoutError` after `limits.wall_s` of qemu-nbd's, `ConversionFailed`, `OSError`, and a leaf
    of `DiskRefused` for a qcow2 that did not pass the gate.
    """
    async with AsyncExitStack() as opened:
        disk: GuestDisk | None = None
        if source_format in DIRECTLY:
            file = opened.enter_context(await asyncio.to_thread(partial(source.open, "rb", buffering=0)))
            disk = await asyncio.to_thread(DIRECTLY[source_format], file.fileno(), window)
        if disk is None:
            disk = await opened.enter_async_context(_served(sandbox, source, image, target.parent, limits))
        if not virtual_size <= disk.size < virtual_size + 512:
            raise ConversionFailed(f"the image holds a disk of {disk.size} bytes, not of {virtual_size}")
        await _carried_out(partial(writer, disk, target, crew), disk.size, [disk], progress)


class Image(Struct, frozen=True, kw_only=True):
    path: Path
    format: DiskFormat
    name: str  # how qemu is told of it
    window: Window | None = None  # where in the file it lies


async def compare(
    sandbox: Sandbox, one: Image, other: Image, scratch: Path, *, limits: Limits, progress: Callable[[float], None]
) -> None:
    """Compare what a guest reads from both, where either has data; tables are read by qemu-nbd only.

    `scratch` is a folder that sockets can be in. For the rest as `write`. Raises `VerificationFailed`, too.
    """
    async with AsyncExitStack() as opened:
        disks: list[GuestDisk] = []
        for image in (one, other):
            if image.format in (DiskFormat.RAW, DiskFormat.ISO):
                file = opened.enter_context(await asyncio.to_thread(partial(image.path.open, "rb", buffering=0)))
                disks.append(RawDisk.of(file.fileno(), image.window))
            else:
                served = _served(sandbox, image.path, image.name, scratch, limits)
                disks.append(await opened.enter_async_context(served))
        await _carried_out(partial(same, *disks), max(disk.size for disk in disks), disks, progress)


async def _carried_out(work: Work, size: int, disks: Sequence[GuestDisk], progress: Callable[[float], None]) -> None:
    loop, stop = asyncio.get_running_loop(), threading.Event()
    steps: asyncio.Queue[int | None] = asyncio.Queue()
    last = -1

    def tell(done: int) -> None:
        nonlocal last
        step = done * STEPS // size
        if step > last:
            last = step
            loop.call_soon_threadsafe(steps.put_nowait, step)

    def interrupt() -> None:
        for disk in disks:
            disk.interrupt()

    running = loop.run_in_executor(None, partial(work, progress=tell, cancelled=stop.is_set))
    running.add_done_callback(lambda _: steps.put_nowait(None))
    try:
        while (step := await steps.get()) is not None:
            progress(step / STEPS)
    finally:
        stop.set()
        await _ended(running, interrupt)
    running.result()


async def _ended(running: "asyncio.Future[T]", end: Callable[[], object] | None = None) -> None:
    """End what runs, if it still does, and wait until it has, also when cancelled again meanwhile."""
    if end is not None and not running.done():
        end()
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        running.exception()  # looked at: if it matters, it is told elsewhere


@asynccontextmanager
async def _served(sandbox: Sandbox, source: Path, image: str, scratch: Path, limits: Limits) -> AsyncIterator[NbdDisk]:
    folder = scratch / f"nbd-{uuid4().hex}"
    made = asyncio.ensure_future(asyncio.to_thread(folder.mkdir, mode=0o700))
    server: asyncio.Task[Result] | None = None
    try:
        await asyncio.shield(made)
        server = asyncio.create_task(
            sandbox.run(
                [
                    "qemu-nbd",
                    "--read-only",
                    "--shared=1",
                    "--cache=writeback",
                    f"--socket={OUT_FOLDER}/{SOCKET}",
                    image,
                ],
                read_only=[source],
                writable=folder,
                limits=limits,
            )
        )
        with await _connected(folder, server) as connection:
            try:
                disk = await _greeted(connection)
                yield disk
                disk.close()
            except ServerGone as error:
                raise await _why(server, error) from error
    finally:
        await _ended(made)
        if server is not None:
            await _ended(server, server.cancel)
        await _ended(asyncio.ensure_future(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)))


async def _why(server: "asyncio.Task[Result]", error: ServerGone) -> Exception:
    """What to raise for a server that went away. Raises what its sandbox did, when that ended it."""
    await asyncio.wait([server], timeout=END_S)
    if server.done():
        return ServerFailed(await server)
    return ConversionFailed(f"the image could not be read: {error}")


async def _greeted(connection: socket.socket) -> NbdDisk:
    running = asyncio.get_running_loop().run_in_executor(None, NbdDisk, connection)
    try:
        return await asyncio.shield(running)
    finally:
        await _ended(running, partial(_shut, connection))


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        connection.shutdown(socket.SHUT_RDWR)


async def _connected(folder: Path, server: "asyncio.Task[Result]") -> socket.socket:
    """Knock until somebody opens."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    name = f"/proc/self/fd/{descriptor}/{SOCKET}"  # the folder's own may be longer than a socket's can be
    try:
        async with asyncio.timeout(START_S):
            while not server.done():
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(name)
                except OSError:
                    connection.close()
                    await asyncio.wait([server], timeout=RETRY_S)
                else:
                    return connection
        raise ServerFailed(await server)
    finally:
        os.close(descriptor)
