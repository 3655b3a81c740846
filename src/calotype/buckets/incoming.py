"""Bytes on their way to be an object: a file in the bucket's own temporary folder, published or abandoned."""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from calotype.blobs.local import NO_LINK
from calotype.buckets.address import TEMPORARY, object_key
from calotype.buckets.descent import folder_below, open_regular, regular, remove_empty
from calotype.buckets.faults import told
from calotype.errors import (
    BucketNotFound,
    BucketReadOnly,
    CalotypeError,
    ObjectExists,
    ObjectIsFolder,
    Unavailable,
)

TRIES: Final = 10  # of naming an object while others remove the folders it goes to
NEW_FILE: Final = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Incoming:
    """`token` names who brings the bytes. Raises as `FolderStore`. Used by one thread at a time."""

    def __init__(self, root: Path, bucket: str, *, folder_mode: int, file_mode: int, token: str = "") -> None:
        self._root = root
        self._bucket = bucket
        self._folder_mode = folder_mode
        self._file_mode = file_mode
        self._name = f"{token or 'p'}.{uuid.uuid4().hex}"
        self.fd = -1

    def open(self) -> None:
        """Make the file, empty; `fd` is open for writing."""
        with self._told(), folder_below(self._root, [TEMPORARY], make_mode=0o700) as folder:
            self.fd = os.open(self._name, NEW_FILE, self._file_mode, dir_fd=folder)

    def link(self, source: Path) -> bool:
        """Instead: make it another name of `source`, and say whether that could be done. `fd` is open for reading."""
        with self._told(), folder_below(self._root, [TEMPORARY], make_mode=0o700) as folder:
            try:
                os.link(source, self._name, dst_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno in NO_LINK:
                    return False
                raise
            self.fd = open_regular(folder, self._name)
        return True

    def publish(self, key: str, *, exclusive: bool) -> os.stat_result:
        """Give the bytes their name: synced, all at once, durable on return; once.

        Raises `ObjectExists` for an exclusive one, `ObjectIsFolder`, and `BucketNotFound` when the bucket was deleted
        meanwhile; then it is still to be abandoned.
        """
        *segments, name = object_key(key).split("/")
        with self._told(key):
            os.fsync(self.fd)
            for _ in range(TRIES):
                try:
                    with folder_below(self._root, segments, make_mode=self._folder_mode) as parent:
                        self._rename(parent, name, key, exclusive)
                        os.fsync(parent)
                except FileNotFoundError as error:  # who deletes the last object of a folder removes the folder
                    self._still_there(error)
                    continue
                except (NotADirectoryError, IsADirectoryError, ObjectIsFolder, ObjectExists):
                    remove_empty(self._root, segments)
                    raise
                found = os.fstat(self.fd)
                self._close()
                return found
        raise Unavailable("the folders of the object are removed as fast as they are made; try again")

    def abandon(self) -> None:
        """Leave nothing behind, if it was not published."""
        if self.fd < 0:
            return
        self._close()
        with suppress(FileNotFoundError, BucketNotFound), self._told(), folder_below(self._root, [TEMPORARY]) as folder:
            os.unlink(self._name, dir_fd=folder)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abandon()
            raise

    def _rename(self, parent: int, name: str, key: str, exclusive: bool) -> None:
        with folder_below(self._root, [TEMPORARY]) as temporary:
            if exclusive:
                self._link(temporary, parent, name, key)
                return
            with suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISREG(there.st_mode):
                    raise ObjectIsFolder(self._bucket, key)
                if os.path.samestat(there, os.fstat(self.fd)):  # rename() would leave both names
                    os.unlink(self._name, dir_fd=temporary)
                    return
            os.rename(self._name, name, src_dir_fd=temporary, dst_dir_fd=parent)

    def _link(self, temporary: int, parent: int, name: str, key: str) -> None:
        try:
            try:
                os.link(self._name, name, src_dir_fd=temporary, dst_dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                # No hard links here: take the name with an empty file first. A power cut now would leave that.
                os.close(os.open(name, NEW_FILE, self._file_mode, dir_fd=parent))
                os.rename(self._name, name, src_dir_fd=temporary, dst_dir_fd=parent)
                return
        except FileExistsError as error:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind = ObjectExists if stat.S_ISREG(there.st_mode) else ObjectIsFolder
            raise kind(self._bucket, key) from error
        os.unlink(self._name, dir_fd=temporary)

    def _still_there(self, error: FileNotFoundError) -> None:
        """Raise `BucketNotFound` if it is not a folder that lacks but the bytes themselves."""
        try:
            with folder_below(self._root, [TEMPORARY]) as temporary:
                regular(temporary, self._name)
        except FileNotFoundError:
            raise BucketNotFound(self._bucket) from error

    def _told(self, key: str = "") -> AbstractContextManager[None]:
        denied: CalotypeError = BucketReadOnly(self._bucket)
        return told(self._root, self._bucket, key, denied)

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        os.close(fd)
