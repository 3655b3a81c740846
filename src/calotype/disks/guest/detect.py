"""The operating system on a disk image, found in the sandbox.

A child process of the system's Python runs the parsers of `reader`, on a raw file itself, on other formats through
qemu-nbd, which it starts beside itself. It sees the image, its own source, and an empty folder for the socket.
"""

import asyncio
import shutil
import zipfile
from importlib import resources
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from calotype.disks.convert import named_for_qemu
from calotype.disks.guest.model import Guest
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import OUT_FOLDER, Limits, Result, Sandbox, inside
from calotype.errors import CalotypeError

WALL_S: Final = 20.0
WRITTEN: Final = 2 * 1024**2  # bytes of a file in memory, which a packed extent of btrfs is given to zstd in
LIMITS: Final = Limits(memory_bytes=1024**3, cpu_s=20, file_bytes=WRITTEN, wall_s=WALL_S)
PROGRAM: Final = "reader.zip"
READER: Final = "calotype.disks.guest.reader"
START: Final = f"import sys\nfrom {READER}.child import main\nmain(sys.argv[1:])\n"

log = structlog.get_logger()


async def detect(
    sandbox: Sandbox,
    path: Path,
    format_: DiskFormat,
    *,
    virtual_size: int,
    scratch: Path,
    window: Window | None = None,
) -> Guest | None:
    """The system on an image that the gate has let pass; None if none is found, whatever the reason.

    Takes up to 20 s, reads up to 192 MiB of the disk, and leaves nothing in `scratch`, which is made if it is missing.
    `window`: where in `path` the image lies, if it is only a part of it.
    """
    if format_ is DiskFormat.ISO or virtual_size == 0:
        return None
    folder = scratch / f"guest-{uuid4().hex}"
    prepared = asyncio.ensure_future(asyncio.to_thread(_prepare, folder))
    try:
        await asyncio.shield(prepared)
        result = await _run(sandbox, path, format_, folder, window)
        if result.status:
            log.info("guest_not_read", status=result.status)
            return None
        return msgspec.json.decode(result.stdout, type=Guest | None)
    except (CalotypeError, OSError, TimeoutError, msgspec.DecodeError) as error:
        log.info("guest_not_read", reason=type(error).__name__)
        return None
    finally:
        await asyncio.shield(_removed(folder, prepared))


async def _run(sandbox: Sandbox, path: Path, format_: DiskFormat, folder: Path, window: Window | None) -> Result:
    if format_ is DiskFormat.RAW:
        words = ["raw", inside(0), *((str(window.offset), str(window.length)) if window else ())]
    else:
        words = ["nbd", await asyncio.to_thread(named_for_qemu, path, format_, 0, window), OUT_FOLDER]
    return await sandbox.run(
        ["python3", "-I", "-S", "-B", inside(1), *words],
        read_only=[path, folder / PROGRAM],
        writable=folder / "socket",
        limits=LIMITS,
    )


def _prepare(folder: Path) -> None:
    """Make the folder, with the source of the child as a program, and with one for its socket."""
    (folder / "socket").mkdir(parents=True, mode=0o700)
    packages = READER.split(".")
    with zipfile.ZipFile(folder / PROGRAM, "w") as program:
        program.writestr("__main__.py", START)
        for depth in range(1, len(packages)):
            program.writestr("/".join([*packages[:depth], "__init__.py"]), "")
        for module in resources.files(READER).iterdir():
            if module.name.endswith(".py"):
                program.writestr("/".join([*packages, module.name]), module.read_bytes())


async def _removed(folder: Path, prepared: "asyncio.Future[None]") -> None:
    """A thread that is still making the folder comes to its end first."""
    await asyncio.wait({prepared})
    prepared.exception()  # looked at: if it matters, it was raised where it was waited for
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
