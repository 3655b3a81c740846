"""imsNativeExportImageJob: an image becomes an object in a bucket, as qcow2, VHD (dynamic) or VMDK (streamOptimized).

The object appears whole or not at all, and never over one that was there. It is named only in the last step, after
its guest bytes were compared with the image's.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from calotype.blobs.digest import digest_file
from calotype.blobs.model import BlobId
from calotype.blobs.threads import to_the_end
from calotype.buckets.model import ObjectAddress
from calotype.buckets.service import Buckets
from calotype.db.engine import now_ms
from calotype.disks.convert import TargetKind
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat
from calotype.errors import (
    ExportRunning,
    ExportUnsupported,
    ImageTooLarge,
    IsoImage,
    LiesElsewhere,
    NotImageOwner,
    ObjectExists,
    ObjectNotFound,
    PublicImageExport,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images.model import Image, ImageId, ImageStatus, Visibility
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs
from calotype.settings import Settings

# What the API calls a file format -> what is written, and the name of it in the catalogue.
TARGETS: Final[Mapping[str, tuple[TargetKind, DiskFormat]]] = {
    "qcow2": (TargetKind.QCOW2_ZSTD, DiskFormat.QCOW2),
    "vhd": (TargetKind.VHD, DiskFormat.VHD),
    "vmdk": (TargetKind.VMDK_STREAM, DiskFormat.VMDK),
}


async def submit(
    caller: Caller,
    image_id: ImageId,
    address: ObjectAddress,
    file_format: str,
    *,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
) -> JobId:
    """Accept an export, or raise the first reason against it. Nothing is written then."""
    if file_format not in TARGETS:
        raise ExportUnsupported(f"images are exported as {', '.join(TARGETS)}; not as {file_format!r}")
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    store.check_writable()

    def work(c: Connection) -> JobId:
        image = images.visible_in(c, caller, image_id)
        _exportable(image, caller, images.settings)
        if sql.open_on_image(c, image.id, [JobType.EXPORT]):
            raise ExportRunning("an export of this image is under way; wait until it has ended")
        return jobs.submit_in(
            c,
            caller,
            JobType.EXPORT,
            request={"bucket": address.bucket, "key": address.key, "file_format": file_format},
            entities={"image_id": image.id, "image_name": image.name or ""},
            image_id=image.id,
        )

    try:
        await asyncio.to_thread(store.stat, address.key)
    except ObjectNotFound:
        return await images.db.write(work)
    raise ObjectExists(address.bucket, address.key)


def _exportable(image: Image, caller: Caller, settings: Settings) -> None:
    if image.visibility is Visibility.PUBLIC:
        raise PublicImageExport("public images cannot be exported; copy it first")
    if image.project_id != caller.project_id:
        raise NotImageOwner("only the owner of an image can export it; copy it first")
    if image.status is not ImageStatus.ACTIVE or image.blob_id is None:
        raise WrongStatus(now=image.status, wanted="only an active image can be exported")
    if image.lies_elsewhere:
        raise LiesElsewhere("the bytes of the image lie at a URL; upload it as an image of its own, then export that")
    if image.disk_format == DiskFormat.ISO:
        raise IsoImage("an ISO image cannot be exported; download it")
    if (image.size or 0) > settings.image.export_bytes:
        raise ImageTooLarge(f"only images up to {settings.image.export_bytes} bytes can be exported")


class Export:
    type = JobType.EXPORT

    def __init__(self, parts: Parts) -> None:
        self.settings = parts.settings
        self.images = parts.images
        self.blobs = parts.blobs
        self.buckets = parts.buckets
        self.converter = parts.converter

    async def step(self, name: str, run: Run) -> Result:
        match name:
            case "fetch":
                return await self._fetch(run)
            case "convert":
                return await self._convert(run)
            case "verify":
                return await self._verify(run)
            case _:
                return await self._publish(run)

    async def _fetch(self, run: Run) -> Result:
        """Take hold of the bytes: a hard link, so that deleting the image meanwhile does not matter."""
        image = await self.images.db.read(lambda c: self.images.by_id_in(c, ImageId(str(run.job.image_id))))
        if image is None or image.blob_id is None or image.status is not ImageStatus.ACTIVE:
            raise WrongStatus(
                now="gone" if image is None else image.status, wanted="only an active image can be exported"
            )
        source = run.scratch / "source"
        await asyncio.to_thread(_held, self.blobs.path(BlobId(image.blob_id)), source)
        found = await asyncio.to_thread(self._virtual_size, source, str(image.disk_format))
        run.advance(1.0)
        return {"format": image.disk_format, "virtual_size": found, "size": image.size}

    def _virtual_size(self, path: Path, disk_format: str) -> int:
        with path.open("rb") as file:
            most = self.settings.image.virtual_bytes_per_image
            return inspect(file, declared=disk_format, most_virtual_bytes=most).virtual_size

    async def _convert(self, run: Run) -> Result:
        source = run.scratch / "source"
        if not await asyncio.to_thread(source.exists):
            await self._fetch(run)  # held by a worker on another machine, whose scratch folder this is not
        source_format = DiskFormat(run.results["fetch"]["format"])
        kind, target_format = TARGETS[run.job.request["file_format"]]
        target = run.scratch / f"out-{run.job.attempt}"
        target.unlink(missing_ok=True)
        if source_format is target_format and source_format is DiskFormat.QCOW2:
            size = source.stat().st_size
            await to_the_end(
                partial(
                    digest_file,
                    source,
                    hash_algorithm=self.settings.image.hash_algorithm,
                    copy_to=target,
                    progress=lambda done: run.advance_bytes(done, size),
                    cancelled=run.stop,
                )
            )
        else:
            await self.converter.convert(
                source,
                source_format,
                target,
                kind,
                virtual_size=run.results["fetch"]["virtual_size"],
                progress=run.advance,
            )
        return {"file": target.name, "format": target_format.value}

    async def _verify(self, run: Run) -> Result:
        converted = run.results["convert"]
        if not (run.scratch / converted["file"]).exists():
            # Made by a worker on another machine, whose scratch folder this is not: make it again here.
            await self._fetch(run)
            converted = await self._convert(run)
        await self.converter.compare(
            run.scratch / "source",
            DiskFormat(run.results["fetch"]["format"]),
            run.scratch / converted["file"],
            DiskFormat(converted["format"]),
            virtual_size=run.results["fetch"]["virtual_size"],
            progress=run.advance,
        )
        return {"convert": converted}

    async def _publish(self, run: Run) -> Result:
        store = await self.buckets.resolve(run.job.project_id, run.job.request["bucket"])
        made = run.scratch / run.results["verify"]["convert"]["file"]
        run.committing = True
        await to_the_end(partial(store.put_file, made, run.job.request["key"], exclusive=True, token=run.token))
        entities = {"image_id": run.job.image_id}
        await self.images.db.write(
            lambda c: run.succeed_in(c, entities=entities, image_id=run.job.image_id, now=now_ms())
        )
        return {}

    def clean(self, job: Job) -> None:
        shutil.rmtree(self.settings.folder / "scratch" / job.id, ignore_errors=True)


def _held(blob: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(blob, target)
    except FileNotFoundError:
        raise WrongStatus(now="gone", wanted="only an active image can be exported") from None
    except OSError:
        shutil.copyfile(blob, target)  # another file system, or one without links
