"""Downloads of images that lie at URLs: the bytes pass through, and are compared with what is known of them."""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from calotype.blobs.model import BlobId, Digests
from calotype.db.engine import Database
from calotype.errors import FetchFailed, FetchRefused, ObjectChanged, SourceUnavailable
from calotype.fetch.fetcher import Fetcher
from calotype.fetch.source import Fetched
from calotype.images import sql
from calotype.images.model import Image
from calotype.settings import Settings

log = structlog.get_logger()

THREADS: Final = 16  # that wait for sources; more downloads than that take turns, chunk by chunk


class RemoteReader:
    """The bytes `first` to `last` of an image, from a source that has begun to answer. Close it, or read it to the end.

    The last chunk of a whole image is given out only when all of it is what it should be. Where the image has no
    digests, the first that was read whole says what it is from then on.
    """

    def __init__(self, image: Image, source: Fetched, first: int, last: int, pinned: Digests, remote: "Remote") -> None:
        self._image = image
        self._source = source
        self._length = last - first + 1
        self._whole = first == 0 and last + 1 == image.size
        self._remote = remote
        self._begun = False
        algorithm = pinned.hash_algorithm or remote.hash_algorithm
        self._pinned = pinned
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    async def stream(self) -> AsyncIterator[bytes]:
        """Raises `ObjectChanged`, `SourceUnavailable`: the status is sent, so that only the connection can be cut."""
        self._begun = True
        loop = asyncio.get_running_loop()
        chunks = self._taken()
        reading: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                reading = loop.run_in_executor(self._remote.threads, next, chunks, None)
                chunk = await asyncio.shield(reading)
                reading = None
                if chunk is None:
                    return
                yield chunk
        finally:
            if reading is None or reading.done():
                self._source.close()
            else:  # a thread reads: closed when it is done
                reading.add_done_callback(self._over)

    def _over(self, reading: "asyncio.Future[bytes | None]") -> None:
        if not reading.cancelled():
            reading.exception()  # looked at: nobody is there any more to tell it to
        self._source.close()

    def close(self) -> None:
        """Where `stream` has begun it closes itself, once no thread reads any more."""
        if not self._begun:
            self._source.close()

    def _taken(self) -> Iterator[bytes]:
        """In threads, one at a time."""
        left, held = self._length, b""
        for chunk in self._source.chunks():
            part = chunk[:left]
            left -= len(part)
            if self._whole:
                self._md5.update(part)
                self._hash.update(part)
                if len(chunk) > len(part):
                    raise self._changed("it has become longer")
            if held:
                yield held
            held = part
            if not left and not self._whole:
                break
        if left:
            raise self._changed("it has become shorter")
        if self._whole:
            self._verify()
        if held:
            yield held

    def _verify(self) -> None:
        pinned, md5, value = self._pinned, self._md5.hexdigest(), self._hash.hexdigest()
        if not pinned.hash_value:
            self._remote.pin(self._image, md5=md5, algorithm=self._hash.name, value=value)
        elif not hmac.compare_digest(pinned.hash_value, value) or pinned.md5 not in ("", md5):
            raise self._changed("its bytes are others")

    def _changed(self, how: str) -> ObjectChanged:
        log.warning("remote_image_changed", image_id=self._image.id, reason=how)
        return ObjectChanged(f"what the image points at has changed: {how}")


class Remote:
    """For one process."""

    def __init__(self, db: Database, fetcher: Fetcher, settings: Settings) -> None:
        self._db = db
        self._fetcher = fetcher
        self.hash_algorithm = settings.image.hash_algorithm
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="remote")

    def close(self) -> None:
        self.threads.shutdown(wait=True)

    async def open(self, image: Image, first: int, last: int) -> RemoteReader:
        """From the first of the image's locations that answers. The caller knows that the bytes may be given out.

        Raises `SourceUnavailable`, whatever is wrong with the sources: it is nothing that the client could mend.
        """
        pinned = await self._db.read(lambda c: sql.blob_digests(c, BlobId(str(image.blob_id))))
        opening = asyncio.get_running_loop().run_in_executor(self.threads, self._open, image, first)
        try:
            source = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_closed)
            raise
        return RemoteReader(image, source, first, last, pinned, self)

    def _open(self, image: Image, first: int) -> Fetched:
        fault: Exception | None = None
        for number, location in enumerate(image.locations):
            try:
                source = self._fetcher.open(location.url, offset=first)
            except (FetchRefused, FetchFailed, SourceUnavailable) as error:
                log.warning("location_failed", image_id=image.id, location=number, reason=error.message)
                fault = error
                continue
            if source.size in (None, image.size):
                return source
            source.close()
            log.warning("location_failed", image_id=image.id, location=number, reason="it has another size")
        raise SourceUnavailable("no location of the image answers with its bytes now") from fault

    def pin(self, image: Image, *, md5: str, algorithm: str, value: str) -> None:
        """Record what the bytes of an image without digests are. The first to say it has said it."""
        with self._db.writing() as c:
            sql.run(c, sql.PIN_BLOB, id=image.blob_id, md5=md5, hash_algorithm=algorithm, hash_value=value)
        log.info("remote_image_pinned", image_id=image.id)


def _closed(opening: "asyncio.Future[Fetched]") -> None:
    with contextlib.suppress(Exception):
        opening.result().close()
