"""imsCopyImageInRegionJob: a new image on the same bytes. Bytes never change, so nothing is moved at any size."""

import uuid
from collections.abc import Mapping

from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.disks.model import DiskFormat
from calotype.errors import ImageTooLarge, IsoImage, LiesElsewhere, NotAccepted, WholeImageCopy, WrongStatus
from calotype.identity.model import Caller
from calotype.images import marks
from calotype.images.model import Image, ImageCreate, ImageId, ImageStatus
from calotype.images.service import Images
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs
from calotype.settings import Settings


async def submit(
    caller: Caller,
    image_id: ImageId,
    *,
    name: str,
    description: str | None,
    extra: Mapping[str, str],
    images: Images,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept a copy, or raise the first reason against it. The new image is there, `queued`, once this returns."""

    def work(c: Connection) -> JobId:
        source = images.visible_in(c, caller, image_id)
        check_accepted_in(c, caller, source, images)
        check_copyable(source, settings)
        left_out = {"__description", *marks.ALL}
        properties = {key: value for key, value in source.properties.items() if key not in left_out}
        if description:
            properties["__description"] = description
        properties |= {
            "__data_origin": f"image,{settings.region},{source.id}",
            "__originalimagename": source.id,
            **extra,
        }
        spec = ImageCreate(
            name=name,
            disk_format=source.disk_format,
            container_format=source.container_format,
            min_disk=source.min_disk,
            min_ram=source.min_ram,
            properties=properties,
        )
        made = images.create_in(
            c, project_id=str(caller.project_id), spec=spec, now=now_ms(), image_id=ImageId(str(uuid.uuid4()))
        )
        return jobs.submit_in(
            c,
            caller,
            JobType.COPY,
            request={"source": source.id},
            entities={"image_name": name, "image_id": made.id},
            image_id=made.id,
        )

    return await images.db.write(work)


def check_accepted_in(c: Connection, caller: Caller, source: Image, images: Images) -> None:
    """Raises `NotAccepted` for an image that the caller's project was offered, and did not accept."""
    if not images.is_accepted_in(c, caller, source):
        raise NotAccepted("the image is shared with your project, which has not accepted it; accept it first")


def check_copyable(source: Image, settings: Settings) -> None:
    if source.status is not ImageStatus.ACTIVE:
        raise WrongStatus(now=source.status, wanted="only an active image can be copied")
    if source.is_whole:
        raise WholeImageCopy("a full-server image cannot be copied; make another from a new backup of the server")
    if source.lies_elsewhere:
        raise LiesElsewhere("the bytes of the image lie at a URL; upload it as an image of its own, then copy that")
    if source.disk_format == DiskFormat.ISO:
        raise IsoImage("ISO images cannot be copied")
    if (source.size or 0) > settings.image.export_bytes:
        raise ImageTooLarge(f"only images up to {settings.image.export_bytes} bytes can be copied")


class CopyImage:
    type = JobType.COPY

    def __init__(self, *, db: Database, images: Images) -> None:
        self.db = db
        self.images = images

    async def step(self, name: str, run: Run) -> Result:
        """The one step of the plan, publish."""
        image_id = ImageId(str(run.job.image_id))
        run.committing = True

        def finish(c: Connection) -> None:
            now = now_ms()
            source = self.images.by_id_in(c, ImageId(run.job.request["source"]))
            if source is None or source.status is not ImageStatus.ACTIVE:
                raise WrongStatus(
                    now="deleted" if source is None else source.status, wanted="the source must be active"
                )
            self.images.adopt_blob_in(c, image_id, source, now)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)

        await self.db.write(finish)
        return {}

    def clean(self, job: Job) -> None:
        """It leaves no files."""
