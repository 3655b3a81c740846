"""qemu-img in the sandbox: converting, comparing and checking images that the gate has let pass.

qemu-img never guesses a format and never sees a name from outside: an image is `json:{driver, file}` with a fixed name,
and what a header might say about a backing file is overruled.
"""

import asyncio
import errno
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from calotype.disks.formats import vhd
from calotype.disks.formats.reader import SECTOR, DiskFile, rounded_up
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import OUT_FILE, Limits, Result, Sandbox, inside
from calotype.disks.targets import TARGETS, TargetKind, too_large
from calotype.disks.writers.pipeline import Crew
from calotype.disks.writers.qcow2 import write_qcow2_zlib, write_qcow2_zstd
from calotype.disks.writers.run import Image, ServerFailed, Writer, compare, write
from calotype.disks.writers.vmdk_stream import write_vmdk_stream
from calotype.errors import ConversionFailed, NoSpace, TruncatedDisk, VerificationFailed

GIB: Final = 1024**3
MEMORY_BYTES: Final = 2 * GIB  # of address space; 16 writers at once abort with 1 GiB
CPU_S, CPU_S_PER_GIB = 60, 240  # the slowest writer does 23 MB/s on one core of today
WALL_S, WALL_S_PER_GIB = 120.0, 600.0
CHECK_S_PER_GIB: Final = 60.0
OVERHEAD_BYTES: Final = 64 * 1024 * 1024  # of a format's own tables, beside a sixteenth of the disk
MOST_WORDS: Final = 300  # characters of qemu-img's that a user is told

DRIVERS: Final[Mapping[DiskFormat, str]] = {
    DiskFormat.RAW: "raw",
    DiskFormat.ISO: "raw",
    DiskFormat.QCOW2: "qcow2",
    DiskFormat.VMDK: "vmdk",
    DiskFormat.VHD: "vpc",
    DiskFormat.VHDX: "vhdx",
    DiskFormat.VDI: "vdi",
    DiskFormat.QED: "qed",
    DiskFormat.QCOW: "qcow",
}
# Drivers that could open another file.
WITH_BACKING: Final = frozenset({DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.QED, DiskFormat.QCOW})
CHECKED: Final = frozenset({DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VDI, DiskFormat.VHDX, DiskFormat.QED})
CHECK_OK, CHECK_CORRUPT, CHECK_LEAKS, CHECK_UNSUPPORTED = 0, 2, 3, 63  # exit statuses of qemu-img check
COMPARE_EQUAL, COMPARE_DIFFERENT = 0, 1
MOST_RANGES: Final = 4  # of a disk that are compared side by side
SPARSE_BYTES, SPARSE_RATIO = 4 * GIB, 8  # from so large a disk on, and this many times its files: nearly empty
LEAST_RANGE, RANGE_AT = 128 * 1024 * 1024, 1024 * 1024  # bytes; where one may begin

_PROGRESS: Final = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_JSON_NAME: Final = re.compile(r"'?json:\{.*?\}\}+'?")
_INPUT: Final = re.compile(r"/in/\d+|/proc/self/fd/\d+")
_PATH: Final = re.compile(r"(?<![\w.])/[\w./+@:-]+")


# Written by us: what qemu-img compresses with zlib takes it ten times as long, and a VMDK it writes on one core only.
WRITERS: Final[Mapping[TargetKind, Writer]] = {
    TargetKind.VMDK_STREAM: write_vmdk_stream,
    TargetKind.QCOW2_ZLIB: write_qcow2_zlib,
    TargetKind.QCOW2_ZSTD: write_qcow2_zstd,
}


