"""Fetching what a node is to keep, and taking back what it is not. Waits for disks and sources: for a thread.

Bytes first, then the entry that says that they are there; on removal the entry first. Of the processes of a node one
fills at a time.
"""

import threading
from functools import partial
from typing import Final

import structlog
from msgspec import Struct

from calotype.blobs.digest import digest_file
from calotype.blobs.model import BlobId, Digests
from calotype.cache import sql
from calotype.cache.files import CacheFiles
from calotype.cache.sql import Entry
from calotype.db.engine import Database, now_ms
from calotype.errors import CalotypeError, ImageNotFound, ImageTooLarge, JobCancelled, VerificationFailed
from calotype.fetch.fetcher import Fetcher
from calotype.images.model import Image
from calotype.images.service import Images

log = structlog.get_logger()

TRY_AGAIN_MS: Final = 30_000
MOST_TRIES: Final = 5  # at fetching an image; then its entry goes
CLEAN_EVERY_MS: Final = 60_000


class Pruned(Struct, frozen=True, kw_only=True):
    files: int = 0
    size: int = 0  # bytes


class Filler:
    """`stop` ends a fetch under way."""

    def __init__(
        self, db: Database, images: Images, fetcher: Fetcher, files: CacheFiles, *, node: str, most_bytes: int
    ) -> None:
        self.stop = threading.Event()
        self._db = db
        self._images = images
        self._fetcher = fetcher
        self._files = files
        self._node = node
        self._most_bytes = most_bytes
        self._failures: dict[str, tuple[int, int]] = {}  # image id -> how often in a row, and when last (ms)
        self._cleaned_at = 0

    def work(self) -> None:
        """Fetch all that waits, unless another process of the node does."""
        with self._files.filling() as mine:
            if not mine:
                return
            if now_ms() - self._cleaned_at >= CLEAN_EVERY_MS:
                self._clean()
            with self._db.reading() as c:
                waiting = [entry for entry in sql.entries(c, self._node) if not entry.cached]
            for entry in waiting:
                if self._is_due(entry) and not self.stop.is_set():
                    self._try(entry)

    def clean(self) -> None:
        """Take back entries of images that are gone, files without an entry, and entries without their file; unless
        another process of the node fills just now, and does so itself."""
        with self._files.filling() as mine:
            if mine:
                self._clean()

    def prune(self, room: int = 0) -> Pruned:
        """Remove what was read least recently, until `room` bytes more fit."""
        sizes = self._files.sizes()
        with self._db.reading() as c:
            read_at = {entry.image_id: entry.read_at or entry.cached_at or 0 for entry in sql.entries(c, self._node)}
        total, done = sum(sizes.values()), Pruned()
        for image_id in sorted(sizes, key=lambda one: (read_at.get(one, 0), one)):
            if total + room <= self._most_bytes:
                break
            with self._db.writing() as c:
                sql.remove(c, self._node, image_id)
            self._files.remove(image_id)
            total -= sizes[image_id]
            done = Pruned(files=done.files + 1, size=done.size + sizes[image_id])
            log.info("cache_pruned", image_id=image_id, size_bytes=sizes[image_id])
        return done

    def _clean(self) -> None:
        self._cleaned_at = now_ms()
        self._files.clear_parts()
        with self._db.writing() as c:
            sql.forget(c, self._node)
            entries = {entry.image_id: entry for entry in sql.entries(c, self._node)}
        files = self._files.sizes()
        for image_id in files:
            if image_id not in entries or not entries[image_id].cached:
                self._files.remove(image_id)
        lost = [one.image_id for one in entries.values() if one.cached and one.elsewhere and one.image_id not in files]
        if lost:
            with self._db.writing() as c:
                for image_id in lost:
                    sql.requeue(c, self._node, image_id)

    def _is_due(self, entry: Entry) -> bool:
        failed = self._failures.get(entry.image_id)
        return failed is None or now_ms() - failed[1] >= TRY_AGAIN_MS

    def _try(self, entry: Entry) -> None:
        try:
            self._fill(entry.image_id)
        except JobCancelled:
            return
        except CalotypeError as error:
            times = self._failures.get(entry.image_id, (0, 0))[0] + 1
            log.warning("image_not_cached", image_id=entry.image_id, failures=times, reason=error.message)
            self._failures[entry.image_id] = (times, now_ms())
            if times < MOST_TRIES:
                return
            with self._db.writing() as c:
                sql.remove(c, self._node, entry.image_id)
        self._failures.pop(entry.image_id, None)

    def _fill(self, image_id: str) -> None:
        with self._db.reading() as c:
            image = self._images.by_id_in(c, image_id)
            if image is None or not image.has_bytes:
                raise ImageNotFound(image_id)
            known = self._images.digests_in(c, BlobId(str(image.blob_id)))
        if image.lies_elsewhere:
            if known.size > self._most_bytes:
                raise ImageTooLarge(f"the image is larger than the cache of this node, {self._most_bytes} bytes")
            self.prune(known.size)
            self._fetch(image, known)
            self._files.keep(image_id)
        with self._db.writing() as c:
            wanted = sql.filled(c, self._node, image_id, size=known.size, now=now_ms())
        if not wanted:
            self._files.remove(image_id)
        log.info("image_cached", image_id=image_id, size_bytes=known.size)

    def _fetch(self, image: Image, known: Digests) -> None:
        part = self._files.part(image.id)
        fault: CalotypeError = ImageNotFound(image.id)
        for location in image.locations:
            try:
                self._fetcher.download(location.url, part, most_bytes=known.size, cancelled=self.stop)
                self._check(image, known, digest=partial(digest_file, part, cancelled=self.stop))
            except JobCancelled:
                part.unlink(missing_ok=True)
                raise
            except CalotypeError as error:
                part.unlink(missing_ok=True)
                fault = error
            else:
                return
        raise fault

    def _check(self, image: Image, known: Digests, *, digest: "partial[Digests]") -> None:
        found = digest(hash_algorithm=known.hash_algorithm or self._images.settings.image.hash_algorithm)
        if found.size != known.size:
            raise VerificationFailed("what the image points at has another size")
        if not known.hash_value:
            with self._db.writing() as c:
                self._images.pin_in(c, BlobId(str(image.blob_id)), found)
                known = self._images.digests_in(c, BlobId(str(image.blob_id)))
        if found.hash_value != known.hash_value or known.md5 not in ("", found.md5):
            raise VerificationFailed("what the image points at has other bytes")
