"""imsCrossRegionCopyImageJob: an image becomes one of another region, with bytes that were moved once and verified.

create    the bytes here are held, and an image for them is made there, hidden
transfer  the bytes go there; a connection that breaks begins again with the first byte
verify    what is known there of the bytes is what is known of them here
publish   the image there is shown, and the job is a success

A copy that fails leaves nothing there, as far as the other region can be reached.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
from sqlalchemy import Connection

from calotype.blobs.download import stream
from calotype.blobs.faults import storage_fault
from calotype.blobs.local import BlobReader
from calotype.blobs.model import BlobId
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.errors import (
    CalotypeError,
    EncryptedImageCopy,
    LeftInRegion,
    NoSpace,
    NoVaultThere,
    RegionFailed,
    RegionUnavailable,
    Unavailable,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images.model import Image, ImageId, ImageStatus
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.kinds.copy_image import check_accepted_in, check_copyable
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.kinds.region_image import (
    HIDDEN,
    TRIES,
    Facts,
    RegionImage,
    facts_of,
    image_ids,
    remove,
    verify,
)
from calotype.jobs.model import Job, JobId, JobStatus, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs
from calotype.regions.client import Region, Regions
from calotype.regions.destination import Destination
from calotype.settings import Settings

log = structlog.get_logger()

REMOVED_WITHIN_S: Final = 15.0  # how long a failed copy is tried to be removed
SWEPT_WITHIN_S: Final = 10.0  # and how long once more, after the job has ended
ENCRYPTED: Final = "__system__cmkid"


async def submit(
    caller: Caller,
    image_id: ImageId,
    where: Destination,
    *,
    name: str,
    description: str | None,
    images: Images,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept a copy, or raise the first reason against it. Nothing is made in the other region yet."""
    request = {"source": image_id, "region": where.region, "project_name": where.project, "name": name}
    if description:
        request["description"] = description

    def work(c: Connection) -> JobId:
        source = images.visible_in(c, caller, image_id)
        check_accepted_in(c, caller, source, images)
        check_crossing(source, settings)
        return jobs.submit_in(
            c,
            caller,
            JobType.COPY_ACROSS,
            request=request,
            entities={"image_name": name},
            image_id=None,  # the one that it makes is not of this catalogue
        )

    return await images.db.write(work)


def check_crossing(source: Image, settings: Settings) -> None:
    """Pass for an image that may be copied to another region."""
    if source.is_whole:
        raise NoVaultThere("a full-server image is made of backups, which cannot be copied to another region")
    if source.properties.get(ENCRYPTED):
        raise EncryptedImageCopy("an encrypted image cannot be copied to another region; copy it here without a key")
    check_copyable(source, settings)


