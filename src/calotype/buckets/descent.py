"""From a bucket's folder down to a file, one component at a time, so that nothing outside is ever reached.

Each step is relative to the open folder above it and follows no symbolic link; `..` is no component (`object_key`).
What is not a folder or a regular file is neither followed nor opened.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def folder_below(root: Path, segments: Sequence[str], *, make_mode: int | None = None) -> Iterator[int]:
    """Open the folder at `segments` below `root`; with `make_mode`, make what lacks, durably.

    Raises `FileNotFoundError` for a missing one, `NotADirectoryError` where something else is, a link too.
    `root` itself may be a link: it is the operator's word.
    """
    fd = os.open(root, FOLDER)
    try:
        for segment in segments:
            below = _step(fd, segment, make_mode)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _step(fd: int, segment: str, make_mode: int | None) -> int:
    if make_mode is not None:
        with suppress(FileExistsError):
            os.mkdir(segment, make_mode, dir_fd=fd)
            os.fsync(fd)
    try:
        return os.open(segment, FOLDER | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as error:
        if error.errno == errno.ELOOP:  # what some kernels say of a link where others say that it is no folder
            raise NotADirectoryError(errno.ENOTDIR, "a symbolic link", segment) from error
        raise


def regular(parent: int, name: str) -> os.stat_result:
    """What is known of the regular file `name`. Raises `FileNotFoundError` also where something else is."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError
    return found


def open_regular(parent: int, name: str) -> int:
    """Open the regular file `name` for reading. Looked at before, because opening a device may already do something;
    and after, because it may be another by then. Raises `FileNotFoundError`."""
    found = regular(parent, name)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    if not os.path.samestat(found, os.fstat(fd)):
        os.close(fd)
        raise FileNotFoundError
    return fd


def remove_empty(root: Path, segments: Sequence[str]) -> None:
    """Remove the folder at `segments` if it is empty, and then those above it; never `root`."""
    for depth in range(len(segments), 0, -1):
        try:
            with folder_below(root, segments[: depth - 1]) as parent:
                os.rmdir(segments[depth - 1], dir_fd=parent)
        except FileNotFoundError:
            continue
        except OSError:  # not empty, or not ours to remove
            return
