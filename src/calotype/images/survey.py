"""The gate for bytes that stay where they are: read over HTTP only as far as it wants to see them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from calotype.disks.gate import keep_at
from calotype.disks.model import Inspection, Opaque
from calotype.errors import FetchFailed, FormatMismatch, ImageTooLarge
from calotype.fetch.fetcher import Fetcher
from calotype.fetch.source import Fetched
from calotype.fetch.wire import Clock
from calotype.images.model import Image
from calotype.images.placing import Survey
from calotype.settings import ImageSettings, Settings

log = structlog.get_logger()

WITHIN_S = 60.0  # of one look at a source
MOST_BYTES = 32 * 1024 * 1024  # that are read of it, and kept meanwhile
BLOCK_BYTES = 256 * 1024
NEAR_BYTES = 1024 * 1024  # read over rather than asked for anew


def look(fetcher: Fetcher, url: str, image: Image, settings: Settings) -> Survey:
    """What lies at `url`, that `image` is to point at. For a thread; takes at most `WITHIN_S` and `MOST_BYTES`.

    Raises `FetchRefused`, `FetchFailed`, `SourceUnavailable`, `ImageTooLarge`, the leaves of `DiskRefused`.
    """
    with _Disk(fetcher, url) as disk:
        if disk.size > settings.image.file_bytes:
            raise ImageTooLarge(f"the source has {disk.size} bytes; an image has at most {settings.image.file_bytes}")
        found = judged(partial(keep_at, disk.read_at, disk.size), image, settings.image)
        return Survey(size=disk.size, virtual_size=found.virtual_size)


def judged(inspecting: Callable[..., Inspection | Opaque], image: Image, limits: ImageSettings) -> Inspection | Opaque:
    """What the gate says of bytes that lie elsewhere. `inspecting`: one of its functions, with the bytes.

    Bytes of no disk format at all, a packed archive for one, pass under any declared format: they are the source's, and
    harm nobody. Another disk format than was declared passes only without `format_enforcement`. Both are logged. What
    is unsafe, broken or of two formats never passes. Raises the leaves of `DiskRefused`.
    """
    inspected = partial(inspecting, most_virtual_bytes=limits.virtual_bytes_per_image)
    try:
        return inspected(declared=image.disk_format)
    except FormatMismatch as mismatch:
        found = _otherwise(inspected, ("raw",) if limits.format_enforcement else (None, "raw"))
        if found is None:
            raise
        log.warning("format_differs", image_id=image.id, declared=image.disk_format, reason=mismatch.message)
        return found


def _otherwise(
    inspected: Callable[..., Inspection | Opaque], formats: Sequence[str | None]
) -> Inspection | Opaque | None:
    for declared in formats:
        with suppress(FormatMismatch):
            return inspected(declared=declared)
    return None


class _Disk:
    """Bytes at a URL, by offset. What was read is kept."""

    def __init__(self, fetcher: Fetcher, url: str) -> None:
        self._fetcher = fetcher
        self._url = url
        self._clock = Clock(WITHIN_S, None)
        self._blocks: dict[int, bytes] = {}
        self._taken = 0  # bytes that came, or that a source without ranges sent before them
        self._source, self._at = self._opened(0), 0
        self._chunks = self._source.chunks()
        self._rest = b""
        if self._source.size is None:
            self._source.close()
            raise FetchFailed("the source does not tell how many bytes it has")
        self.size: int = self._source.size

    def __enter__(self) -> "_Disk":
        return self

    def __exit__(self, *_error: object) -> None:
        self._source.close()

    def read_at(self, offset: int, n: int) -> bytes:
        first, last = offset // BLOCK_BYTES, (offset + n - 1) // BLOCK_BYTES
        data = b"".join(self._block(index) for index in range(first, last + 1))
        start = offset - first * BLOCK_BYTES
        return data[start : start + n]

    def _block(self, index: int) -> bytes:
        while index not in self._blocks:
            start = index * BLOCK_BYTES
            if not 0 <= start - self._at <= NEAR_BYTES:
                self._source.close()
                self._source, self._at, self._rest = self._opened(start), start, b""
                self._chunks = self._source.chunks()
            self._next_block()
        return self._blocks[index]

    def _next_block(self) -> None:
        wanted = min(BLOCK_BYTES, self.size - self._at)
        while len(self._rest) < wanted:
            chunk = next(self._chunks, b"")
            if not chunk:
                raise FetchFailed("the source ends before it should")
            self._take(len(chunk))
            self._rest += chunk
        self._blocks[self._at // BLOCK_BYTES] = self._rest[:wanted]
        self._at, self._rest = self._at + wanted, self._rest[wanted:]

    def _opened(self, offset: int) -> Fetched:
        source = self._fetcher.opened(self._url, clock=self._clock, offset=offset)
        try:
            if source.status == 200:  # it knows no ranges, and sends everything before
                self._take(offset)
        except FetchFailed:
            source.close()
            raise
        return source

    def _take(self, n: int) -> None:
        self._clock.left(1)
        self._taken += n
        if self._taken > MOST_BYTES:
            raise FetchFailed(
                f"more than {MOST_BYTES} bytes of the source would have to be read to know what it is; "
                "let a web server offer it that answers ranges, or upload the image"
            )