class Converter:
    """Every method ends its children before it returns or raises, also on cancellation."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._crew = Crew()
        self._cores = len(os.sched_getaffinity(0))
        self._comparing = 0  # disks

    async def convert(
        self,
        source: Path,
        source_format: DiskFormat,
        target: Path,
        target_kind: TargetKind,
        *,
        virtual_size: int,
        progress: Callable[[float], None],
        window: Window | None = None,
    ) -> None:
        """Write the disk in `source`, which has passed the gate, to the file `target`; what was there is lost.

        `virtual_size` (bytes) is what the gate found; time and room are limited by it. `progress` gets 0.0 to 1.0.
        `window`: where in `source` the image lies, if it is only a part of it.
        On any failure the caller removes `target`; it is not synced to the disk. Raises `ConversionFailed`, `NoSpace`,
        and a leaf of `DiskRefused` for a VHD image that did not pass the gate.
        """
        if reason := too_large(target_kind, virtual_size):
            raise ConversionFailed(reason)
        kind, seen = TARGETS[target_kind], _Progress(progress)
        image = await asyncio.to_thread(named_for_qemu, source, source_format, 0, window)
        await asyncio.to_thread(_emptied, target)
        if target_kind in WRITERS:
            await self._write(
                WRITERS[target_kind], source, source_format, image, target, virtual_size, window, seen.reached
            )
            seen.reached(1.0)
            return
        options = ("-o", ",".join(kind.options)) if kind.options else ()
        result = await self._qemu_img(
            ["convert", "-p", "-O", DRIVERS[kind.format], *options, image, OUT_FILE],
            read_only=[source],
            writable=target,
            limits=_limits(virtual_size),
            progress=seen,
        )
        if result.status != 0:
            raise failure(result, "the image could not be converted")
        seen.reached(1.0)

    async def _write(
        self,
        writer: Writer,
        source: Path,
        source_format: DiskFormat,
        image: str,
        target: Path,
        virtual_size: int,
        window: Window | None,
        progress: Callable[[float], None],
    ) -> None:
        limits = _limits(virtual_size)
        work = write(
            writer,
            self._sandbox,
            self._crew,
            source,
            source_format,
            image,
            target,
            virtual_size=virtual_size,
            limits=limits,
            window=window,
            progress=progress,
        )
        await _told_as_ours(work, limits, "the image could not be converted")

    async def flatten(
        self,
        layers: Sequence[tuple[Path, DiskFormat]],
        target: Path,
        *,
        virtual_size: int,
        progress: Callable[[float], None],
    ) -> None:
        """Write the disk that `layers`, the upper one first, make up to the file `target`, as qcow2. The upper ones are
        qcow2; each has passed the gate on its own, so that none names another. For the rest as `convert`."""
        seen = _Progress(progress)
        await asyncio.to_thread(_emptied, target)
        result = await self._qemu_img(
            ["convert", "-p", "-O", DRIVERS[DiskFormat.QCOW2], "-o", "compat=1.1", _chain(layers), OUT_FILE],
            read_only=[path for path, _ in layers],
            writable=target,
            limits=_limits(virtual_size),
            progress=seen,
        )
        if result.status != 0:
            raise failure(result, "the files of the disk could not be made one")
        seen.reached(1.0)

    async def compare(
        self,
        one: Path,
        one_format: DiskFormat,
        other: Path,
        other_format: DiskFormat,
        *,
        virtual_size: int,
        progress: Callable[[float], None],
        window: Window | None = None,
    ) -> None:
        """Return if a guest would read the same bytes from both, to the same size. `window` is that of `one`.

        A large disk is cut into ranges that are compared side by side. One that is nearly empty is read only where
        there are data: of some formats qemu-img looks at each cluster, and has no end.
        Raises `VerificationFailed` if not, `ConversionFailed` if one of them cannot be read.
        """
        seen = _Progress(progress)
        images = [
            await asyncio.to_thread(_options, one, one_format, 0, window),
            await asyncio.to_thread(_options, other, other_format, 1),
        ]
        if await asyncio.to_thread(_nearly_empty, [one, other], [one_format, other_format], virtual_size):
            limits = _limits(virtual_size)
            first = Image(path=one, format=one_format, name=_json(images[0]), window=window)
            # The server of each sees one file only, as number 0.
            name = await asyncio.to_thread(named_for_qemu, other, other_format, 0)
            second = Image(path=other, format=other_format, name=name)
            work = compare(self._sandbox, first, second, other.parent, limits=limits, progress=seen.reached)
            await _told_as_ours(work, limits, "the result could not be compared with the image")
            seen.reached(1.0)
            return
        self._comparing += 1
        try:
            starts = range_starts(virtual_size, max(1, self._cores // self._comparing))
            results = await self._compared([one, other], images, starts, virtual_size, seen)
            if any(result.status not in (COMPARE_EQUAL, COMPARE_DIFFERENT) for result in results):
                # Which of them is too short for its range, or why it cannot be read, is told of the whole disk.
                results = await self._compared([one, other], images, [0], virtual_size, seen)
        finally:
            self._comparing -= 1
        for start, result in zip(starts, results, strict=False):
            _found_equal(result, start)
        seen.reached(1.0)

    async def _compared(
        self,
        paths: list[Path],
        images: list[Mapping[str, object]],
        starts: list[int],
        virtual_size: int,
        seen: "_Progress",
    ) -> list[Result]:
        """What qemu-img says of each range, from its start to the next one's. The last has no end, so that a disk that
        is longer is found out."""
        limits, ends = _limits(virtual_size), [*starts[1:], None]
        done = [0.0] * len(starts)

        async def compared(number: int) -> Result:
            start, end = starts[number], ends[number]
            share = ((virtual_size if end is None else end) - start) / virtual_size

            def told(part: float) -> None:
                done[number] = part * share
                seen.reached(min(1.0, sum(done)))

            names = [_json(image if len(starts) == 1 else _range(image, start, end)) for image in images]
            return await self._qemu_img(
                ["compare", "-p", *names], read_only=paths, writable=None, limits=limits, progress=_Progress(told)
            )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(compared(number)) for number in range(len(starts))]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def check(self, path: Path, format_: DiskFormat, *, window: Window | None = None) -> None:
        """Return if qemu-img finds the image's tables consistent; at once for a format without such a check.

        Raises `TruncatedDisk` if they are damaged, `ConversionFailed` if it cannot tell.
        """
        if format_ not in CHECKED:
            return
        image = await asyncio.to_thread(named_for_qemu, path, format_, 0, window)
        size = (await asyncio.to_thread(path.stat)).st_size if window is None else window.length
        seconds = WALL_S + CHECK_S_PER_GIB * size / GIB
        limits = Limits(memory_bytes=MEMORY_BYTES, cpu_s=int(seconds), file_bytes=1, wall_s=seconds)
        result = await self._qemu_img(["check", image], read_only=[path], writable=None, limits=limits, progress=None)
        if result.status in (CHECK_OK, CHECK_LEAKS, CHECK_UNSUPPORTED):
            return
        if result.status == CHECK_CORRUPT:
            raise TruncatedDisk(f"the tables of the image are damaged: {told(result.stderr or result.stdout)}")
        raise failure(result, "the image could not be checked")

    async def _qemu_img(
        self,
        arguments: list[str],
        *,
        read_only: list[Path],
        writable: Path | None,
        limits: Limits,
        progress: "_Progress | None",
    ) -> Result:
        try:
            return await self._sandbox.run(
                ["qemu-img", *arguments],
                read_only=read_only,
                writable=writable,
                limits=limits,
                on_output=progress,
            )
        except TimeoutError:
            raise ConversionFailed(f"qemu-img took longer than {limits.wall_s:.0f} s") from None


class _Progress:
    """Finds percentages in qemu-img's output, which comes in pieces; tells only those that are new."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._told = -1.0

    def __call__(self, piece: bytes) -> None:
        text = self._rest + piece
        self._rest = text[-32:]
        found = _PROGRESS.findall(text)
        if found:
            self.reached(min(float(found[-1]) / 100, 1.0))

    def reached(self, part: float) -> None:
        if part > self._told:
            self._told = part
            self._tell(part)


