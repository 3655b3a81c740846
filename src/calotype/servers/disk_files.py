"""The files of a stopped server's disks, copied as they were at one moment: nobody writes to them from the first look
to the last, or the copy counts for nothing.

Two things tell of a writer. QEMU holds a lock on a file that it may write to, whatever domain or program it works for;
and a file that was written to has another time. A block device has no such time, so the lock is looked for again and
again while it is copied: no domain starts and stops between two looks.

A disk may be a chain of files, each with what was written since the one below was frozen. Which files those are, only
the operator's description says: a header may be of a tenant's making. Each layer is copied, its copy loses the name of
its backing file, passes the gate on its own, and only then are the copies made one disk.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

import structlog
from msgspec import Struct

from calotype.blobs import sparse
from calotype.blobs.faults import storage_fault
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat
from calotype.errors import DiskRefused, JobCancelled, ObjectChanged, VolumeUnusable
from calotype.servers.domain_xml import Disk, Layer
from calotype.servers.model import Volume
from calotype.servers.qcow2_header import HEADER_BYTES, detached, names_backing
from calotype.servers.source import Captured

# What a driver of QEMU reads is called in the Image API.
FORMATS: Final = {
    "raw": DiskFormat.RAW,
    "qcow2": DiskFormat.QCOW2,
    "vmdk": DiskFormat.VMDK,
    "vpc": DiskFormat.VHD,
    "vhdx": DiskFormat.VHDX,
    "vdi": DiskFormat.VDI,
}
LAYERED: Final = frozenset({DiskFormat.RAW, DiskFormat.QCOW2})  # what a chain may be made of
MOST_VIRTUAL_BYTES: Final = 64 * 1024**4  # of a layer
# Source: QEMU, block/file-posix.c: a byte is locked for each thing that a user of the file may do; the second: write.
WRITER: Final = 101
FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux

log = structlog.get_logger()


class Disturbed(Exception):
    """Someone else worked on the disks, or the server changed its state: what was copied counts for nothing."""


class Flatten(Protocol):
    def __call__(
        self,
        layers: Sequence[tuple[Path, DiskFormat]],
        target: Path,
        *,
        virtual_size: int,
        progress: Callable[[float], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Write the disk that the layers, the upper one first, make up to the file `target`, as qcow2. All have passed
        the gate. Raises `ConversionFailed`, `NoSpace`, `JobCancelled`."""
        ...


class Wanted(Struct, frozen=True, kw_only=True):
    disk: Disk
    volume: Volume


class _Open(Struct, frozen=True, kw_only=True):
    """A layer that is being copied."""

    fd: int
    size: int  # bytes
    seen: tuple[int, ...]  # changes whenever its content does, but for a block device
    format: DiskFormat
    detach: bool  # its copy must not name a backing file
    copy: Path

    def check(self) -> None:
        """Raises `Disturbed`."""
        answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, WRITER, 1, 0))
        if struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK:
            raise Disturbed("the disk is open for writing")
        if _seen(os.fstat(self.fd)) != self.seen:
            raise Disturbed("the disk was written to")


