"""Writing and opening the files of `disks/zvhd.py` in a job: in threads or the sandbox, cancelled with the job, which
tells how far it is."""

import asyncio
import shutil
from functools import partial
from pathlib import Path

from calotype.blobs.faults import storage_fault
from calotype.blobs.threads import to_the_end
from calotype.blobs.writer import FileWriter
from calotype.disks import zvhd
from calotype.disks.model import OpaqueKind
from calotype.disks.sandbox import Sandbox
from calotype.disks.unpack import unpack_zstd
from calotype.errors import JobCancelled
from calotype.jobs.run import Run

FOLDER = "zstd"  # in the job's scratch folder, where the tool works


async def pack(run: Run, sandbox: Sandbox, source: Path, target: Path, kind: OpaqueKind) -> None:
    """Write the VHD `source` to `target`, as one of the open equivalents; what was there is lost.

    Raises `ConversionFailed`, `NoSpace`, `JobCancelled`.
    """
    try:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        if kind is OpaqueKind.ZVHD:
            write = partial(zvhd.pack_zvhd, source, target, progress=run.advance_bytes, cancelled=run.stop.is_set)
            await to_the_end(write)
        else:
            folder = run.scratch / FOLDER
            await zvhd.pack_zvhd2(
                sandbox, source, target, folder, progress=run.advance_bytes, cancelled=run.stop.is_set
            )
            await to_the_end(partial(shutil.rmtree, folder, ignore_errors=True))
    except OSError as error:
        raise storage_fault(error) from error


async def unpack(run: Run, sandbox: Sandbox, source: Path, target: Path, kind: OpaqueKind, *, most_bytes: int) -> None:
    """Write what is in `source` to `target`, whole or not at all; zeros take no room. `target` may be `source`.

    Raises `UnpackRefused`, `NoSpace`, `JobCancelled`.
    """
    try:
        if kind is OpaqueKind.ZVHD:
            made = target.with_name(f"{target.name}.part")
            await to_the_end(partial(_unpack_zvhd, run, source, made, most_bytes))
        else:
            folder = run.scratch / FOLDER
            await to_the_end(partial(_emptied, folder))
            made = await unpack_zstd(sandbox, source, folder, most_bytes=most_bytes)
        await asyncio.to_thread(made.replace, target)
    except OSError as error:
        raise storage_fault(error) from error


def _unpack_zvhd(run: Run, source: Path, made: Path, most_bytes: int) -> None:
    size = source.stat().st_size
    with source.open("rb") as packed, made.open("wb") as file:
        writer = FileWriter(file.fileno(), sparse=True)
        told = partial(run.advance_bytes, total=size)
        for piece in zvhd.unpacked_zvhd(packed, most_bytes=most_bytes, progress=told):
            if run.stop.is_set():
                raise JobCancelled("cancelled while the disk was unpacked")
            writer.write([piece])
        writer.finish()


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