class CrossRegionCopy:
    type = JobType.COPY_ACROSS

    def __init__(self, parts: Parts, regions: Regions) -> None:
        self.settings = parts.settings
        self.images = parts.images
        self.blobs = parts.blobs
        self.regions = regions
        self._nothing_left: set[str] = set()  # jobs that failed in this process and left nothing there

    async def step(self, name: str, run: Run) -> Result:
        async with self.regions.opened(_destination(run.job)) as region:
            image: RegionImage | None = None
            try:
                image = RegionImage(region, run.job, await self._facts(run))
                match name:
                    case "create":
                        return await self._create(image, run)
                    case "transfer":
                        return await self._transfer(image, run)
                    case "verify":
                        return await self._verify(image, run)
                    case _:
                        return await self._publish(image, run)
            except (Unavailable, NoSpace):
                raise  # of this side: the step is done again
            except CalotypeError as error:
                await self._take_back(region, run, error, image.last_id if image else None)
                raise

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _facts(self, run: Run) -> Facts:
        if "create" in run.results:
            return msgspec.convert(run.results["create"], Facts)
        request = run.job.request
        source = await self.images.db.read(lambda c: self.images.by_id_in(c, ImageId(request["source"])))
        if source is None or source.status is not ImageStatus.ACTIVE or not source.stores:
            raise WrongStatus(now="gone" if source is None else source.status, wanted="the source must be active")
        return facts_of(
            source, name=request["name"], description=request.get("description"), region=self.settings.region
        )

    async def _create(self, image: RegionImage, run: Run) -> Result:
        await self._held(run, image.facts)
        await image.region.patiently(image.ready)
        run.advance(1.0)
        kept: Result = msgspec.to_builtins(image.facts)
        return kept

    async def _transfer(self, image: RegionImage, run: Run) -> Result:
        source = await self._held(run, image.facts)
        size, region = image.facts.size, image.region
        last: RegionFailed | None = None
        for number in range(TRIES):
            if last is not None:
                log.warning("region_transfer_broke", region=region.name, reason=last.message)
                await asyncio.sleep(min(2.0**number, region.patience_s / TRIES))
            image_id, has_bytes = await region.patiently(image.ready)
            if has_bytes:
                run.advance_bytes(size, size)
                return {"image_id": image_id}
            try:
                await region.upload(image_id, _chunks(source, size, run, image), size, image.facts.digests)
            except RegionUnavailable as error:
                last = error
            else:
                run.advance_bytes(size, size)
                return {"image_id": image_id}
        why = "" if last is None else f": {last.message}"
        raise RegionFailed(f"the bytes were sent {TRIES} times, and never arrived whole{why}")

    async def _verify(self, image: RegionImage, run: Run) -> Result:
        region, image_id = image.region, run.results["transfer"]["image_id"]
        found = await region.patiently(partial(image.settled, image_id))
        verify(found, image.facts, region.name)
        run.advance(1.0)
        return {"hidden": str(found.get(HIDDEN)).lower() == "true"}

    async def _publish(self, image: RegionImage, run: Run) -> Result:
        image_id = run.results["transfer"]["image_id"]
        run.committing = True
        if run.results["verify"]["hidden"]:
            shown = [{"op": "replace", "path": f"/{HIDDEN}", "value": False}]
            await image.region.patiently(partial(image.region.change, image_id, shown))
        entities = {**run.job.entities, "image_id": image_id}
        await self.images.db.write(lambda c: run.succeed_in(c, entities=entities, image_id=image_id, now=now_ms()))
        return {}

    # --- the bytes here -----------------------------------------------------------------------------------------------

    async def _held(self, run: Run, facts: Facts) -> Path:
        """A hard link to the bytes, so that deleting the image meanwhile does not matter."""
        target = run.scratch / "source"
        if not await asyncio.to_thread(target.exists):
            await to_the_end(_hold, self.blobs.path(BlobId(facts.blob_id)), target)
        return target

    # --- undoing ------------------------------------------------------------------------------------------------------

    async def _take_back(self, region: Region, run: Run, error: CalotypeError, last_id: str | None) -> None:
        """Remove what this attempt made there, unless another attempt has the job. Raises `LeftInRegion` when that
        fails, so that the job says so."""
        if not (region.asked or run.results or run.job.attempt > 1):
            self._nothing_left.add(run.job.id)
            return
        job = await self.images.db.read(lambda c: sql.by_id(c, run.job.id))
        if job is None or not job.is_open or job.attempt != run.job.attempt:
            return
        likely = run.results.get("transfer", {}).get("image_id") or last_id
        ids = dict.fromkeys((*([likely] if likely else []), *image_ids(job.id, job.attempt)))
        try:
            await remove(region, ids, within_s=REMOVED_WITHIN_S)
        except RegionFailed as left:
            raise LeftInRegion(
                f"{error.message}; and what was made in project {region.project} of region {region.name} could not be "
                f"removed: {left.message}; delete it there"
            ) from error
        if job.attempt == 1:
            self._nothing_left.add(job.id)

    def clean(self, job: Job) -> None:
        """What the steps could not remove: of a job that was cancelled, or that lost its worker too often. Of one that
        succeeded, what attempts before the last one left."""
        shutil.rmtree(self.settings.folder / "scratch" / job.id, ignore_errors=True)
        if job.id in self._nothing_left:
            self._nothing_left.discard(job.id)
            return
        with self.images.db.reading() as c:
            ended = sql.by_id(c, job.id)
        if ended is None or ended.is_open or not ended.attempt:
            return
        if ended.status is JobStatus.SUCCESS and ended.attempt == 1:
            return
        try:
            asyncio.run(asyncio.wait_for(self._sweep(ended), SWEPT_WITHIN_S))
        except (CalotypeError, TimeoutError) as error:
            log.warning("left_in_region", job_id=job.id, region=job.request["region"], reason=str(error))

    async def _sweep(self, job: Job) -> None:
        keep = job.image_id if job.status is JobStatus.SUCCESS else None
        async with self.regions.opened(_destination(job)) as region:
            for attempt in range(job.attempt, 0, -1):
                ids = [image_id for image_id in image_ids(job.id, attempt) if image_id != keep]
                await remove(region, ids, within_s=SWEPT_WITHIN_S)


def _destination(job: Job) -> Destination:
    return Destination(region=job.request["region"], project=job.request["project_name"])


def _hold(blob: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise WrongStatus(now="gone", wanted="the source must be active") from None
    except OSError:
        _copy(blob, target)  # another file system, or one without links


def _copy(blob: Path, target: Path) -> None:
    part = target.with_name("source.part")
    try:
        shutil.copyfile(blob, part)
        part.replace(target)
    except OSError as error:
        raise storage_fault(error) from error


async def _chunks(source: Path, size: int, run: Run, image: RegionImage) -> AsyncIterator[bytes]:
    """The file, which has `size` bytes, one chunk in memory. Raises `ObjectChanged` when it has fewer."""
    sent = 0
    image.all_sent = False
    reader = BlobReader(await asyncio.to_thread(os.open, source, os.O_RDONLY | os.O_CLOEXEC), size)
    async for chunk in stream(reader, 0, size):
        yield chunk
        sent += len(chunk)
        run.advance_bytes(sent, size)
    image.all_sent = True
