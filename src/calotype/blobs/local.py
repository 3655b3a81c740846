"""Blobs as files of a local folder.

    <folder>/<first two digits of the id>/<id>   finished; mode 0400, never changed
    <folder>/staging/<token>                     arriving

Everything here waits for the disk: call it in a thread. Any number of threads and processes may do so at once.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from calotype.blobs.faults import storage_fault
from calotype.blobs.model import BlobId
from calotype.blobs.sparse import clone
from calotype.errors import BlobNotFound
from calotype.settings import LOCAL

ID: Final = re.compile(r"[0-9a-f]{32}")
# u<32 hex>: an upload through the API. j<32 hex>-<attempt>: an attempt of a job; a word tells its files apart.
TOKEN: Final = re.compile(r"u[0-9a-f]{32}|j[0-9a-f]{32}-[0-9]{1,6}(\.[a-z0-9]{1,16})?")
STAGING: Final = "staging"
NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class StoredBlob(NamedTuple):
    id: BlobId
    size: int  # bytes
    modified_at: int  # ms
    store: str = LOCAL


class StagedFile(NamedTuple):
    token: str
    size: int  # bytes
    modified_at: int  # ms


class BlobReader:
    """An open file of `size` bytes. Closes itself when the last reference goes, so that no path can leak it."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def fileno(self) -> int:
        """The descriptor, for as long as the reader is open."""
        return self._fd

    def read_at(self, offset: int, n: int) -> bytes:
        """At most `n` bytes from `offset`; fewer only at the end of the file. Raises `Unavailable` on a bad disk."""
        try:
            data = os.pread(self._fd, n, offset)
            while data and len(data) < n and (more := os.pread(self._fd, n - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise storage_fault(error) from error
        return data

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class LocalBlobs:
    """Raises `NoSpace` or `Unavailable` where the disk fails, `ValueError` for an id or token of another form."""

    def __init__(self, folder: Path, *, make: bool = True) -> None:
        """`make`: False for a folder that may be away; `prepare` then makes it once it is wanted."""
        self.folder = folder
        self.staging = folder / STAGING
        if make:
            self.prepare()

    def prepare(self) -> None:
        """Make the folders where they are missing."""
        self.staging.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, blob_id: BlobId) -> Path:
        """Where the bytes of a blob are, or would be."""
        if not ID.fullmatch(blob_id):
            raise ValueError("a blob id is 32 hexadecimal digits")
        return self.folder / blob_id[:2] / blob_id

    def staging_path(self, token: str) -> Path:
        """Where the bytes that `token` brings are gathered. On the file system of the blobs."""
        if not TOKEN.fullmatch(token):
            raise ValueError("a staging token is u<32 hex>, or j<32 hex>-<attempt> with an optional .<word>")
        return self.staging / token

    def publish(self, token: str, blob_id: BlobId) -> None:
        """Make the staged bytes the blob: synced, read-only, under their last name; durable on return.

        Running it again after a stop at any point ends in the same place. Raises `BlobNotFound` when there are neither
        staged bytes nor the blob, `FileExistsError` when the id is already that of other bytes.
        """
        self.publish_file(self.staging_path(token), blob_id)

    def publish_file(self, source: Path, blob_id: BlobId) -> None:
        """As `publish`, of a file anywhere; an `OSError` with the number EXDEV when it is on another file system."""
        try:
            self._publish(source, self.path(blob_id))
        except FileNotFoundError as error:
            raise BlobNotFound(blob_id) from error
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise
            raise storage_fault(error) from error

    def _publish(self, source: Path, target: Path) -> None:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            target.lstat()  # an earlier run has come as far as the rename, or there is nothing at all
        else:
            try:
                self._rename(fd, source, target)
            finally:
                os.close(fd)
        sync_folder(target.parent)
        sync_folder(source.parent)

    def _rename(self, fd: int, source: Path, target: Path) -> None:
        os.fchmod(fd, 0o400)
        os.fsync(fd)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder)
        try:
            found = target.lstat()
        except FileNotFoundError:
            source.rename(target)
            return
        if not os.path.samestat(found, os.fstat(fd)):
            raise FileExistsError(errno.EEXIST, "a blob id is never used twice", target.name)
        source.unlink(missing_ok=True)

    def adopt(self, source: Path, token: str) -> bool:
        """Stage `source`, which nobody changes any more, without copying it: as another name of the file, or, where
        that cannot be, as a file that shares its blocks. False: neither can be; then nothing is staged.

        From then on the file may be a blob's: it becomes read-only when it is published. What was staged is removed.
        """
        target = self.staging_path(token)
        try:
            target.unlink(missing_ok=True)
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                return _cloned(source, target)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_fault(error) from error
        return True

    def discard(self, token: str) -> None:
        """Remove what was staged, if anything was."""
        self.staging_path(token).unlink(missing_ok=True)

    def open(self, blob_id: BlobId) -> BlobReader:
        """Raises `BlobNotFound`: the blob was deleted since its row was read."""
        return _opened(self.path(blob_id), blob_id)

    def delete(self, blob_id: BlobId) -> None:
        """Remove the bytes, if they are there. Those who read them now still can."""
        self.path(blob_id).unlink(missing_ok=True)

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Every blob, in no order; one that comes or goes meanwhile may be missing."""
        with os.scandir(self.folder) as folders:
            for folder in folders:
                if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                    for name, found in _files(folder.path):
                        if ID.fullmatch(name) and name.startswith(folder.name):
                            yield StoredBlob(BlobId(name), found.st_size, found.st_mtime_ns // 1_000_000)

    def list_staging(self) -> Iterator[StagedFile]:
        """Everything that is arriving, or that a dead process has left."""
        for name, found in _files(self.staging):
            if TOKEN.fullmatch(name):
                yield StagedFile(name, found.st_size, found.st_mtime_ns // 1_000_000)

    def free_bytes(self) -> int:
        """What the disk has room for still."""
        room = os.statvfs(self.folder)
        return room.f_bavail * room.f_frsize


def _cloned(source: Path, target: Path) -> bool:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        made = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            cloned = clone(fd, made)
        finally:
            os.close(made)
    finally:
        os.close(fd)
    if not cloned:
        target.unlink()
    return cloned


def sync_folder(folder: Path) -> None:
    """Make what was renamed into, or removed from, `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _opened(path: Path, blob_id: BlobId) -> BlobReader:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BlobNotFound(blob_id) from error
    except OSError as error:
        raise storage_fault(error) from error
    return BlobReader(fd, os.fstat(fd).st_size)


def _files(folder: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield entry.name, found
