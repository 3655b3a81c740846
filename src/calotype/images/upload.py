"""One upload through the API: from the first check to an active image, or back to a queued one with nothing left."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from calotype.blobs.budget import BufferBudget
from calotype.blobs.model import Blob, BlobId, Digests
from calotype.blobs.receive import receive
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import Database, now_ms
from calotype.disks.gate import inspect
from calotype.disks.model import Inspection
from calotype.errors import CalotypeError, FormatMismatch, ImageTooLarge, MalformedBody, WrongStatus
from calotype.identity.model import Caller
from calotype.images import attributes
from calotype.images.model import Image, ImageStatus
from calotype.settings import Settings

if TYPE_CHECKING:
    from calotype.images.lifecycle import Lifecycle

log = structlog.get_logger()

T = TypeVar("T")
HEARTBEAT_S: Final = 10.0  # how often an upload says that it is alive, however slow its client is


class Upload:
    def __init__(
        self, images: "Lifecycle", db: Database, blobs: Stores, settings: Settings, budget: BufferBudget
    ) -> None:
        self.images = images
        self.db = db
        self.blobs = blobs
        self.settings = settings
        self.budget = budget
        self.id = f"u{uuid4().hex}"  # of the upload, and of what it stages
        self.blob_id = BlobId(uuid4().hex)

    async def run(self, caller: Caller, image_id: str, chunks: AsyncIterable[bytes], announced: int | None) -> None:
        """See `Images.upload`."""
        self._bounded(announced)
        image = await self.db.write(lambda c: self._begin_in(c, caller, image_id, announced or 0))
        try:
            async with self._heart(image):
                digests = await self._received(image, chunks, announced)
                found = await to_the_end(self._inspected, image)
                # From here a client that goes away changes nothing: what it sent is whole and is kept.
                await _to_its_end(self._finish(image, digests, found))
        except BaseException as error:
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

    def _inspected(self, image: Image) -> Inspection:
        """What the staged bytes are. Without `format_enforcement` they may be of another format than declared; what is
        unsafe, broken or of two formats is refused all the same."""
        most = self.settings.image.virtual_bytes_per_image
        with self._staged() as file:
            try:
                found = inspect(file, declared=image.disk_format, most_virtual_bytes=most)
            except FormatMismatch as mismatch:
                if self.settings.image.format_enforcement:
                    raise
                found = inspect(file, declared=None, most_virtual_bytes=most)
                log.warning("format_differs", image_id=image.id, declared=image.disk_format, reason=mismatch.message)
        attributes.min_disk_holds(image.min_disk, found.virtual_size)
        return found

    def _staged(self) -> BinaryIO:
        try:
            return self.blobs.staging_path(self.id).open("rb")
        except FileNotFoundError as error:  # this process stood still for so long that it was taken for dead
            raise WrongStatus(now="no longer waiting for this upload", wanted="send the data again") from error

    async def _finish(self, image: Image, digests: Digests, found: Inspection) -> None:
        await to_the_end(self.blobs.publish, self.id, self.blob_id)
        blob = Blob(id=self.blob_id, digests=digests)
        used = await self.db.write(
            lambda c: self.images.activate_in(
                c,
                image.id,
                self.id,
                blob,
                disk_format=image.disk_format or found.format.value,
                virtual_size=found.virtual_size,
                properties={"__root_origin": "file"},
                now=now_ms(),
            )
        )
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
