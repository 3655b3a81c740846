"""A bucket as a folder: an object is the regular file at its key's path.

An object is never changed in place: a new version is a new file, renamed over the old one. So a bucket whose folder is
the service's own (`owned`) can share its files with the blobs by hard links. A folder that the operator has mapped may
be written to by others: its bytes are copied, and looked at again afterwards.

Everything here waits for the disk: call it in a thread. Any number of threads and processes may do so at once.
"""

import errno
import hashlib
import math
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from calotype.blobs import sparse
from calotype.blobs.local import NO_LINK, BlobReader, sync_folder
from calotype.buckets import listing
from calotype.buckets.address import TEMPORARY, object_key
from calotype.buckets.descent import folder_below, open_regular, regular, remove_empty
from calotype.buckets.faults import told
from calotype.buckets.held import HeldObject
from calotype.buckets.incoming import NEW_FILE, Incoming
from calotype.buckets.model import ObjectInfo, ObjectKey, ObjectPage
from calotype.db.engine import now_ms
from calotype.errors import (
    BucketNotEmpty,
    BucketNotFound,
    BucketReadOnly,
    CalotypeError,
    ObjectChanged,
    ObjectExists,
    ObjectIsFolder,
    ObjectNotFound,
)

MOST_OBJECTS: Final = 1000  # of a page
MOST_TIME_MS: Final = 253_402_300_799_999  # the end of the year 9999; a mapped folder may have any time


class FolderStore:
    """Raises `BucketNotFound` when the folder is gone, `NoSpace` or `Unavailable` where the disk fails, and the leaves
    of `InvalidObjectKey` for a key that is none, before it looks at anything."""

    def __init__(self, root: Path, *, bucket: str, owned: bool, read_only: bool = False) -> None:
        self.root = root
        self.bucket = bucket
        self.owned = owned
        self.read_only = read_only

    # --- reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.root.is_dir()

    def stat(self, key: str) -> ObjectInfo:
        """Raises `ObjectNotFound`."""
        with self._found(key) as (parent, name):
            return object_info(key, regular(parent, name))

    def open(self, key: str) -> tuple[ObjectInfo, BlobReader]:
        """What is known of an object, and its open bytes. Raises `ObjectNotFound`."""
        with self._found(key) as (parent, name):
            fd = open_regular(parent, name)
        found = os.fstat(fd)
        return object_info(key, found), BlobReader(fd, found.st_size)

    def hold(self, key: str, expected_etag: str) -> HeldObject:
        """An object, open for as long as the caller wants. Raises `ObjectNotFound`, `ObjectChanged` when it is not the
        version `expected_etag`."""
        with self._found(key) as (parent, name):
            fd = open_regular(parent, name)
        held = HeldObject(fd, object_info(key, os.fstat(fd)))
        try:
            self._unchanged(key, os.fstat(fd), expected_etag)
        except ObjectChanged:
            held.close()
            raise
        return held

    def page(self, *, prefix: str = "", marker: str = "", limit: int = MOST_OBJECTS) -> ObjectPage:
        """The first `limit` objects, 1000 at most, whose keys begin with `prefix` and come after `marker`."""
        limit = max(1, min(limit, MOST_OBJECTS))
        found: list[ObjectInfo] = []
        with told(self.root, self.bucket, "", BucketNotFound(self.bucket)):
            for key, known in listing.walk(self.root, prefix=prefix, marker=marker, batch=limit + 1):
                if len(found) == limit:
                    return ObjectPage(objects=found, next_marker=found[-1].key)
                found.append(object_info(key, known))
        return ObjectPage(objects=found, next_marker=None)

    def snapshot(
        self,
        key: str,
        target: Path,
        expected_etag: str,
        *,
        part: tuple[int, int] | None = None,
        progress: sparse.Progress | None = None,
        cancelled: sparse.Cancelled | None = None,
    ) -> bool:
        """Make the new file `target` hold the object's bytes so that nobody changes them there; made anew if it exists.

        `part`: offset and length of what is wanted of it. Where bytes must be copied, `target` holds just these; a hard
        link has the whole object all the same.

        Says whether it is a hard link: then the file has other names, and who has it must not write to it either.
        `target` is there only when it is whole, also after a kill. Not synced. Raises `ObjectNotFound`, `ObjectChanged`
        when the object is not, or while it is copied no longer, the version `expected_etag`, `JobCancelled`; then there
        is no `target`.
        """
        target.unlink(missing_ok=True)
        growing = target.with_name(f"{target.name}.part")
        growing.unlink(missing_ok=True)
        try:
            with self._found(key) as (parent, name):
                if self.owned and _linked(parent, name, target):
                    self._unchanged(key, target.lstat(), expected_etag)
                    return True
            with self.hold(key, expected_etag) as held, self._told(key):
                _copied(held, growing, part or (0, held.size), progress, cancelled)
                if self.owned:
                    self._unchanged(key, os.fstat(held.fileno()), expected_etag)
                else:
                    held.check()
            growing.rename(target)
        except BaseException:
            for path in (growing, target):
                path.unlink(missing_ok=True)
            raise
        return False

    def _unchanged(self, key: str, found: os.stat_result, expected_etag: str) -> None:
        if _etag(found) != expected_etag:
            raise ObjectChanged(f"object {self.bucket}:{key} was changed meanwhile")

    # --- writing ------------------------------------------------------------------------------------------------------

    def check_put(self, key: str, *, exclusive: bool) -> None:
        """Whether an object could be put now: to be known before its bytes are read.

        Raises `BucketReadOnly`, `ObjectExists` for an exclusive one, `ObjectIsFolder`.
        """
        self.check_writable()
        *segments, name = object_key(key).split("/")
        with suppress(FileNotFoundError), self._told(key), folder_below(self.root, segments) as parent:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise ObjectIsFolder(self.bucket, key)
            if exclusive:
                raise ObjectExists(self.bucket, key)

    def incoming(self, token: str = "") -> Incoming:
        """Where the bytes of a new object can be written. Raises `BucketReadOnly`."""
        self.check_writable()
        # What lies in a mapped folder is for other programs too.
        folder_mode, file_mode = (0o700, 0o600) if self.owned else (0o755, 0o644)
        return Incoming(self.root, self.bucket, folder_mode=folder_mode, file_mode=file_mode, token=token)

    def put_file(self, source: Path, key: str, *, exclusive: bool, token: str = "") -> ObjectInfo:
        """Make the bytes of `source`, which nobody changes any more, an object; durable on return. `source` stays: in
        an owned bucket it may be the same file from then on.

        Running it again after a stop at any point ends in the same place: an object that is there already, and is
        `source` or equal to it, is no `ObjectExists`. Raises also `BucketReadOnly`, `ObjectIsFolder`.
        """
        self.check_put(key, exclusive=False)
        incoming = self.incoming(token)
        with incoming.abandoned_on_error():
            if not (self.owned and incoming.link(source)):
                incoming.open()
                with source.open("rb") as file, self._told(key):
                    sparse.copy(file.fileno(), incoming.fd, os.fstat(file.fileno()).st_size)
            try:
                return object_info(key, incoming.publish(key, exclusive=exclusive))
            except ObjectExists:
                info, theirs = self.open(key)
                with theirs, self._told(key):
                    if not _equal(theirs, incoming.fd):
                        raise
                incoming.abandon()
                return info

    def delete(self, key: str) -> None:
        """Raises `ObjectNotFound`, `BucketReadOnly`."""
        self.check_writable()
        with self._found(key, denied=BucketReadOnly(self.bucket)) as (parent, name):
            regular(parent, name)
            os.unlink(name, dir_fd=parent)
            os.fsync(parent)
        remove_empty(self.root, key.split("/")[:-1])

    def remove(self) -> None:
        """Remove the folder of an empty bucket. Raises `BucketNotEmpty`. Uploads under way end without an object.

        Removing the last, empty folder is what nobody can come between: once it is gone, nothing can be named in it.
        """
        if self.page(limit=1).objects:
            raise BucketNotEmpty(self.bucket)
        with self._told(""):
            self._remove_temporary(math.inf)
            for folder in listing.folders(self.root):
                remove_empty(self.root, folder.split("/")[:-1])
            try:
                self.root.rmdir()
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise BucketNotEmpty(self.bucket) from error
                raise
            sync_folder(self.root.parent)

    def sweep_temporary(self, older_than_ms: int) -> int:
        """Remove what uploads and jobs that are no more have left: temporary files that nobody has written to for so
        long. Returns how many."""
        return self._remove_temporary(now_ms() - older_than_ms)

    def _remove_temporary(self, before_ms: float) -> int:
        removed = 0
        with suppress(FileNotFoundError, NotADirectoryError), folder_below(self.root, [TEMPORARY]) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    # A linked file is as old as its bytes, the link as old as the last change to the inode.
                    if stat.S_ISREG(found.st_mode) and max(found.st_mtime, found.st_ctime) * 1000 <= before_ms:
                        os.unlink(name, dir_fd=folder)
                        removed += 1
        return removed

    def check_writable(self) -> None:
        if self.read_only:
            raise BucketReadOnly(self.bucket)

    # --- parts --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _found(self, key: str, *, denied: CalotypeError | None = None) -> Iterator[tuple[int, str]]:
        """The open folder that an object is in, and its name there."""
        *segments, name = object_key(key).split("/")
        missing = ObjectNotFound(self.bucket, key)
        try:
            with told(self.root, self.bucket, key, denied or missing), folder_below(self.root, segments) as parent:
                yield parent, name
        except (FileNotFoundError, ObjectIsFolder) as error:
            raise missing from error

    def _told(self, key: str) -> AbstractContextManager[None]:
        return told(self.root, self.bucket, key, BucketReadOnly(self.bucket))


