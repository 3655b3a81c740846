"""How much room a disk may take in another format, before it is written: what it holds, not how large it seems.

Source of the formats' own needs: QEMU's `block/*.c`; a compressed result is never larger than this by more than a
fiftieth, which is what incompressible data grows by.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.disks.convert import named_for_qemu, told
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import Limits, Sandbox
from calotype.errors import ConversionFailed

MIB: Final = 1024**2
MEMORY_BYTES: Final = 1024 * MIB
SECONDS: Final = 120.0
SLACK: Final = 50  # a result may be larger by one part in so many,
TABLES: Final = 16 * MIB  # and by a format's own tables
# Files of these are about as large as what they hold, also where qemu-img says that all of the disk is data.
AS_LARGE_AS_DATA: Final = frozenset({DiskFormat.VHD, DiskFormat.VHDX, DiskFormat.VDI})


async def most_bytes(sandbox: Sandbox, path: Path, format_: DiskFormat, *, window: Window | None = None) -> int:
    """The most bytes that the disk in `path`, which has passed the gate, takes in any format that keeps its holes.

    Raises `ConversionFailed` where qemu-img cannot read it.
    """
    image = await asyncio.to_thread(named_for_qemu, path, format_, 0, window)
    limits = Limits(memory_bytes=MEMORY_BYTES, cpu_s=int(SECONDS), file_bytes=1, wall_s=SECONDS)
    try:
        result = await sandbox.run(
            ["qemu-img", "measure", "--output=json", "-O", "qcow2", image], read_only=[path], limits=limits
        )
    except TimeoutError:
        raise ConversionFailed(f"looking for the data of the image took longer than {SECONDS:.0f} s") from None
    if result.status != 0:
        raise ConversionFailed(f"the image could not be measured: {told(result.stderr)}")
    found: dict[str, Any] = msgspec.json.decode(result.stdout)
    most = int(found["required"])
    if format_ in AS_LARGE_AS_DATA:
        most = min(most, (await asyncio.to_thread(path.stat)).st_size if window is None else window.length)
    return most + most // SLACK + TABLES
