"""Copies of disk files that other programs may be writing to: of one moment, or none.

A file system that shares blocks between files (XFS, Btrfs) makes the copy of a file in one moment. Everywhere else, and
where several files must be of one moment together, nothing may have been written to any of them from before the first
byte was read until after the last one. What QEMU has open for writing is not copied at all: what the guest has written
last may still be in QEMU's memory, and the tables in the file those of a moment before.
"""

import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from calotype.blobs import sparse
from calotype.blobs.faults import storage_fault
from calotype.buckets.descent import folder_below, open_regular
from calotype.buckets.incoming import NEW_FILE
from calotype.errors import JobCancelled, NoSpace, ObjectChanged, VolumeBusy, VolumeUnusable
from calotype.servers.model import Volume
from calotype.servers.shelves import Version, version_of
from calotype.servers.source import Captured

BLOCK_BYTES: Final = 4 * 1024 * 1024  # copied between two looks at the wish to stop, and at the source
ATTEMPTS: Final = 3
TICK_NS: Final = 50_000_000  # within so long, two changes of a file may bear the same time
LOOK_EVERY_S: Final = 0.1

# QEMU's lock on an image: a byte for each permission that is in use, and shared by those who have the same.
# Source: QEMU, block/file-posix.c and include/block/block-common.h (BLK_PERM_WRITE … BLK_PERM_RESIZE).
WRITERS_AT: Final = 101
WRITERS_BYTES: Final = 3
FLOCK: Final = "hhqqi"  # struct flock: type, whence, start, length, process

Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]


class DiskFile(Struct, frozen=True, kw_only=True):
    """A disk of the inventory, and where its bytes are below it."""

    volume: Volume
    segments: tuple[str, ...]
    format: str | None


class _Changed(Exception):
    """A source was written to while it was copied."""


def copied(
    root: Path,
    disks: Sequence[DiskFile],
    folder: Path,
    *,
    name: str,
    retry_s: float,
    progress: Progress,
    cancelled: Cancelled,
) -> list[Captured]:
    """Copies in `folder` of all disks, of one moment. What an earlier run of that `name` left there goes first.

    Tries three times, with `retry_s` between. Raises `VolumeBusy` when it cannot be done while others write,
    `VolumeUnusable` when a file is gone, `NoSpace`, `Unavailable`, `JobCancelled`; then there is nothing in `folder`.
    """
    try:
        for attempt in range(ATTEMPTS):
            taken_back(folder, name)
            if attempt:
                _pause(retry_s, cancelled)
            with suppress(_Changed):
                return _at_once(root, disks, folder, name, progress, cancelled)
    except BaseException:
        taken_back(folder, name)
        raise
    taken_back(folder, name)
    raise VolumeBusy(f"{_names(disks)}: another program kept writing while it was copied; stop it first")


def taken_back(folder: Path, name: str) -> None:
    """Remove every copy of the run `name`."""
    ours = re.compile(re.escape(name) + r"\.[0-9]+")
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if ours.fullmatch(path.name):
                path.unlink(missing_ok=True)


def open_below(root: Path, segments: Sequence[str]) -> int:
    """Open a regular file below `root`, over no symbolic link. Raises `FileNotFoundError`, `NotADirectoryError`."""
    with folder_below(root, segments[:-1]) as parent:
        return open_regular(parent, segments[-1])


def written_by_qemu(fd: int) -> bool:
    """Whether QEMU has the file open for writing. Asks for a lock without taking it, so that nobody is in its way."""
    wanted = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, WRITERS_AT, WRITERS_BYTES, 0)
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted)
    except OSError:  # a file system without locks
        return False
    return bool(struct.unpack(FLOCK, found)[0] != fcntl.F_UNLCK)


def _at_once(
    root: Path, disks: Sequence[DiskFile], folder: Path, name: str, progress: Progress, cancelled: Cancelled
) -> list[Captured]:
    """One attempt. Raises `_Changed`."""
    with ExitStack() as opened:
        sources = [opened.enter_context(_source(root, disk)) for disk in disks]
        before = _versions(sources)
        if any(time.time_ns() - changed < TICK_NS for version in before for changed in version[3:]):
            _pause(TICK_NS / 1e9, cancelled)
            before = _versions(sources)
        total = sum(version[2] for version in before)
        made: list[Captured] = []
        shared = False

        def tell(at: int) -> None:
            progress(sum(one.size for one in made) + at, total)

        def stop() -> bool:
            if _versions(sources) != before:
                raise _Changed
            return cancelled()

        for number, (disk, fd, version) in enumerate(zip(disks, sources, before, strict=True)):
            if stop():
                raise JobCancelled("cancelled while copying")
            path = folder / f"{name}.{number}"
            shared = _copy(fd, path, version[2], tell, stop)
            made.append(Captured(volume=disk.volume, path=path, size=version[2], format=disk.format))
        if not (shared and len(made) == 1) and _versions(sources) != before:
            raise _Changed
        return made


@contextmanager
def _source(root: Path, disk: DiskFile) -> Iterator[int]:
    try:
        fd = open_below(root, disk.segments)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VolumeUnusable(f"volume {disk.volume.id}: its file is not there") from error
    except OSError as error:
        raise storage_fault(error) from error
    try:
        if written_by_qemu(fd):
            raise VolumeBusy(
                f"volume {disk.volume.id} is in use by a virtual machine; stop it, or let the service ask libvirt"
            )
        yield fd
    finally:
        os.close(fd)


def _copy(fd: int, path: Path, size: int, progress: sparse.Progress, stop: Cancelled) -> bool:
    """Whether the blocks are shared: then all are of one moment."""
    try:
        target = os.open(path, NEW_FILE, 0o600)
        try:
            if sparse.clone(fd, target):
                if os.fstat(target).st_size != size:
                    raise _Changed
                progress(size)
                return True
            _check_space(fd, target)
            sparse.copy(fd, target, size, block_bytes=BLOCK_BYTES, progress=progress, cancelled=stop)
        finally:
            os.close(target)
    except ObjectChanged as error:
        raise _Changed from error
    except OSError as error:
        raise storage_fault(error) from error
    return False


def _check_space(fd: int, target: int) -> None:
    known = os.fstatvfs(target)
    if os.fstat(fd).st_blocks * 512 > known.f_bavail * known.f_frsize:
        raise NoSpace("the disk of the service has no room for a copy of the volume; free space and try again")


def _versions(sources: Sequence[int]) -> list[Version]:
    return [version_of(os.fstat(fd)) for fd in sources]


def _pause(seconds: float, cancelled: Cancelled) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled():
            raise JobCancelled("cancelled while waiting for a volume")
        time.sleep(min(left, LOOK_EVERY_S))


def _names(disks: Sequence[DiskFile]) -> str:
    return ", ".join(f"volume {disk.volume.id}" for disk in disks)
