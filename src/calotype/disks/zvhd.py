"""The open equivalents of ZVHD and ZVHD2: a dynamic VHD, compressed. Not the vendor's formats, which have no public
description, and not readable by the vendor's tools.

zvhd     one zlib stream (RFC 1950) of the VHD, to the end of the file
zvhd2    Zstandard frames of 1 MiB of the VHD each, then a skippable frame that says whose layout this is, then the seek
         table of the Zstandard seekable format in another one

Both are unpacked by the standard tools (`pigz -dz`, `zlib-flate -uncompress`, `zstd -d`). See docs/reference/zvhd.md.
Sources: RFC 1950, RFC 8878; zstd, contrib/seekable_format.
"""

import asyncio
import os
import shutil
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from calotype.disks.formats import vhd
from calotype.disks.model import OpaqueKind
from calotype.disks.sandbox import OUT_FOLDER, Limits, Sandbox
from calotype.disks.unpack import IN_BYTES, NO_SPACE, OUT_BYTES, too_much
from calotype.errors import ConversionFailed, DiskRefused, JobCancelled, NoSpace, UnpackRefused

FRAME_BYTES: Final = 1024 * 1024  # of the VHD, in a frame
GROUP: Final = 64  # frames that one call of the tool makes
ZLIB_LEVEL: Final = 6
ZSTD_LEVEL: Final = "-3"
ZSTD_FRAME: Final = b"\x28\xb5\x2f\xfd"
ZLIB_MARKS: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
SKIPPABLE: Final = 0x184D2A50  # the frame that says whose layout it is
LAYOUT: Final = b"calotype open zvhd2, version 1\n"
SEEK_TABLE: Final = 0x184D2A5E  # a skippable frame, too
SEEKABLE: Final = 0x8F92EAB1
ENTRY, FRAME_HEAD, TABLE_END = struct.Struct("<II"), struct.Struct("<II"), struct.Struct("<IBI")
HEAD_OUT: Final = 64 * 1024  # of a zlib stream, to see what it begins with
PACK_LIMITS: Final = Limits(memory_bytes=1024**3, cpu_s=120, file_bytes=2 * FRAME_BYTES, wall_s=600.0)

Progress = Callable[[int, int], None]  # bytes done, of how many
Cancelled = Callable[[], bool]


def kind_of(path: Path) -> OpaqueKind | None:
    """Which of the two a file is by what it begins and ends with; None: neither. What is inside is seen when it is
    unpacked."""
    with path.open("rb") as file:
        return kind_in(file)


def kind_in(file: BinaryIO) -> OpaqueKind | None:
    """`kind_of` for an open file that can be sought in. A few KiB of it are read."""
    head = file.read(len(ZSTD_FRAME))
    if head == ZSTD_FRAME:
        return OpaqueKind.ZVHD2 if _says_zvhd2(file) else None
    if head.startswith(ZLIB_MARKS):
        file.seek(0)
        return OpaqueKind.ZVHD if _begins_with_vhd(file) else None
    return None


def _begins_with_vhd(file: BinaryIO) -> bool:
    try:
        data = zlib.decompressobj().decompress(file.read(HEAD_OUT), vhd.FOOTER)
        return vhd.read_footer(data).kind == vhd.DYNAMIC
    except (zlib.error, DiskRefused):
        return False


def _says_zvhd2(file: BinaryIO) -> bool:
    """Whether the last frame before the seek table, which is the table's last entry, holds `LAYOUT`."""
    size = file.seek(0, os.SEEK_END)
    if size < TABLE_END.size:
        return False
    file.seek(-TABLE_END.size, os.SEEK_END)
    frames, descriptor, mark = TABLE_END.unpack(file.read(TABLE_END.size))
    table = FRAME_HEAD.size + frames * ENTRY.size + TABLE_END.size
    label = FRAME_HEAD.size + len(LAYOUT)
    if mark != SEEKABLE or descriptor != 0 or frames < 2 or table + label > size:
        return False
    file.seek(size - table - label)
    data = file.read(label + FRAME_HEAD.size)
    return data == _skippable(SKIPPABLE, LAYOUT) + FRAME_HEAD.pack(SEEK_TABLE, table - FRAME_HEAD.size)


def _skippable(magic: int, content: bytes) -> bytes:
    return FRAME_HEAD.pack(magic, len(content)) + content


# --- packing ----------------------------------------------------------------------------------------------------------


