"""The places that hold image bytes, as one: every folder store of the settings, and the names of the http stores.

A blob has the same id in all stores that hold it. What arrives is staged in `local` and published from there. Which
stores an image counts on is the catalogue's to know; here is only where files are.

Everything here waits for disks: call it in a thread. Any number of threads and processes may do so at once.
"""

import errno
import filecmp
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from calotype.blobs.digest import digest_file
from calotype.blobs.faults import storage_fault
from calotype.blobs.local import BlobReader, LocalBlobs, StagedFile, StoredBlob, sync_folder
from calotype.blobs.model import BlobId, Digests
from calotype.blobs.sparse import Cancelled, Progress
from calotype.errors import BlobNotFound, CalotypeError, StoreNotFound, StoreReadOnly, Unavailable, VerificationFailed
from calotype.settings import LOCAL, Settings, Store

log = structlog.get_logger()

ALIVE_EVERY_S: Final = 30.0  # how often a copy that is being made or read back is marked as not forgotten


class Stores:
    """What `LocalBlobs` does, over several folders. Reads go to the heaviest store that has the blob, and on to the
    next one where a file is missing or a disk fails.

    Raises `StoreNotFound` for a name that is none, `StoreReadOnly` where an http store would have to be written,
    `NoSpace` or `Unavailable` where a disk fails, `ValueError` for an id or token of another form.
    """

    default: Final = LOCAL

    def __init__(self, settings: Settings) -> None:
        self.configured: Mapping[str, Store] = {LOCAL: Store(), **settings.stores}
        self.ids = self.ordered(self.configured)
        self.writable = tuple(name for name in self.ids if self.configured[name].type == "folder")
        self.remote = tuple(name for name in self.ids if self.configured[name].type == "http")
        self._local = LocalBlobs(Path(self.configured[LOCAL].folder or settings.folder / "blobs"))
        self._folders = {name: self._local if name == LOCAL else self._opened(name) for name in self.writable}

    def _opened(self, name: str) -> LocalBlobs:
        folder = LocalBlobs(Path(self.configured[name].folder), make=False)
        try:
            folder.prepare()
        except OSError as error:  # what the other stores hold can be read all the same
            log.warning("store_unavailable", store=name, reason=error.strerror)
        return folder

    # --- names --------------------------------------------------------------------------------------------------------

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Without repetition, the heaviest first and by name where they weigh the same."""
        return tuple(sorted(set(names), key=lambda name: (-self._weight(name), name)))

    def _weight(self, name: str) -> int:
        return self.configured[name].weight if name in self.configured else 0

    def check_writable(self, name: str) -> None:
        """Raises `StoreNotFound`, `StoreReadOnly`."""
        self._folder(name)

    def _folder(self, name: str) -> LocalBlobs:
        if name in self._folders:
            return self._folders[name]
        if name in self.configured:
            raise StoreReadOnly(f"store {name} is read-only")
        raise StoreNotFound(f"no store {name}")

    # --- where files are ----------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Of `local`."""
        return self._local.folder

    def folder_of(self, store: str) -> Path:
        return self._folder(store).folder

    def path(self, blob_id: BlobId) -> Path:
        """Where the bytes of a blob are, in the heaviest store that has it; or would be, in `local`."""
        holders = self.holders(blob_id)
        return (self._folders[holders[0]] if holders else self._local).path(blob_id)

    def holders(self, blob_id: BlobId) -> tuple[str, ...]:
        """The stores that have a file of the blob, heaviest first. A disk that fails has none."""
        return tuple(name for name in self.writable if _has(self._folders[name].path(blob_id)))

    @property
    def staging(self) -> Path:
        """The folder that everything is gathered in."""
        return self._local.staging

    def staging_path(self, token: str) -> Path:
        """Where the bytes that `token` brings are gathered. On the file system of `local`."""
        return self._local.staging_path(token)

    # --- bytes that come ----------------------------------------------------------------------------------------------

    def publish(self, token: str, blob_id: BlobId, store: str = LOCAL) -> None:
        """Make the staged bytes the blob in one store: synced, read-only, under their last name; durable on return.

        On another file system than staging they are copied, and read back before they get their name. Running it again
        after a stop at any point ends in the same place. Raises `BlobNotFound` when there are neither staged bytes nor
        the blob, `FileExistsError` when the id is already that of other bytes.
        """
        target, source = self._folder(store), self._local.staging_path(token)
        if target is self._local:
            self._local.publish(token, blob_id)
            return
        published = target.path(blob_id)
        try:
            if _has(source) and _has(published):  # an earlier run was stopped before the staged bytes went
                _check_equal(source, published)
            elif not _renamed(source, target, blob_id):
                _copied(source, target, token)
                target.publish(token, blob_id)
            source.unlink(missing_ok=True)
            sync_folder(source.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_fault(error) from error

    def adopt(self, source: Path, token: str) -> bool:
        """Stage a file that nobody changes any more without copying it; False where that cannot be."""
        return self._local.adopt(source, token)

    def replicate(
        self,
        blob_id: BlobId,
        store: str,
        *,
        expected: Digests | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> None:
        """Make one more store hold a blob; a store that does already is left as it is.

        The copy is read back before it gets its name, and compared with `expected` where that is known; a store whose
        bytes are others is passed over. `progress` is told up to the blob's size. Raises `BlobNotFound` when no store
        has it, `VerificationFailed` when none has those bytes, `JobCancelled`.
        """
        target = self._folder(store)
        if _has(target.path(blob_id)):
            return
        token = f"u{uuid4().hex}"
        try:
            self._copied_from_any(blob_id, target, token, expected, progress, cancelled)
            target.publish(token, blob_id)
        except FileExistsError:
            if not _has(target.path(blob_id)):  # else another did the same meanwhile
                raise
        except OSError as error:
            raise storage_fault(error) from error
        finally:
            _discarded(target, token, store)

    def _copied_from_any(
        self,
        blob_id: BlobId,
        target: LocalBlobs,
        token: str,
        expected: Digests | None,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> None:
        fault: CalotypeError = BlobNotFound(blob_id)
        for name in self.writable:
            source = self._folders[name].path(blob_id)
            if not _has(source):
                continue
            try:
                _copied(source, target, token, expected=expected, progress=progress, cancelled=cancelled)
            except (Unavailable, VerificationFailed) as error:  # this disk fails, or holds other bytes than it should
                _passed_over(name, error)
                fault = error
            else:
                return
        raise fault

    def discard(self, token: str) -> None:
        """Remove what was staged, if anything was."""
        self._local.discard(token)
        for name, folder in self._folders.items():
            if folder is not self._local:
                _discarded(folder, token, name)

    # --- bytes that leave ---------------------------------------------------------------------------------------------

    def open(self, blob_id: BlobId) -> BlobReader:
        """Raises `BlobNotFound`: the blob was deleted since its row was read."""
        if len(self.writable) == 1:
            return self._local.open(blob_id)
        return _Reader(self._folders, self.writable, blob_id)

    # --- bytes that go ------------------------------------------------------------------------------------------------

    def delete(self, blob_id: BlobId) -> None:
        """Remove the bytes from every store, if they are there. Those who read them now still can.

        When a disk fails the others are done all the same, and its `OSError` is raised at the end.
        """
        fault: OSError | None = None
        for folder in self._folders.values():
            try:
                folder.delete(blob_id)
            except OSError as error:
                fault = error
        if fault is not None:
            raise fault

    def delete_from(self, blob_id: BlobId, store: str) -> None:
        """Remove the bytes from one store, if they are there. The caller knows that no image counts on them."""
        self._folder(store).delete(blob_id)

    def set_aside(self, blob_id: BlobId, store: str) -> str:
        """Take a blob's file out of one store, in no time however large it is; durable on return.

        Returns the token to discard it with. Nothing happens when there is no file."""
        folder, token = self._folder(store), f"u{uuid4().hex}"
        source = folder.path(blob_id)
        try:
            source.rename(folder.staging_path(token))
            sync_folder(source.parent)
        except FileNotFoundError:
            return token
        except OSError as error:
            raise storage_fault(error) from error
        return token

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Every blob in every store, in no order; one that comes or goes meanwhile may be missing."""
        for name, folder in self._folders.items():
            try:
                for found in folder.list_blobs():
                    yield found._replace(store=name)
            except OSError as error:
                _passed_over(name, error)

    def list_staging(self) -> Iterator[StagedFile]:
        """Everything that is arriving, or that a dead process has left."""
        for name, folder in self._folders.items():
            try:
                yield from folder.list_staging()
            except OSError as error:
                _passed_over(name, error)

    def free_bytes(self, store: str = LOCAL) -> int:
        """What the disk of a store has room for still."""
        return self._folder(store).free_bytes()


class _Reader(BlobReader):
    """Goes on in the next store where the disk of one fails, also in the middle: the bytes are the same."""

    def __init__(self, folders: Mapping[str, LocalBlobs], names: Sequence[str], blob_id: BlobId) -> None:
        self._folders = folders
        self._names = iter(names)
        self._blob_id = blob_id
        self._fd = -1  # for `close`, should there be none
        super().__init__(*self._next(BlobNotFound(blob_id)))

    def read_at(self, offset: int, n: int) -> bytes:
        while True:
            try:
                return super().read_at(offset, n)
            except Unavailable as error:
                fd, size = self._next(error)
                os.close(self._fd)
                self._fd = fd
                if size != self.size:
                    raise

    def _next(self, fault: CalotypeError) -> tuple[int, int]:
        """The descriptor and the size of the blob in the next store that has it; else the worst that was seen."""
        for name in self._names:
            try:
                with self._folders[name].open(self._blob_id) as reader:
                    return os.dup(reader.fileno()), reader.size
            except BlobNotFound:
                continue
            except (Unavailable, OSError) as error:
                _passed_over(name, error)
                fault = error if isinstance(error, CalotypeError) else storage_fault(error)
        raise fault


def _has(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _check_equal(source: Path, published: Path) -> None:
    if not filecmp.cmp(source, published, shallow=False):
        raise FileExistsError(errno.EEXIST, "a blob id is never used twice", published.name)


def _renamed(source: Path, target: LocalBlobs, blob_id: BlobId) -> bool:
    """Publish where a rename can; False where source and target are on two file systems. Raises `BlobNotFound`."""
    try:
        target.publish_file(source, blob_id)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copied(
    source: Path,
    target: LocalBlobs,
    token: str,
    *,
    expected: Digests | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> None:
    """Copy to what `token` stages in `target`, holes as holes; then read it back.

    Raises `JobCancelled`, and `VerificationFailed` when what was read is not what was expected, or does not read back;
    then nothing stays.
    """
    target.prepare()
    copy = target.staging_path(token)
    algorithm = "sha256" if expected is None else expected.hash_algorithm
    digest = partial(digest_file, hash_algorithm=algorithm, cancelled=cancelled)
    try:
        read = digest(source, copy_to=copy, progress=_halved(progress, 0))
        _check_same(read, expected or read, "the bytes in a store are not those of the image")
        with _synced(copy) as alive:
            again = digest(copy, progress=_both(alive, _halved(progress, read.size)))
        _check_same(again, read, "the stored bytes do not read back as they were written")
    except BaseException:
        target.discard(token)
        raise


def _check_same(digests: Digests, wanted: Digests, fault: str) -> None:
    if digests != wanted:
        raise VerificationFailed(fault)


def _halved(progress: Progress | None, before: int) -> Progress | None:
    return None if progress is None else lambda done: progress((before + done) // 2)


@contextmanager
def _synced(path: Path) -> Iterator[Progress]:
    """Have the bytes on the disk and out of memory, so that reading them again reads the disk. What is yielded is to be
    called while that goes on: it keeps the file from being taken for forgotten."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    due = time.monotonic() + ALIVE_EVERY_S

    def alive(_done: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + ALIVE_EVERY_S
            os.utime(fd)

    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        yield alive
    finally:
        os.close(fd)


def _both(first: Progress, second: Progress | None) -> Progress:
    def tell(done: int) -> None:
        first(done)
        if second is not None:
            second(done)

    return tell


def _discarded(folder: LocalBlobs, token: str, name: str) -> None:
    try:
        folder.discard(token)
    except OSError as error:  # the sweeper makes it good
        _passed_over(name, error)


def _passed_over(name: str, error: Exception) -> None:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    log.warning("store_passed_over", store=name, reason=reason)
