"""Accepting imsImportImageJob (a file in a bucket becomes a new image) and imsNativeImportImageJob (it becomes the
bytes of an image that waits for them). What the jobs then do is in `ingest.py`."""

import asyncio
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.buckets.model import ObjectAddress, ObjectInfo
from calotype.buckets.service import Buckets
from calotype.db.engine import now_ms
from calotype.errors import (
    BitmapMissing,
    DuplicateFile,
    EmptyDisk,
    ImageTooLarge,
    ObjectNotFound,
    TooManyDataImages,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images.model import ImageCreate, ImageId, ImageStatus
from calotype.images.service import Images
from calotype.jobs.families import SubJob
from calotype.jobs.kinds.ingest import Source, opaque_name
from calotype.jobs.model import JobId, JobType
from calotype.jobs.service import Jobs
from calotype.settings import Settings


async def submit_import(
    caller: Caller,
    address: ObjectAddress,
    spec: ImageCreate,
    *,
    iso: bool,
    quick: bool = False,
    config: bool = False,
    source_digest: str | None = None,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept an import, or raise the first reason against it. The image is there, `queued`, once this returns."""
    file = File(address=address, spec=spec, quick=quick, source_digest=source_digest)
    source = await _source(caller, file, buckets, settings)
    source = replace(source, iso=iso)

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now_ms())
        return jobs.submit_in(
            c,
            caller,
            JobType.IMPORT,
            request=source.to_request(config=config),
            entities={"image_name": image.name or "", "image_id": image.id},
            image_id=image.id,
        )

    return await images.db.write(work)


class File(Struct, frozen=True, kw_only=True):
    """A file in a bucket, and the image that it is to become."""

    address: ObjectAddress
    spec: ImageCreate
    quick: bool = False
    source_digest: str | None = None  # that it is expected to have; see `source_digest.py`


async def submit_data_import(
    caller: Caller, file: File, *, images: Images, buckets: Buckets, jobs: Jobs, settings: Settings
) -> JobId:
    """Accept the import of a data disk image, or raise the first reason against it."""
    source = await _source(caller, file, buckets, settings)

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=file.spec, now=now_ms())
        return jobs.submit_in(
            c,
            caller,
            JobType.IMPORT_DATA,
            request=source.to_request(),
            entities={"image_name": image.name or "", "image_id": image.id},
            image_id=image.id,
        )

    return await images.db.write(work)


async def submit_imports(
    caller: Caller,
    system: File,
    data: Sequence[File],
    *,
    iso: bool,
    config: bool,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept the import of a system disk image and of data disk images that belong to it, or raise the first reason
    against it. The job is the parent of one job a file."""
    if len(data) > settings.image.data_disks:
        raise TooManyDataImages(f"data_images: at most {settings.image.data_disks} at once")
    named = [(file.address.bucket, file.address.key) for file in (system, *data)]
    if len(set(named)) < len(named):
        raise DuplicateFile("the same file is named twice")
    sources = [await _source(caller, file, buckets, settings) for file in (system, *data)]

    def work(c: Connection) -> JobId:
        now = now_ms()
        children: list[SubJob] = []
        for file, source in zip((system, *data), sources, strict=True):
            image = images.create_in(c, project_id=str(caller.project_id), spec=file.spec, now=now)
            request = source.to_request() if children else replace(source, iso=iso).to_request(config=config)
            children.append(
                SubJob(
                    kind=JobType.IMPORT_DATA if children else JobType.IMPORT,
                    request=request,
                    entities={"image_name": image.name or "", "image_id": image.id},
                    image_id=image.id,
                )
            )
        files = [{"bucket": source.bucket, "key": source.key} for source in sources]
        return jobs.submit_family_in(c, caller, JobType.IMPORT, request={"files": files}, children=children)

    return await images.db.write(work)


async def submit_register(
    caller: Caller,
    image_id: ImageId,
    address: ObjectAddress,
    *,
    source_digest: str | None = None,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept filling a queued image from a bucket, or raise the first reason against it."""
    found = await _object(caller, address, buckets, settings.image.file_bytes)

    def work(c: Connection) -> JobId:
        image = images.owned_in(c, caller, image_id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(now=image.status, wanted="only a queued image can be given its bytes")
        jobs.refuse_second_in(c, image.id)
        return jobs.submit_in(
            c,
            caller,
            JobType.REGISTER,
            request=Source(
                bucket=address.bucket,
                key=address.key,
                etag=found.etag,
                iso=image.disk_format == "iso",
                source_digest=source_digest,
            ).to_request(),
            entities={"image_id": image.id, "image_name": image.name or ""},
            image_id=image.id,
        )

    return await images.db.write(work)


async def _source(caller: Caller, file: File, buckets: Buckets, settings: Settings) -> Source:
    most = settings.image.quick_bytes if file.quick else settings.image.file_bytes
    found = await _object(caller, file.address, buckets, most)
    if file.quick and opaque_name(file.address.key) is None:
        await _check_bitmap(caller, file.address, buckets)
    return Source(
        bucket=file.address.bucket,
        key=file.address.key,
        etag=found.etag,
        quick=file.quick,
        source_digest=file.source_digest,
    )


async def _object(caller: Caller, address: ObjectAddress, buckets: Buckets, most: int) -> ObjectInfo:
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    found = await asyncio.to_thread(store.stat, address.key)
    if found.size == 0:
        raise EmptyDisk(f"{address.bucket}:{address.key} is empty")
    if found.size > most:
        raise ImageTooLarge(f"the file has {found.size} bytes; at most {most} are allowed")
    return found


async def _check_bitmap(caller: Caller, address: ObjectAddress, buckets: Buckets) -> None:
    """The API wants the bitmap of a raw file beside it. What it says is not needed: holes are found in the file."""
    folder, slash, name = address.key.rpartition("/")
    bitmap = f"{folder}{slash}{name.rpartition('.')[0] or name}.mf"
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    try:
        await asyncio.to_thread(store.stat, bitmap)
    except ObjectNotFound:
        raise BitmapMissing(f"a quick import wants the file {address.bucket}:{bitmap} beside it") from None
