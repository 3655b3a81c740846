"""copy-image: an active image gets more stores that hold it. It stays active, and can be read, all the time.

copy     one store after the other; each counts as soon as it has the bytes, read back
publish  the marks on the image end, and the job is a success
"""

import asyncio
from functools import partial

import structlog
from sqlalchemy import Connection

from calotype.blobs.model import BlobId, Digests
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.errors import CalotypeError, ImageNotFound, JobCancelled
from calotype.images import marks
from calotype.images.model import Image
from calotype.images.sweep import remove_copy
from calotype.jobs.kinds.ingest import image_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.tasks import task_id

log = structlog.get_logger()


class Replicate:
    type = JobType.REPLICATE

    def __init__(self, parts: Parts) -> None:
        self.images = parts.images
        self.blobs = parts.blobs

    async def step(self, name: str, run: Run) -> Result:
        return await (self._copy(run) if name == "copy" else self._publish(run))

    async def _copy(self, run: Run) -> Result:
        stores: list[str] = run.job.request["backend"]
        failed: list[str] = []
        must = run.job.request["import_req"].get("all_stores_must_succeed", True)
        for number, store in enumerate(stores):
            try:
                await self._copy_to(run, store, number / len(stores), 1 / len(stores))
            except (JobCancelled, ImageNotFound):
                raise
            except (CalotypeError, OSError) as error:
                if must or len(failed) + 1 == len(stores):
                    raise
                failed.append(store)
                log.warning("store_not_reached", store=store, image_id=run.job.image_id, reason=str(error))
                mark = partial(marks.failed_in, image_id=image_of(run.job), task=task_id(run.job.id), store=store)
                await self.images.db.write(lambda c, mark=mark: mark(c, now=now_ms()))  # type: ignore[misc]
        return {"failed": failed}

    async def _copy_to(self, run: Run, store: str, done: float, share: float) -> None:
        image = await self.images.db.read(lambda c: self._image_in(c, run))
        if store in image.stores:
            return
        blob_id, size = BlobId(str(image.blob_id)), max(1, image.size or 0)
        replicate = partial(
            self.blobs.replicate,
            blob_id,
            store,
            expected=_digests(image),
            progress=lambda at: run.advance(done + share * at / size),
            cancelled=run.stop.is_set,
        )
        await to_the_end(replicate)
        try:
            await self.images.db.write(lambda c: self._stored_in(c, run, blob_id, store))
        except ImageNotFound:
            # Deleted while its bytes were copied. Another image may count on the same bytes there.
            await asyncio.to_thread(remove_copy, self.images, self.images.db, self.blobs, blob_id, store)
            raise

    def _image_in(self, c: Connection, run: Run) -> Image:
        image = self.images.by_id_in(c, image_of(run.job))
        if image is None or not image.has_bytes or image.blob_id is None or not image.stores:
            raise ImageNotFound(image_of(run.job))
        return image

    def _stored_in(self, c: Connection, run: Run, blob_id: BlobId, store: str) -> None:
        image = self._image_in(c, run)
        if image.blob_id != blob_id:
            raise ImageNotFound(image.id)
        stores = self.blobs.ordered((*image.stores, store))
        if not marks.stored_in(c, image.id, task_id(run.job.id), store, stores, now_ms()):
            raise ImageNotFound(image.id)

    async def _publish(self, run: Run) -> Result:
        image_id = image_of(run.job)
        run.committing = True

        def finish(c: Connection) -> None:
            now = now_ms()
            marks.end_in(c, image_id, task_id(run.job.id), run.results["copy"]["failed"], now)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)

        await self.images.db.write(finish)
        return {}

    def clean(self, job: Job) -> None:
        """A copy that was under way is removed by who made it; what a dead worker left is swept as staged bytes are."""


def _digests(image: Image) -> Digests | None:
    if image.checksum is None or image.hash_algorithm is None or image.hash_value is None:
        return None
    return Digests(
        size=image.size or 0,
        md5=image.checksum,
        hash_algorithm=image.hash_algorithm,
        hash_value=image.hash_value,
    )