async def _told_as_ours(work: Awaitable[None], limits: Limits, what: str) -> None:
    """Carry out what reads or writes disks in threads of ours."""
    try:
        await work
    except ServerFailed as error:
        raise failure(error.result, what) from error
    except TimeoutError:
        raise ConversionFailed(f"reading the image took longer than {limits.wall_s:.0f} s") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the disk of the service is full") from error
        raise


def _nearly_empty(paths: Sequence[Path], formats: Sequence[DiskFormat], virtual_size: int) -> bool:
    """Of VHDX qemu does not tell where there are data."""
    stored = max(path.stat().st_blocks * 512 for path in paths)
    return virtual_size >= SPARSE_BYTES and virtual_size > SPARSE_RATIO * stored and DiskFormat.VHDX not in formats


def range_starts(virtual_size: int, most: int) -> list[int]:
    """Where the ranges begin that a disk is compared in, side by side: `most` at most, none of them small."""
    count = max(1, min(most, MOST_RANGES, virtual_size // LEAST_RANGE))
    return [virtual_size * number // count // RANGE_AT * RANGE_AT for number in range(count)]


def _found_equal(result: Result, start: int) -> None:
    """`start` is the first byte of the disk that was compared."""
    if result.status not in (COMPARE_EQUAL, COMPARE_DIFFERENT):
        raise failure(result, "the result could not be compared with the image")
    said = result.stdout + result.stderr
    if result.status == COMPARE_DIFFERENT:
        place = re.search(rb"at offset (\d+)", said)
        where = f", first at byte {start + int(place[1])} of the disk" if place else ""
        raise VerificationFailed(f"the result does not hold the same bytes as the image{where}")
    if b"size mismatch" in said:
        raise VerificationFailed("the result does not have the same virtual size as the image")


def told(words: bytes) -> str:
    """The last words of qemu-img, fit for a user: no path, no control character, not long."""
    text = words.decode(errors="replace")
    text = _JSON_NAME.sub("the image", text)
    text = text.replace(f"'{OUT_FILE}'", "the result").replace(OUT_FILE, "the result")
    text = _PATH.sub("a file", _INPUT.sub("the image", text))
    lines = [line.removeprefix("qemu-img: ").removeprefix("qemu-nbd: ").strip() for line in text.splitlines()]
    text = "; ".join(line for line in lines if line)[-MOST_WORDS:]
    return "".join(character if character.isprintable() else " " for character in text) or "no reason given"


def failure(result: Result, what: str) -> ConversionFailed | NoSpace:
    said = result.stderr
    if b"No space left on device" in said or b"Disk quota exceeded" in said:
        return NoSpace("the disk of the service is full")
    if b"File too large" in said:
        return ConversionFailed(f"{what}: the result would be larger than its disk")
    # bubblewrap tells the signal that ended its child as 128 + its number.
    signal_number = -result.status if result.status < 0 else result.status - 128
    if 0 < signal_number < 65:
        return ConversionFailed(f"{what}: qemu-img was ended (signal {signal_number}): it needed more than is allowed")
    return ConversionFailed(f"{what}: {told(said)}")


def _limits(virtual_size: int) -> Limits:
    return Limits(
        memory_bytes=MEMORY_BYTES,
        cpu_s=CPU_S + CPU_S_PER_GIB * virtual_size // GIB,
        file_bytes=virtual_size + virtual_size // 16 + OVERHEAD_BYTES,
        wall_s=WALL_S + WALL_S_PER_GIB * virtual_size / GIB,
    )


def named_for_qemu(path: Path, format_: DiskFormat, number: int, window: Window | None = None) -> str:
    """How qemu-img is told of an input: its driver, its name inside the sandbox, and no way to another file."""
    return _json(_options(path, format_, number, window))


def _options(path: Path, format_: DiskFormat, number: int, window: Window | None = None) -> Mapping[str, object]:
    options: dict[str, object] = {"driver": DRIVERS[format_], "read-only": True}
    if format_ in WITH_BACKING:
        options["backing"] = None
    if format_ is DiskFormat.VHD:
        options["force_size_calc"] = "chs" if _vhd_footer(path, window).by_geometry else "current_size"
    # The file comes last: `told` finds the end of the whole by its braces.
    file: dict[str, object] = {"driver": "file", "filename": inside(number)}
    if window is not None:
        # In whole sectors. What follows the image in the last one is of the archive around it.
        size = rounded_up(window.length, SECTOR)
        file = {"driver": "raw", "read-only": True, "offset": window.offset, "size": size, "file": file}
    options["file"] = file
    return options


def _range(image: Mapping[str, object], start: int, end: int | None) -> Mapping[str, object]:
    """A part of the disk in an image, to its end if none is given."""
    part: dict[str, object] = {"driver": "raw", "read-only": True, "offset": start}
    if end is not None:
        part["size"] = end - start
    return part | {"file": image}


def _json(options: Mapping[str, object] | None) -> str:
    return "json:" + msgspec.json.encode(options).decode()


def _chain(layers: Sequence[tuple[Path, DiskFormat]]) -> str:
    """How qemu-img is told of a disk in several files: each has the one below it as its backing file, the last none."""
    options: dict[str, object] | None = None
    for number, (_, format_) in reversed([*enumerate(layers)]):
        file = {"driver": "file", "filename": inside(number)}
        layer: dict[str, object] = {"driver": DRIVERS[format_], "read-only": True, "file": file}
        if format_ in WITH_BACKING:
            layer["backing"] = options
        options = layer
    return _json(options)


def _vhd_footer(path: Path, window: Window | None) -> vhd.Footer:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        place = window or Window(offset=0, length=size)

        def read_at(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, place.offset + offset)

        disk = DiskFile(read_at, place.length, most_virtual_bytes=size)
        return vhd.footer_of(disk)


def _emptied(target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(target, flags, 0o600))
