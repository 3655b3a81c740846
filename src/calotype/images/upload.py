"""One upload through the API: from the first check to an active image, or to one whose bytes wait for their import; or
back to a queued one with nothing left."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from calotype.blobs.budget import BufferBudget
from calotype.blobs.digest import digest_file
from calotype.blobs.faults import storage_fault
from calotype.blobs.local import sync_folder
from calotype.blobs.model import Blob, BlobId, Digests
from calotype.blobs.receive import receive
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import Database, now_ms
from calotype.disks.gate import OPAQUE, keep
from calotype.disks.model import Inspection, Opaque
from calotype.errors import (
    CalotypeError,
    ContentDigestMismatch,
    EmptyDisk,
    FormatMismatch,
    ImageTooLarge,
    MalformedBody,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images import attributes
from calotype.images.model import Image, ImageStatus
from calotype.settings import LOCAL, ImageSettings, Settings

if TYPE_CHECKING:
    from calotype.images.lifecycle import Lifecycle

log = structlog.get_logger()

T = TypeVar("T")
NOT_SAID: Final[Mapping[str, str]] = MappingProxyType({})
HEARTBEAT_S: Final = 10.0  # how often an upload says that it is alive, however slow its client is


class Upload:
    """Bytes that make a queued image active."""

    def __init__(
        self,
        images: "Lifecycle",
        db: Database,
        blobs: Stores,
        settings: Settings,
        budget: BufferBudget,
        store: str = LOCAL,
        expected: Mapping[str, str] = NOT_SAID,
    ) -> None:
        self.images = images
        self.db = db
        self.blobs = blobs
        self.settings = settings
        self.budget = budget
        self.store = store  # that is to hold the bytes
        self.expected = expected  # algorithm -> hex digest, as the client says
        self.id = f"u{uuid4().hex}"  # of the upload, and of what it stages
        self.blob_id = BlobId(uuid4().hex)
        self.done = False  # what was sent is whole, checked, and recorded

    async def run(self, caller: Caller, image_id: str, chunks: AsyncIterable[bytes], announced: int | None) -> None:
        """See `Images.upload`."""
        self._bounded(announced)
        image = await self.db.write(lambda c: self._begin_in(c, caller, image_id, announced or 0))
        try:
            async with self._heart(image):
                await self._take(image, await self._received(image, chunks, announced))
        except BaseException as error:
            if not self.done:
                await _to_its_end(self._undo(image))
            reason = error.code if isinstance(error, CalotypeError) else type(error).__name__
            log.info("upload_failed", image_id=image.id, reason=reason)
            raise

    def _bounded(self, announced: int | None) -> None:
        most = self.settings.image.file_bytes
        if announced is not None and announced > most:
            raise ImageTooLarge(f"{announced} bytes are announced; an image has at most {most}")

    def _begin_in(self, connection: Connection, caller: Caller, image_id: str, reserve: int) -> Image:
        image = self.images.owned_in(connection, caller, image_id)
        if image.status is ImageStatus.QUEUED and not (image.disk_format and image.container_format):
            raise MalformedBody("disk_format and container_format must be set before data is uploaded")
        return self.images.begin_bytes_in(connection, image.id, self.id, reserve=reserve, now=now_ms())

    async def _take(self, image: Image, digests: Digests) -> None:
        if digests.size == 0:  # clients without a terminal send such a body when they were given no data
            log.info("nothing_uploaded", image_id=image.id)
            return await _to_its_end(self._undo(image))
        await self._check(digests)
        found = await to_the_end(self._inspected, image)
        # From here a client that goes away changes nothing: what it sent is whole and is kept.
        return await _to_its_end(self._finish(image, digests, found))

    async def _received(self, image: Image, chunks: AsyncIterable[bytes], announced: int | None) -> Digests:
        async def grew(total: int) -> None:
            await self.db.write(lambda c: self.images.reserve_in(c, image.id, self.id, total, now_ms()))

        return await receive(
            chunks,
            self.blobs.staging_path(self.id),
            hash_algorithm=self.settings.image.hash_algorithm,
            most_bytes=self.settings.image.file_bytes,
            budget=self.budget,
            sparse=True,
            idle_s=self.settings.image.upload_idle_s,
            grew=grew,
            announced=announced,
        )

    async def _check(self, digests: Digests) -> None:
        """Against what the client says; what was not computed while the bytes came is computed now."""
        computed = {"md5": digests.md5, digests.hash_algorithm: digests.hash_value}
        for name, value in self.expected.items():
            if name not in computed:
                computed[name] = await to_the_end(partial(self._digest, name))
            if computed[name] != value:
                raise ContentDigestMismatch(f"the bytes that came are not those that were sent: their {name} differs")

    def _inspected(self, image: Image) -> Inspection | Opaque:
        with self._staged() as file:
            found = inspected(file, image_id=image.id, declared=image.disk_format, limits=self.settings.image)
        attributes.min_disk_holds(image.min_disk, found.virtual_size)
        return found

    def _digest(self, algorithm: str) -> str:
        with self._staged():
            return digest_file(self.blobs.staging_path(self.id), hash_algorithm=algorithm).hash_value

    def _staged(self) -> BinaryIO:
        try:
            return self.blobs.staging_path(self.id).open("rb")
        except FileNotFoundError as error:  # this process stood still for so long that it was taken for dead
            raise WrongStatus(now="no longer waiting for this upload", wanted="send the data again") from error

    async def _finish(self, image: Image, digests: Digests, found: Inspection | Opaque) -> None:
        await to_the_end(self.blobs.publish, self.id, self.blob_id, self.store)
        blob = Blob(id=self.blob_id, digests=digests, location=self.store)
        used = await self.db.write(
            lambda c: self.images.activate_in(
                c,
                image.id,
                self.id,
                blob,
                disk_format=shown_format(image.disk_format, found),
                virtual_size=found.virtual_size,
                properties={"__root_origin": "file"},
                stores=(self.store,),
                now=now_ms(),
            )
        )
        self.done = True
        if used != self.blob_id:
            with contextlib.suppress(OSError):  # it is active; what is left over the sweeper removes
                await to_the_end(self.blobs.delete, self.blob_id)
        log.info("image_activated", image_id=image.id, size_bytes=digests.size, blob_id=used)

    async def _undo(self, image: Image) -> None:
        """Take everything back, unless the image became active after all. What fails here the sweeper makes good."""
        with contextlib.suppress(CalotypeError, OSError):
            await to_the_end(self.blobs.discard, self.id)
            await self.db.write(lambda c: self.images.abandon_in(c, image.id, self.id, to="queued", now=now_ms()))
            known = await self.db.read(lambda c: self.images.known_blob_ids_in(c, [self.blob_id]))
            if not known:
                await to_the_end(self.blobs.delete, self.blob_id)

    @contextlib.asynccontextmanager
    async def _heart(self, image: Image) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat(image), name=f"upload {self.id}")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self, image: Image) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(CalotypeError):  # the database is away: it may be back at the next beat
                await self.db.write(lambda c: self.images.touch_in(c, image.id, self.id, now_ms()))


class Staging(Upload):
    """Bytes that wait in the staging folder for the import that is asked for next."""

    def _begin_in(self, connection: Connection, caller: Caller, image_id: str, reserve: int) -> Image:
        image = self.images.owned_in(connection, caller, image_id)
        return self.images.begin_staging_in(connection, image.id, self.id, reserve=reserve, now=now_ms())

    async def _take(self, image: Image, digests: Digests) -> None:
        if digests.size == 0:
            raise EmptyDisk("no byte was sent; send the data of the image")
        await self._check(digests)
        await _to_its_end(self._keep(image, digests))

    async def _keep(self, image: Image, digests: Digests) -> None:
        await to_the_end(self._synced)
        await self.db.write(lambda c: self.images.staged_in(c, image.id, self.id, digests, now_ms()))
        self.done = True
        log.info("image_staged", image_id=image.id, size_bytes=digests.size)

    def _synced(self) -> None:
        """What was accepted survives a power cut."""
        path = self.blobs.staging_path(self.id)
        try:
            with self._staged() as file:
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except OSError as error:
            raise storage_fault(error) from error


def shown_format(declared: str | None, found: Inspection | Opaque) -> str:
    """The `disk_format` of an image whose bytes are kept as they came. ZVHD and ZVHD2 say nothing of the bytes, so what
    is found in such a file is said instead."""
    return found.format.value if declared is None or declared in OPAQUE else declared


def inspected(
    file: BinaryIO | Path, *, image_id: str, declared: str | None, limits: ImageSettings, converted: bool = False
) -> Inspection | Opaque:
    """What the bytes of an image are. Without `format_enforcement` they may be of another format than declared; what is
    unsafe, broken or of two formats is refused all the same. `converted`: the bytes themselves are not stored, but what
    they become. Raises the leaves of `DiskRefused`."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return inspected(opened, image_id=image_id, declared=declared, limits=limits, converted=converted)
    look = partial(keep, most_virtual_bytes=limits.virtual_bytes_per_image, converted=converted)
    try:
        return look(file, declared=declared)
    except FormatMismatch as mismatch:
        if limits.format_enforcement:
            raise
        found = look(file, declared=None)
        log.warning("format_differs", image_id=image_id, declared=declared, reason=mismatch.message)
        return found


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` also when cancelled meanwhile; only then let the cancellation go on. It must be bounded itself."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is what is told
        raise cancelled
    return task.result()
