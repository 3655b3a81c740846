"""The files of a node's cache: one for each image, named by its id; whole and checked before they have that name.

Waits for the disk: call it in a thread. Any number of processes of the node may use it at once; one of them fills it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.blobs.faults import storage_fault
from calotype.blobs.local import BlobReader, sync_folder
from calotype.errors import Unavailable

NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PART: Final = ".part"
LOCK: Final = "lock"


class CacheFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def filling(self) -> Iterator[bool]:
        """Whether the caller is the one that may fill and tidy, while the context lasts."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def open(self, image_id: str, size: int) -> BlobReader | None:
        """None when there is no file, or one that cannot be what the image is."""
        try:
            fd = os.open(self._path(image_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        reader = BlobReader(fd, os.fstat(fd).st_size)
        if reader.size == size:
            return reader
        reader.close()
        return None

    def part(self, image_id: str) -> Path:
        """Where the bytes are gathered."""
        return self._path(image_id).with_suffix(PART)

    def keep(self, image_id: str) -> None:
        """Give what was gathered, and synced, its name."""
        try:
            self.part(image_id).rename(self._path(image_id))
            sync_folder(self._folder)
        except OSError as error:
            raise storage_fault(error) from error

    def remove(self, image_id: str) -> None:
        """Those who read it now still can."""
        self._path(image_id).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Image id -> bytes on the disk."""
        found = {}
        try:
            with os.scandir(self._folder) as files:
                for file in files:
                    if NAME.fullmatch(file.name):
                        found[file.name] = _size(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise storage_fault(error) from error
        return found

    def clear_parts(self) -> None:
        """Remove what a dead process was gathering. Only for the one that may fill."""
        for path in self._folder.glob(f"*{PART}"):
            path.unlink(missing_ok=True)

    def _path(self, image_id: str) -> Path:
        if not NAME.fullmatch(image_id):
            raise Unavailable("no image of the cache")
        return self._folder / image_id


def _size(file: "os.DirEntry[str]") -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