def pack_zvhd(source: Path, target: Path, *, progress: Progress, cancelled: Cancelled) -> None:
    """Write `source` to the new file `target`, 1 MiB in memory. For a thread. Raises `JobCancelled`, `OSError`."""
    size = source.stat().st_size
    packer = zlib.compressobj(ZLIB_LEVEL)
    with source.open("rb") as file, target.open("xb") as made:
        while data := file.read(FRAME_BYTES):
            _go_on(cancelled)
            made.write(packer.compress(data))
            progress(file.tell(), size)
        made.write(packer.flush())


async def pack_zvhd2(
    sandbox: Sandbox, source: Path, target: Path, folder: Path, *, progress: Progress, cancelled: Cancelled
) -> None:
    """Write `source` to the new file `target`, by the tool zstd in the sandbox. `folder` is emptied, and holds 64 MiB
    and what they are packed to meanwhile.

    Raises `ConversionFailed`, `NoSpace`, `JobCancelled`, `OSError`.
    """
    if shutil.which("zstd") is None:
        raise ConversionFailed("the service has no zstd (the package zstd), which writes ZVHD2")
    size = (await asyncio.to_thread(source.stat)).st_size
    entries = array("I")  # packed and unpacked bytes of each frame: 8 bytes a MiB of disk
    for start in range(0, size, GROUP * FRAME_BYTES):
        _go_on(cancelled)
        pieces = await asyncio.to_thread(_cut, source, start, folder)
        await _packed(sandbox, folder, pieces)
        await asyncio.to_thread(_append, target, folder, pieces, entries)
        progress(min(size, start + GROUP * FRAME_BYTES), size)
    await asyncio.to_thread(_finish, target, entries)


def _cut(source: Path, start: int, folder: Path) -> list[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pieces = []
    with source.open("rb") as file:
        file.seek(start)
        for number in range(GROUP):
            data = file.read(FRAME_BYTES)
            if not data:
                break
            pieces.append(folder / f"{number:02}")
            pieces[-1].write_bytes(data)
    return pieces


async def _packed(sandbox: Sandbox, folder: Path, pieces: Sequence[Path]) -> None:
    names = [f"{OUT_FOLDER}/{piece.name}" for piece in pieces]
    argv = ["zstd", "-q", ZSTD_LEVEL, "-T1", "--check", "--no-progress", "--", *names]
    try:
        result = await sandbox.run(argv, writable=folder, limits=PACK_LIMITS)
    except TimeoutError:
        raise ConversionFailed(f"zstd took longer than {PACK_LIMITS.wall_s:.0f} s") from None
    if NO_SPACE in result.stderr:
        raise NoSpace("the disk of the service is full")
    if result.status != 0:
        raise ConversionFailed("zstd could not write the frames")


def _append(target: Path, folder: Path, pieces: Sequence[Path], entries: "array[int]") -> None:
    with target.open("ab") as made:
        for piece in pieces:
            frame = (folder / f"{piece.name}.zst").read_bytes()
            made.write(frame)
            entries.extend((len(frame), piece.stat().st_size))


def _finish(target: Path, entries: "array[int]") -> None:
    label = _skippable(SKIPPABLE, LAYOUT)
    entries.extend((len(label), 0))
    if sys.byteorder == "big":
        entries.byteswap()
    table = entries.tobytes() + TABLE_END.pack(len(entries) // 2, 0, SEEKABLE)
    with target.open("ab") as made:
        made.write(label + _skippable(SEEK_TABLE, table))


# --- unpacking --------------------------------------------------------------------------------------------------------


def unpacked_zvhd(file: BinaryIO, *, most_bytes: int, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what is inside, at most 4 MiB at once; `progress` is told how much of `file` is read.

    Raises `UnpackRefused` when it is damaged, cut, followed by other bytes, or would be more than `most_bytes`.
    """
    unpacker, total = zlib.decompressobj(), 0
    data = file.read(IN_BYTES)
    while not unpacker.eof:
        try:
            piece = unpacker.decompress(data, OUT_BYTES)
        except zlib.error as error:
            raise UnpackRefused("the zlib data is damaged; pack and send it again") from error
        total += len(piece)
        if total > most_bytes:
            raise too_much(most_bytes)
        if piece:
            yield piece
        progress(file.tell())
        data = unpacker.unconsumed_tail or (b"" if unpacker.eof else file.read(IN_BYTES))
        if not data and not piece and not unpacker.eof:
            raise UnpackRefused("the zlib data ends too early; send the whole file")
    if unpacker.unused_data or file.read(1):
        raise UnpackRefused("the zlib data is followed by other bytes; pack and send it again")


def _go_on(cancelled: Cancelled) -> None:
    if cancelled():
        raise JobCancelled("cancelled while the disk was packed")
