"""Bytes to and from the service: streamed, counted, digested; a download goes on where an earlier one was cut."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from msgspec import Struct

from calotype.cli.failure import Failure
from calotype.cli.session import Api, may_pass
from calotype.cli.show import Meter

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES: Final = 1024 * 1024
TRIES: Final = 5  # in a row, of a download that brings no byte
FIRST_PAUSE_S: Final = 0.5
AGAIN: Final = "the same command goes on from where it stopped"


class Source(Struct, frozen=True, kw_only=True):
    """What is downloaded: `version` changes when the bytes do; `digest` is what they must have, where it is known."""

    path: str
    size: int
    version: str
    hash_algorithm: str = ""
    digest: str = ""


class OutgoingFile:
    """A local file that is sent. Raises `Failure` when it cannot be read, or changes while it is."""

    def __init__(self, path: Path, hash_algorithm: str = "") -> None:
        self.path = path
        self._algorithm = hash_algorithm
        self.digest = ""  # hex, once all was sent
        self._first = self._facts()
        self.size = self._first.st_size

    def _facts(self) -> os.stat_result:
        try:
            facts = self.path.stat()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not self.path.is_file():
            raise Failure("not_a_file", f"{self.path} is not a file")
        return facts

    def chunks(self, meter: Meter) -> Iterator[bytes]:
        digest = hashlib.new(self._algorithm, usedforsecurity=False) if self._algorithm else None
        sent = 0
        meter.bytes(0, self.size)
        try:
            with self.path.open("rb", buffering=0) as file:
                while sent < self.size and (chunk := file.read(min(CHUNK_BYTES, self.size - sent))):
                    if digest is not None:
                        digest.update(chunk)
                    sent += len(chunk)
                    yield chunk
                    meter.bytes(sent, self.size)
        except OSError as error:
            raise unreadable(self.path, error) from error
        now = self._facts()
        if sent != self.size or (now.st_size, now.st_mtime_ns) != (self._first.st_size, self._first.st_mtime_ns):
            raise Failure("file_changed", f"{self.path} changed while it was sent", "send it again when it is at rest")
        self.digest = digest.hexdigest() if digest is not None else ""


def send(api: Api, method: str, path: str, file: OutgoingFile, meter: Meter, headers: dict[str, str]) -> bytes:
    """Send `file` as the body; the answer's body."""
    told = {"content-type": "application/octet-stream", "content-length": str(file.size), **headers}
    with api.answer(method, path, headers=told, stream=lambda: file.chunks(meter)) as response:
        return response.read()


def fetch(
    api: Api, source: Source, target: Path, meter: Meter, *, overwrite: bool = False, pause_s: float = FIRST_PAUSE_S
) -> None:
    """Write the source's bytes to `target`: into a file beside it, checked, then renamed.

    That file stays when the transfer is cut or stopped, and the next `fetch` of the same version goes on from there;
    it goes when its bytes are wrong. After a try that failed it waits `pause_s`, twice as long after each further one.
    """
    refuse_existing(target, overwrite)
    part = target.parent / f".calotype-{_tag(source, target)}.part"
    with _opened(part) as file:
        digest = hashlib.new(source.hash_algorithm, usedforsecurity=False) if source.hash_algorithm else None
        have = _kept(file, source.size, digest)
        meter.bytes(have, source.size)
        _receive(api, source, file, have, digest, meter, pause_s)
        if digest is not None and digest.hexdigest() != source.digest:
            part.unlink()
            raise Failure(
                "digest_mismatch",
                f"the bytes that came are not those the service announced ({source.hash_algorithm}); nothing was kept",
                "try again",
            )
        try:
            os.fsync(file.fileno())
            _publish(part, target, overwrite)
        except OSError as error:
            raise _unwritable(target, error) from error


def _publish(part: Path, target: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            target.hardlink_to(part)  # unlike a rename, does not replace a file that appeared meanwhile
        except FileExistsError as error:
            raise _exists(target) from error
        except OSError:  # a file system without hard links
            refuse_existing(target, overwrite)
        else:
            part.unlink()
            return
    part.replace(target)


def refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise Failure("is_a_folder", f"{target} is a folder", "name the file to write: -o FOLDER/FILE")
    if not overwrite and (target.exists() or target.is_symlink()):
        raise _exists(target)


def unreadable(path: Path, error: OSError) -> Failure:
    return Failure("cannot_read", f"cannot read {path}: {error.strerror}")


def _receive(api: Api, source: Source, file: IO[bytes], have: int, digest: Any, meter: Meter, pause_s: float) -> None:
    failed = 0
    while have < source.size:
        before = have
        try:
            with api.answer("GET", source.path, headers={"range": f"bytes={have}-"}) as response:
                _right_part(response, source, have)
                for chunk in response.iter_raw(CHUNK_BYTES):
                    have += _written(file, chunk, source, have)
                    if digest is not None:
                        digest.update(chunk)
                    meter.bytes(have, source.size)
            failed = failed + 1 if have == before else 0
            last = Failure("connection_cut", "the service ended the transfer early", AGAIN)
        except Failure as failure:
            if not may_pass(failure):
                raise
            failed = failed + 1 if have == before else 1
            last = Failure(failure.code, failure.message, AGAIN)
        if failed >= TRIES:
            raise last
        if failed:
            time.sleep(pause_s * 2 ** (failed - 1))


def _written(file: IO[bytes], chunk: bytes, source: Source, have: int) -> int:
    if have + len(chunk) > source.size:
        raise Failure("wrong_size", f"the service sent more than the {source.size} bytes it announced")
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise Failure("cannot_write", f"cannot write the download: {error.strerror}") from error
    return len(chunk)


def _right_part(response: "httpx.Response", source: Source, have: int) -> None:
    if response.status_code != 206 and have:
        raise Failure("no_ranges", "the service sent the whole again instead of the rest")
    etag = response.headers.get("etag", "")
    if source.version and etag and etag.removeprefix("W/").strip('"') != source.version.removeprefix("W/").strip('"'):
        raise Failure("object_changed", "the object changed while it was downloaded", "run the same command again")


def _tag(source: Source, target: Path) -> str:
    """Names the unfinished file: the same for the same bytes to the same place, never taken from the wire."""
    text = "\0".join((source.path, source.version, source.digest, str(source.size), target.name))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def _opened(part: Path) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritable(part.parent, error) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _busy() from error
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise _busy()  # and it ended just now
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _busy() -> Failure:
    return Failure("busy", "another command is writing this download", "wait until it has ended")


def _kept(file: IO[bytes], most: int, digest: Any) -> int:
    """Read what an earlier attempt left into the digest; return its length. The file stands at its end."""
    have = file.seek(0, os.SEEK_END)
    if have > most:
        have = 0
    file.truncate(have)
    file.seek(0)
    if digest is not None:
        for chunk in iter(_reader(file), b""):
            digest.update(chunk)
    return file.seek(have)


def _reader(file: IO[bytes]) -> Callable[[], bytes]:
    return lambda: file.read(CHUNK_BYTES)


def _exists(target: Path) -> Failure:
    return Failure("file_exists", f"{target} exists", "name another file, or give --force to replace it")


def _unwritable(path: Path, error: OSError) -> Failure:
    return Failure("cannot_write", f"cannot write {path}: {error.strerror}")
