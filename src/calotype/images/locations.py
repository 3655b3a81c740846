"""Where the bytes of images lie, as request handlers use it: told, changed by patches, dropped from stores, and read
where the service does not hold them."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.blobs.model import BlobId, Digests
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import Database, now_ms
from calotype.errors import (
    CalotypeError,
    LastCopy,
    MalformedBody,
    StoreNotConfigured,
    StoreNotFound,
    WrongStatus,
)
from calotype.fetch.fetcher import Fetcher
from calotype.identity.model import Caller
from calotype.images import placing, sql
from calotype.images.model import Image, ImageStatus, Operation
from calotype.images.placing import Placed, Survey
from calotype.images.remote import Remote, RemoteReader
from calotype.images.service import Images
from calotype.images.survey import look
from calotype.images.sweep import remove_copy
from calotype.settings import Settings

log = structlog.get_logger()

LOOKS_AT_ONCE: Final = 2  # at sources of new locations, in one process


class Locations:
    def __init__(self, db: Database, images: Images, blobs: Stores, fetcher: Fetcher, settings: Settings) -> None:
        self.settings = settings
        self._db = db
        self._images = images
        self._blobs = blobs
        self._fetcher = fetcher
        self._looking = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._remote = Remote(db, fetcher, settings)

    def close(self) -> None:
        self._remote.close()

    def told(self, caller: Caller, image: Image) -> dict[str, Any]:
        """The attributes `stores`, `locations` and `direct_url`, as far as they are told to the caller."""
        return placing.told(
            image,
            ordered=self._blobs.ordered,
            several=len(self._blobs.ids) > 1,
            policy=self.settings.imagev2.locations,
            mine=caller.is_admin or image.project_id == caller.project_id,
        )

    async def all(self, caller: Caller, image_id: str) -> list[dict[str, Any]]:
        """Every place of an image that the caller may see, whatever is told otherwise. Raises `ImageNotFound`."""
        return placing.told_places(await self._images.get(caller, image_id), self._blobs.ordered)

    # --- changing -----------------------------------------------------------------------------------------------------

    async def patch(self, caller: Caller, image_id: str, operations: Sequence[Operation]) -> Image:
        """As `Images.patch`, with operations on `locations` among others: all are done or none.

        What lies at a new URL is looked at before anything changes. Raises what `Images.patch`, `placing.apply` and
        `survey.look` raise; `ReadOnlyAttribute` where the settings do not let owners set locations.
        """
        placed = [operation for operation in operations if operation.name == "locations"]
        others = [operation for operation in operations if operation.name != "locations"]
        placing.check_patch(self.settings.imagev2.locations, placed, is_admin=caller.is_admin)
        surveys = await self._surveyed(await self._images.get(caller, image_id), caller, placed)

        def work(c: Connection) -> tuple[Image, Placed]:
            image = self._images.patch_in(c, caller, image_id, others)
            done = placing.apply(
                image,
                placed,
                surveys=surveys,
                ordered=self._blobs.ordered,
                remote=self._blobs.remote,
                hash_algorithm=self.settings.image.hash_algorithm,
            )
            return self._write(c, image, done), done

        image, done = await self._db.write(work)
        for store in done.dropped:
            await self._remove_copy(image, store)
        return image

    async def _surveyed(self, image: Image, caller: Caller, operations: Sequence[Operation]) -> dict[str, Survey]:
        self._images.own(caller, image)
        urls = placing.new_urls(image, operations)
        for url in urls:
            self._fetcher.check(url)
        if not self._blobs.remote and urls:
            raise MalformedBody("no http store is configured: images cannot point at URLs")
        surveys = {}
        for url in urls:
            async with self._looking:
                surveys[url] = await asyncio.to_thread(look, self._fetcher, url, image, self.settings)
        return surveys

    def _write(self, c: Connection, image: Image, done: Placed) -> Image:
        now = max(now_ms(), image.updated_at)
        if done.survey is None:
            after = replace(done.image, stores=tuple(name for name in image.stores if name not in done.dropped))
            if after == image:
                return image
            sql.place(c, after, now)
            return replace(after, updated_at=now, version=image.version + 1)
        if not (image.disk_format and image.container_format):
            raise MalformedBody("disk_format and container_format must be set before a location is")
        claim = done.claim
        digests = Digests(
            size=done.survey.size,
            md5=claim.checksum,
            hash_algorithm=claim.os_hash_algo,
            hash_value=claim.os_hash_value,
        )
        virtual_size = done.survey.virtual_size
        return self._images.point_in(c, image, done.image.locations, digests, virtual_size=virtual_size, now=now)

    async def drop(self, caller: Caller, store: str, image_id: str) -> None:
        """Let a store hold an image no longer. The bytes go, unless another image counts on them there.

        Raises `StoreNotConfigured`, `ImageNotFound`, `NotImageOwner`, `WrongStatus`, `LastCopy`, `StoreNotFound` when
        the image is not in the store.
        """
        if store not in self._blobs.ids:
            raise StoreNotConfigured(f"no store {store} is configured here")

        def work(c: Connection) -> Image:
            image = self._images.owned_in(c, caller, image_id)
            if image.status is not ImageStatus.ACTIVE:
                raise WrongStatus(now=image.status, wanted="its data is removed from a store only while it is active")
            if len(image.stores) + len(image.locations) == 1:
                raise LastCopy("the store holds the only copy of the image; delete the image instead")
            after = _without(image, store)
            if after == image:
                raise StoreNotFound(f"image {image.id} is not in store {store}")
            sql.place(c, after, max(now_ms(), image.updated_at))
            return after

        await self._remove_copy(await self._db.write(work), store)

    async def _remove_copy(self, image: Image, store: str) -> None:
        if store not in self._blobs.writable or image.blob_id is None:
            return
        try:
            await to_the_end(remove_copy, self._images, self._db, self._blobs, BlobId(image.blob_id), store)
        except (CalotypeError, OSError) as error:  # the image is not there any more; the bytes the sweeper removes
            log.warning("copy_not_removed", image_id=image.id, store=store, reason=str(error))

    # --- reading ------------------------------------------------------------------------------------------------------

    async def open(self, image: Image, first: int, last: int) -> RemoteReader:
        """The bytes of an image that lies elsewhere. The caller knows that they may be given out. Raises as
        `Remote.open`."""
        return await self._remote.open(image, first, last)


def _without(image: Image, store: str) -> Image:
    """Without the store's copy, or without the first location of an http store."""
    if store in image.stores:
        return replace(image, stores=tuple(name for name in image.stores if name != store))
    found = next((location for location in image.locations if location.store == store), None)
    return replace(image, locations=tuple(location for location in image.locations if location is not found))
