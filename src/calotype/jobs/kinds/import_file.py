"""Accepting imsImportImageJob (a file in a bucket becomes a new image) and imsNativeImportImageJob (it becomes the
bytes of an image that waits for them). What the jobs then do is in `ingest.py`."""

import asyncio

from sqlalchemy import Connection

from calotype.buckets.model import ObjectAddress, ObjectInfo
from calotype.buckets.service import Buckets
from calotype.db.engine import now_ms
from calotype.errors import EmptyDisk, ImageTooLarge, WrongStatus
from calotype.identity.model import Caller
from calotype.images.model import ImageCreate, ImageId, ImageStatus
from calotype.images.service import Images
from calotype.jobs.kinds.ingest import Source
from calotype.jobs.model import JobId, JobType
from calotype.jobs.service import Jobs
from calotype.settings import Settings


async def submit_import(
    caller: Caller,
    address: ObjectAddress,
    spec: ImageCreate,
    *,
    iso: bool,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept an import, or raise the first reason against it. The image is there, `queued`, once this returns."""
    found = await _object(caller, address, buckets, settings)

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now_ms())
        source = Source(bucket=address.bucket, key=address.key, etag=found.etag, iso=iso)
        return jobs.submit_in(
            c,
            caller,
            JobType.IMPORT,
            request={"bucket": source.bucket, "key": source.key, "etag": source.etag, "iso": source.iso},
            entities={"image_name": image.name or "", "image_id": image.id},
            image_id=image.id,
        )

    return await images.db.write(work)


async def submit_register(
    caller: Caller,
    image_id: ImageId,
    address: ObjectAddress,
    *,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept filling a queued image from a bucket, or raise the first reason against it."""
    found = await _object(caller, address, buckets, settings)

    def work(c: Connection) -> JobId:
        image = images.owned_in(c, caller, image_id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(now=image.status, wanted="only a queued image can be given its bytes")
        jobs.refuse_second_in(c, image.id)
        return jobs.submit_in(
            c,
            caller,
            JobType.REGISTER,
            request={
                "bucket": address.bucket,
                "key": address.key,
                "etag": found.etag,
                "iso": image.disk_format == "iso",
            },
            entities={"image_id": image.id, "image_name": image.name or ""},
            image_id=image.id,
        )

    return await images.db.write(work)


async def _object(caller: Caller, address: ObjectAddress, buckets: Buckets, settings: Settings) -> ObjectInfo:
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    found = await asyncio.to_thread(store.stat, address.key)
    if found.size == 0:
        raise EmptyDisk(f"{address.bucket}:{address.key} is empty")
    if found.size > settings.image.file_bytes:
        raise ImageTooLarge(f"the file has {found.size} bytes; at most {settings.image.file_bytes} are allowed")
    return found