def object_info(key: str, found: os.stat_result) -> ObjectInfo:
    modified_at = max(0, min(found.st_mtime_ns // 1_000_000, MOST_TIME_MS))
    return ObjectInfo(key=ObjectKey(key), size=found.st_size, modified_at=modified_at, etag=_etag(found))


def _etag(found: os.stat_result) -> str:
    """Not of the device, whose number may change when the machine starts anew, nor of what making a link changes."""
    identity = f"{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


def _linked(parent: int, name: str, target: Path) -> bool:
    regular(parent, name)
    try:
        os.link(name, target, src_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in NO_LINK:
            return False
        raise
    return True


def _copied(
    reader: BlobReader,
    target: Path,
    part: tuple[int, int],
    progress: sparse.Progress | None,
    cancelled: sparse.Cancelled | None,
) -> None:
    start, size = part
    if start + size > reader.size:
        raise ObjectChanged("the object is shorter than what is wanted of it")
    fd = os.open(target, NEW_FILE, 0o600)
    try:
        sparse.copy(reader.fileno(), fd, size, start=start, progress=progress, cancelled=cancelled)
    finally:
        os.close(fd)


def _equal(reader: BlobReader, fd: int) -> bool:
    found = os.fstat(fd)
    if os.path.samestat(os.fstat(reader.fileno()), found):
        return True
    return reader.size == found.st_size and all(
        reader.read_at(at, sparse.READ_BYTES) == os.pread(fd, sparse.READ_BYTES, at)
        for at in range(0, found.st_size, sparse.READ_BYTES)
    )
