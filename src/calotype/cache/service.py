"""The cache of one API node. Of an image whose bytes a store of the service holds there is nothing to copy: its entry
counts how often it is read. Of one that lies elsewhere the node keeps a checked copy, and gives it out.

A node is known by its URL. Its entries are in the database, its files in a folder of its own; hits are written in
batches, so that a download costs no write.
"""

import asyncio
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import structlog

from calotype.blobs.local import BlobReader
from calotype.cache import sql
from calotype.cache.files import CacheFiles
from calotype.cache.filler import Filler, Pruned
from calotype.cache.sql import Entry
from calotype.db.engine import Database, now_ms
from calotype.errors import CalotypeError, NotCacheable
from calotype.fetch.fetcher import Fetcher
from calotype.identity.model import Caller
from calotype.images.model import Image, ImageStatus
from calotype.images.service import Images
from calotype.settings import Settings

log = structlog.get_logger()

EVERY_S: Final = 5.0  # how often hits are written, and entries that wait are looked for


class Cache:
    """Whoever has one runs `keep_up` beside it, and awaits `close` at the end."""

    def __init__(self, db: Database, images: Images, fetcher: Fetcher, settings: Settings) -> None:
        self.node = settings.url
        self._most_bytes = settings.imagev2.cache_bytes
        self._db = db
        self._images = images
        name = hashlib.sha256(self.node.encode()).hexdigest()[:32]
        self._files = CacheFiles(settings.folder / "cache" / name)
        self._filler = Filler(db, images, fetcher, self._files, node=self.node, most_bytes=self._most_bytes)
        self._hits: Counter[str] = Counter()
        self._asked = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")

    # --- for downloads ------------------------------------------------------------------------------------------------

    async def open(self, image: Image) -> BlobReader | None:
        """The node's copy of an image that lies elsewhere. The caller knows that its bytes may be given out."""
        return await asyncio.to_thread(self._files.open, image.id, image.size or 0)

    def count(self, image_id: str) -> None:
        """One more download."""
        self._hits[image_id] += 1

    # --- for admins ---------------------------------------------------------------------------------------------------

    async def entries(self) -> list[Entry]:
        """The node's, the oldest first."""
        await self._write_hits()
        return await self._db.read(lambda c: sql.entries(c, self.node))

    async def nodes(self, caller: Caller, image_id: str) -> list[str]:
        """The URLs of all nodes that have the image. Raises `ImageNotFound`."""
        image = await self._images.get(caller, image_id)
        return await self._db.read(lambda c: sql.nodes(c, image.id))

    async def add(self, caller: Caller, image_id: str) -> None:
        """Have the node cache an image, at once or soon. Raises `ImageNotFound`, `NotCacheable`."""
        image = await self._images.get(caller, image_id)
        if image.status is not ImageStatus.ACTIVE:
            raise NotCacheable(f"the image is {image.status}; only an active one can be cached")
        size, here = image.size or 0, not image.lies_elsewhere
        if not here and size > self._most_bytes:
            raise NotCacheable(f"the image has {size} bytes; the cache of this node holds {self._most_bytes}")
        await self._db.write(lambda c: sql.add(c, self.node, image.id, size=size, cached=here, now=now_ms()))
        self._asked.set()

    async def remove(self, caller: Caller, image_id: str) -> None:
        """Raises `ImageNotFound` when there is neither such an image nor such an entry."""
        wanted = image_id.lower()
        if not await self._db.write(lambda c: sql.remove(c, self.node, wanted)):
            wanted = (await self._images.get(caller, image_id)).id
        await asyncio.to_thread(self._files.remove, wanted)

    async def clear(self, *, cached: bool, queued: bool) -> None:
        def work() -> None:
            with self._db.writing() as c:
                if queued:
                    sql.clear(c, self.node, cached=False)
                if cached:
                    sql.clear(c, self.node, cached=True)
            if cached:
                for image_id in self._files.sizes():
                    self._files.remove(image_id)

        await asyncio.to_thread(work)

    async def clean(self) -> None:
        """See `Filler.clean`."""
        await asyncio.to_thread(self._filler.clean)

    async def prune(self) -> Pruned:
        """See `Filler.prune`."""
        return await asyncio.to_thread(self._filler.prune)

    # --- by itself ----------------------------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """For ever: write hits, and have done what waits, a fetch of hours no hindrance to the rest."""
        working = self._work()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), EVERY_S)
            self._asked.clear()
            try:
                await self._write_hits()
            except CalotypeError as error:
                log.warning("cache_hits_not_written", reason=error.message)
            if working.done():
                fault = working.exception()
                if fault is not None:
                    log.warning("cache_not_kept_up", reason=str(fault))
                working = self._work()

    def _work(self) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().run_in_executor(self._thread, self._filler.work)

    async def close(self) -> None:
        self._filler.stop.set()
        with suppress(CalotypeError):
            await self._write_hits()
        await asyncio.to_thread(self._thread.shutdown)

    async def _write_hits(self) -> None:
        if not self._hits:
            return
        hits, self._hits = self._hits, Counter()
        try:
            await self._db.write(lambda c: sql.count(c, self.node, hits, now_ms()))
        except CalotypeError:
            self._hits.update(hits)
            raise
