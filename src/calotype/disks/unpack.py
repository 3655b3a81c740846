"""Taking the compression off a disk image: what it is packed as, and what is inside, within limits.

gzip, xz and bzip2 by the standard library, a bounded piece at a time; zstd by its tool in the sandbox. Nothing of what
the packed file says about sizes is trusted: what comes out is counted.
"""

import bz2
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from calotype.disks.sandbox import OUT_FOLDER, Limits, Sandbox, inside
from calotype.errors import NoSpace, UnpackRefused

IN_BYTES: Final = 256 * 1024  # of the packed file, at once
OUT_BYTES: Final = 4 * 1024 * 1024  # of what comes out, at once
XZ_MEMORY_BYTES: Final = 256 * 1024 * 1024  # what xz's largest preset needs is 65 MiB
ZSTD_HEAD: Final = 18  # the most that the head of a frame takes, with its mark
ZSTD_WINDOW: Final = "--memory=256MB"
ZSTD_MEMORY_BYTES: Final = 1024**3  # of address space
UNPACKED: Final = "unpacked"  # the file that the tool writes
ANY_BYTES: Final = 64 * 1024 * 1024  # as much may come out of any file, however small
ZLIB_GZIP: Final = 31  # zlib's word for a gzip member
NO_SPACE: Final = b"No space left on device"


class Packing(StrEnum):
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


MARKS: Final = {
    b"\x1f\x8b\x08": Packing.GZIP,
    b"\xfd7zXZ\x00": Packing.XZ,
    b"\x28\xb5\x2f\xfd": Packing.ZSTD,
    b"BZh": Packing.BZIP2,
}
HEAD: Final = max(map(len, MARKS))


def packing_of(path: Path) -> Packing | None:
    """What a file is packed as, going by its first bytes; None: it is not."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return next((packing for mark, packing in MARKS.items() if head.startswith(mark)), None)


def most_unpacked(packed_bytes: int, *, ratio: int, most_bytes: int) -> int:
    """How many bytes may come out of a file of `packed_bytes`: `ratio` times as many, and never above `most_bytes`."""
    return min(most_bytes, max(ANY_BYTES, ratio * packed_bytes))


class Decompressor(Protocol):
    """What bz2 and lzma have in common; `Gzip` is one, too."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Gzip:
    """One member of a gzip file."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(ZLIB_GZIP)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


DECOMPRESSORS: Final[dict[Packing, Callable[[], Decompressor]]] = {
    Packing.GZIP: Gzip,
    Packing.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES),
    Packing.BZIP2: bz2.BZ2Decompressor,
}
DAMAGED: Final = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)  # bz2 raises OSError for bad data


def unpacked(file: BinaryIO, packing: Packing, *, most_bytes: int, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what is inside, at most `OUT_BYTES` at once; `progress` is told how much of `file` is read.

    Several streams one after the other are one content; zeros after them are padding. Raises `UnpackRefused` when it
    is damaged, cut, followed by other bytes, or would be more than `most_bytes`. Not for zstd.
    """
    stream, total = DECOMPRESSORS[packing](), 0
    data = file.read(IN_BYTES)
    while True:
        piece = _decompressed(stream, packing, data)
        if piece:
            total += len(piece)
            if total > most_bytes:
                raise too_much(most_bytes)
            yield piece
        if stream.eof:
            data = _next_stream(file, stream.unused_data)
            if not data:
                return
            stream = DECOMPRESSORS[packing]()
        elif stream.needs_input:
            data = file.read(IN_BYTES)
            if not data and not piece:
                raise UnpackRefused(f"the {packing} data ends too early; send the whole file")
        else:
            data = b""
        progress(file.tell())


def _decompressed(stream: Decompressor, packing: Packing, data: bytes) -> bytes:
    try:
        return stream.decompress(data, OUT_BYTES)
    except DAMAGED as error:
        raise UnpackRefused(f"the {packing} data is damaged; pack and send it again") from error


def _next_stream(file: BinaryIO, data: bytes) -> bytes:
    """The first bytes of what follows, without the zeros before it; nothing at the end of the file."""
    data = data.lstrip(b"\0")
    while not data:
        more = file.read(IN_BYTES)
        if not more:
            break
        data = more.lstrip(b"\0")
    return data


def too_much(most_bytes: int) -> UnpackRefused:
    return UnpackRefused(f"more than {most_bytes} bytes would be unpacked; unpack it before sending it")


def zstd_says(path: Path) -> int | None:
    """How many bytes the first frame of a zstd file says that it holds, which may be a lie; None: it does not say.
    Source: RFC 8878, section 3.1.1.1."""
    with path.open("rb") as file:
        head = file.read(ZSTD_HEAD)
    if len(head) < ZSTD_HEAD:
        return None
    descriptor = head[4]
    has_window = not descriptor & 0x20
    length = (0 if has_window else 1, 2, 4, 8)[descriptor >> 6]
    start = 5 + has_window + (0, 1, 2, 4)[descriptor & 3]
    says = int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
    return says or None


async def unpack_zstd(sandbox: Sandbox, source: Path, folder: Path, *, most_bytes: int) -> Path:
    """Write what a zstd file holds into the empty `folder`; return the file. Raises `UnpackRefused`."""
    if shutil.which("zstd") is None:
        raise UnpackRefused("the service has no zstd (the package zstd); unpack the image before sending it")
    # -f: where nothing but limits is in force, the file's name inside is a symbolic link.
    argv = ["zstd", "-d", "-f", "-q", ZSTD_WINDOW, "-o", f"{OUT_FOLDER}/{UNPACKED}", inside(0)]
    gib = 1 + most_bytes // 1024**3
    limits = Limits(
        memory_bytes=ZSTD_MEMORY_BYTES,
        cpu_s=60 + 60 * gib,
        file_bytes=most_bytes,
        wall_s=120.0 + 300.0 * gib,
    )
    try:
        result = await sandbox.run(argv, read_only=[source], writable=folder, limits=limits)
    except TimeoutError:
        raise UnpackRefused(f"unpacking took longer than {limits.wall_s:.0f} s") from None
    made = folder / UNPACKED
    if result.status == 0:
        return made
    if NO_SPACE in result.stderr:
        raise NoSpace("the disk of the service is full")
    if b"File too large" in result.stderr or result.status in (-25, 128 + 25):  # SIGXFSZ
        raise too_much(most_bytes)
    raise UnpackRefused("the zstd data is damaged, or needs more memory than is allowed; pack and send it again")
