"""Fetching a whole file, also from a source that breaks off now and then."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from calotype.blobs.faults import storage_fault
from calotype.blobs.writer import FileWriter
from calotype.errors import ImageTooLarge, SourceChanged, SourceUnavailable
from calotype.fetch.source import Fetched
from calotype.fetch.wire import Clock

log = structlog.get_logger()

OpenAt = Callable[[int, Mapping[str, str], Clock], Fetched]

RETRIES: Final = 5  # one after the other that bring less than `PROGRESS_BYTES`
PROGRESS_BYTES: Final = 1024 * 1024
FIRST_WAIT_S: Final = 0.5  # doubles each time
GREW_BYTES: Final = 64 * 1024 * 1024  # at most so many bytes are written beyond what `grew` was last told
GREW_EVERY_S: Final = 5.0


class Download:
    """One file. After a break it goes on where it was, if the source says that the bytes are still the same ones
    (`ETag` that is no weak one, or `Last-Modified`); without such a word it begins anew.

    `progress(done, size)`: with every chunk; `size` is None where the source does not tell. `grew(done)` is called
    about every 5 s while bytes come, and so that never more than `GREW_BYTES` beyond the last told number (0 at first)
    are written; what it raises ends the download.
    Raises `ImageTooLarge` before the first byte past `most_bytes`; `SourceChanged`; `FetchFailed`; `FetchRefused`;
    `SourceUnavailable` when it did not come back after `RETRIES`; `JobCancelled`; `NoSpace`, `Unavailable`.
    However it ends without a result, the file is gone.
    """

    def __init__(
        self,
        *,
        open_at: OpenAt,
        clock: Clock,
        wait: Callable[[threading.Event, float], object],
        most_bytes: int,
        progress: Callable[[int, int | None], None] | None,
        grew: Callable[[int], None] | None,
    ) -> None:
        self._open_at = open_at
        self._clock = clock
        self._wait = wait
        self._most = most_bytes
        self._progress = progress
        self._grew = grew
        self._done = 0
        self._told, self._told_at = 0, time.monotonic()
        self._size: int | None = None
        self._same: Mapping[str, str] = {}  # the headers that say which bytes these are
        self._begun = False

    def into(self, target: Path) -> int:
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise storage_fault(error) from error
        try:
            self._all(fd)
            os.fsync(fd)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise storage_fault(error) from error
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return self._done

    def _all(self, fd: int) -> None:
        writer = FileWriter(fd, sparse=True)
        failures = 0
        while True:
            before = self._done
            try:
                self._some(writer)
                break
            except SourceUnavailable as error:
                failures = 1 if self._done - before >= PROGRESS_BYTES else failures + 1
                if failures > RETRIES:
                    raise
                self._pause(error, failures)
            if not self._same:
                os.ftruncate(fd, 0)
                writer, self._done = FileWriter(fd, sparse=True), 0
        writer.finish()

    def _some(self, writer: FileWriter) -> None:
        """From where the file ends to where the source's does, or until that breaks off."""
        with self._open_at(self._done, self._only_if_same(), self._clock) as source:
            self._compare(source)
            for chunk in source.chunks():
                self._clock.left(1)
                if self._done + len(chunk) > self._most:
                    raise ImageTooLarge(f"the source has more than the {self._most} bytes that are allowed")
                self._tell(self._done + len(chunk))
                writer.write([chunk])
                self._done += len(chunk)
                if self._progress is not None:
                    self._progress(self._done, self._size)

    def _compare(self, source: Fetched) -> None:
        same = _validators(source.headers)
        if not self._begun or not self._same:
            self._begun, self._size, self._same = True, source.size, same
        elif same != self._same or source.size != self._size:
            raise SourceChanged("the source has changed while it was being fetched")
        if source.size is not None and source.size > self._most:
            raise ImageTooLarge(f"the source has {source.size} bytes; at most {self._most} are allowed")

    def _only_if_same(self) -> Mapping[str, str]:
        if not self._done:
            return {}
        return {"If-Range": self._same.get("etag") or self._same["last-modified"]}

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if self._grew is not None and (total - self._told > GREW_BYTES or now - self._told_at >= GREW_EVERY_S):
            self._grew(total)
            self._told, self._told_at = total, now

    def _pause(self, error: SourceUnavailable, failures: int) -> None:
        pause_s = max(FIRST_WAIT_S * 2 ** (failures - 1), error.retry_after_s or 0.0)
        log.info("fetch_interrupted", reason=error.message, done_bytes=self._done, failures=failures, pause_s=pause_s)
        self._wait(self._clock.cancelled or threading.Event(), self._clock.left(pause_s))
        self._clock.left(pause_s)


def _validators(headers: Mapping[str, str]) -> Mapping[str, str]:
    """What says that the bytes are the same ones: the strong `ETag`, else the date. Nothing where there is neither."""
    etag = headers.get("etag", "").strip()
    if etag.startswith('"'):
        return {"etag": etag}
    changed = headers.get("last-modified", "").strip()
    return {"last-modified": changed} if changed else {}