class Copying:
    """Copies of disks in `folder`, under the names `disk-SLOT`."""

    def __init__(
        self, folder: Path, flatten: Flatten | None, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> None:
        self._folder = folder
        self._flatten = flatten
        self._progress = progress
        self._cancelled = cancelled
        self._done = self._total = 0

    def copy(self, wanted: Sequence[Wanted], check_stopped: Callable[[], None]) -> list[Captured]:
        """`check_stopped` raises `Disturbed` when the server is not stopped any more. Raises `Disturbed`,
        `VolumeUnusable`, `NoSpace`, `Unavailable`, `JobCancelled`, `ConversionFailed`; files may be left then."""
        with ExitStack() as opened:
            disks = [[opened.enter_context(layer) for layer in self._layers(each)] for each in wanted]
            layers = [layer for disk in disks for layer in disk]
            check_stopped()
            for layer in layers:
                layer.check()
            flattened = sum(each.volume.size for each, disk in zip(wanted, disks, strict=True) if len(disk) > 1)
            self._done, self._total = 0, flattened + sum(layer.size for layer in layers)
            for layer in layers:
                self._copy(layer)
            for layer in layers:
                layer.check()
            check_stopped()
        return [self._captured(each, disk) for each, disk in zip(wanted, disks, strict=True)]

    def _layers(self, wanted: Wanted) -> Iterator[AbstractContextManager[_Open]]:
        disk = wanted.disk
        formats = [_format(layer, alone=len(disk.layers) == 1) for layer in disk.layers]
        for number, (layer, format_) in enumerate(zip(disk.layers, formats, strict=True)):
            last = number == len(disk.layers) - 1
            name = f"disk-{wanted.volume.slot}" + (f".layer-{number}" if len(disk.layers) > 1 else "")
            yield _opened(layer, format_, self._folder / name, detach=disk.complete or not last)

    def _copy(self, layer: _Open) -> None:
        def cancelled() -> bool:
            layer.check()
            return self._cancelled()

        def advance(done: int) -> None:
            self._progress(min(before + done, self._total), self._total)

        before = self._done
        layer.copy.unlink(missing_ok=True)
        try:
            with layer.copy.open("xb+", buffering=0) as target:
                os.fchmod(target.fileno(), 0o600)
                if stat.S_ISBLK(os.fstat(layer.fd).st_mode):
                    _copy_device(layer, target.fileno(), advance, cancelled)
                else:
                    sparse.copy(layer.fd, target.fileno(), layer.size, progress=advance, cancelled=cancelled)
                if layer.detach and layer.format is DiskFormat.QCOW2:
                    head = os.pread(target.fileno(), HEADER_BYTES, 0)
                    if names_backing(head):
                        os.pwrite(target.fileno(), detached(head), 0)
        except ObjectChanged as error:
            raise Disturbed("the disk became smaller") from error
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENXIO):
                log.warning("disk_unreadable", reason=error.strerror)
                raise VolumeUnusable("the disk cannot be read") from error
            raise storage_fault(error) from error
        self._done += layer.size

    def _captured(self, wanted: Wanted, layers: Sequence[_Open]) -> Captured:
        if len(layers) == 1:
            return Captured(
                volume=wanted.volume, path=layers[0].copy, size=layers[0].size, format=layers[0].format.value
            )
        virtual_size, *_ = [_passed(layer) for layer in layers]
        if self._flatten is None:
            raise VolumeUnusable("the disk is a chain of files, which nothing here can make one")
        target, before = self._folder / f"disk-{wanted.volume.slot}", self._done
        target.unlink(missing_ok=True)
        self._flatten(
            [(layer.copy, layer.format) for layer in layers],
            target,
            virtual_size=virtual_size,
            progress=lambda part: self._progress(before + int(part * wanted.volume.size), self._total),
            cancelled=self._cancelled,
        )
        self._done += wanted.volume.size
        for layer in layers:
            layer.copy.unlink()
        return Captured(volume=wanted.volume, path=target, size=target.stat().st_size, format=DiskFormat.QCOW2.value)


def _format(layer: Layer, *, alone: bool) -> DiskFormat:
    format_ = FORMATS.get(layer.format)
    if format_ is None or (not alone and format_ not in LAYERED):
        raise VolumeUnusable("the disk is of a format that is not read here")
    return format_


@contextmanager
def _opened(layer: Layer, format_: DiskFormat, copy: Path, *, detach: bool) -> Iterator[_Open]:
    """Raises `VolumeUnusable`."""
    try:
        # A pipe or a device that is not ready must not make anyone wait.
        fd = os.open(layer.path or "", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        log.warning("disk_not_opened", path=layer.path, reason=error.strerror)
        missing = isinstance(error, FileNotFoundError)
        raise VolumeUnusable("the disk is not there" if missing else "the service may not read the disk") from error
    try:
        found = os.fstat(fd)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise VolumeUnusable("the disk is neither a file nor a block device")
        if format_ is DiskFormat.QCOW2 and not detach and names_backing(os.pread(fd, 512, 0)):
            raise VolumeUnusable(
                "the disk has a backing file that the description of the server does not name; name it in"
                " <backingStore>, or flatten the disk"
            )
        size = os.lseek(fd, 0, os.SEEK_END)
        yield _Open(fd=fd, size=size, seen=_seen(found), format=format_, detach=detach, copy=copy)
    finally:
        os.close(fd)


def _seen(found: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISBLK(found.st_mode):
        return (found.st_rdev,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _copy_device(layer: _Open, target: int, progress: Callable[[int], None], cancelled: Callable[[], bool]) -> None:
    """A block device knows no holes: runs of zeros become some."""
    os.ftruncate(target, layer.size)
    at = 0
    while at < layer.size:
        if cancelled():
            raise JobCancelled("cancelled while copying")
        piece = os.pread(layer.fd, min(sparse.READ_BYTES, layer.size - at), at)
        if not piece:
            raise ObjectChanged("the device became smaller while it was read")
        for offset, parts in sparse.written_pieces([piece], at):
            place = offset
            for part in parts:
                place += _written(target, part, place)
        at += len(piece)
        progress(at)


def _written(target: int, part: memoryview, place: int) -> int:
    done = 0
    while done < len(part):
        done += os.pwrite(target, part[done:], place + done)
    return done


def _passed(layer: _Open) -> int:
    """The size in bytes of the disk that the copy of a layer describes. Raises `VolumeUnusable`."""
    try:
        with layer.copy.open("rb") as file:
            return inspect(file, declared=layer.format.value, most_virtual_bytes=MOST_VIRTUAL_BYTES).virtual_size
    except DiskRefused as error:
        raise VolumeUnusable(f"one of the files that the disk is made of is refused: {error}") from error
