"""imsCreateImageByInstance, imsVolumeCreateImageJob and imsVolumesToSysDataImagesJob: a disk of a server, or one of no
server, becomes an image. Accepting them; and their first step, which brings the disk's bytes of one moment. From there
on they are like any import's (`ingest.py`)."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.disks.model import DiskFormat, Inspection, Window
from calotype.errors import FormatMismatch, ImageTooLarge
from calotype.identity.model import Caller
from calotype.images.model import DEFAULT_OS_VERSION, Image, ImageCreate
from calotype.images.service import Images
from calotype.jobs.families import SubJob
from calotype.jobs.kinds.ingest import Ingest, image_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs
from calotype.servers import rules
from calotype.servers.model import Server, ServerKind, Volume
from calotype.servers.opening import project_of
from calotype.servers.source import ServerSource
from calotype.settings import Settings

MOST_FILE: Final = 2  # how often as large as the largest disk its file may be: tables, snapshots
CAPTURED: Final = "captured"  # folder in the job's scratch folder


async def submit_from_server(
    caller: Caller,
    server_id: str,
    spec: ImageCreate,
    *,
    images: Images,
    jobs: Jobs,
    servers: ServerSource,
    settings: Settings,
) -> JobId:
    """Accept a system disk image of a server, or raise the first reason against it."""
    project = await project_of(images.db, str(caller.project_id))
    server = await asyncio.to_thread(servers.server, project, server_id)
    disk = rules.system_disk(server, most=settings.servers.disk_bytes)
    spec = replace(
        spec,
        min_disk=disk.size_gb,
        os_version=server.os_version or DEFAULT_OS_VERSION,
        properties={**of_server(server), "__data_origin": f"instance,{server.id}", **spec.properties},
    )

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now_ms())
        return jobs.submit_in(
            c,
            caller,
            JobType.FROM_SERVER,
            request={**_request(server.id, disk), "os_known": server.os_version is not None},
            entities=_entities(image),
            image_id=image.id,
        )

    return await images.db.write(work)


async def submit_from_volume(
    caller: Caller,
    volume_id: str,
    spec: ImageCreate,
    *,
    images: Images,
    jobs: Jobs,
    servers: ServerSource,
    settings: Settings,
) -> JobId:
    """Accept a system disk image of any disk, or raise the first reason against it."""
    project = await project_of(images.db, str(caller.project_id))
    volume = await asyncio.to_thread(servers.volume, project, volume_id)
    rules.readable(volume, most=settings.servers.disk_bytes)
    if volume.server_id is not None:
        rules.at_rest(await asyncio.to_thread(servers.server, project, volume.server_id))
    spec = replace(
        spec,
        min_disk=volume.size_gb,
        properties={"__data_origin": f"volume,{volume.id}", **spec.properties},
    )

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now_ms())
        return jobs.submit_in(
            c,
            caller,
            JobType.FROM_VOLUME,
            request=_request(volume.server_id, volume),
            entities=_entities(image),
            image_id=image.id,
        )

    return await images.db.write(work)


async def submit_from_volumes(
    caller: Caller,
    wanted: Sequence[tuple[str, ImageCreate]],
    *,
    images: Images,
    jobs: Jobs,
    servers: ServerSource,
    settings: Settings,
) -> JobId:
    """Accept a data disk image of each of several disks of one server, or raise the first reason against it. The job
    is the parent of one job a disk."""
    project = await project_of(images.db, str(caller.project_id))
    volumes = [await asyncio.to_thread(servers.volume, project, volume_id) for volume_id, _ in wanted]
    for volume in volumes:
        rules.data_disk(volume, most=settings.servers.disk_bytes)
    rules.of_one_server(volumes)
    if volumes[0].server_id is not None:
        rules.at_rest(await asyncio.to_thread(servers.server, project, volumes[0].server_id))

    def work(c: Connection) -> JobId:
        now = now_ms()
        children = []
        for volume, (_, spec) in zip(volumes, wanted, strict=True):
            made = replace(
                spec,
                min_disk=volume.size_gb,
                os_version=None,
                properties={
                    "virtual_env_type": "DataImage",
                    "__data_origin": f"volume,{volume.id}",
                    **spec.properties,
                },
            )
            image = images.create_in(c, project_id=str(caller.project_id), spec=made, now=now)
            children.append(
                SubJob(
                    kind=JobType.COPY_VOLUME,
                    request=_request(volume.server_id, volume),
                    entities=_entities(image),
                    image_id=image.id,
                )
            )
        request = {"volumes": [volume.id for volume in volumes]}
        return jobs.submit_family_in(c, caller, JobType.FROM_VOLUMES, request=request, children=children)

    return await images.db.write(work)


def of_server(server: Server) -> dict[str, str]:
    """What an image of a server's system disk has from it."""
    found = {"virtual_env_type": "Ironic" if server.kind is ServerKind.BMS else "FusionCompute"}
    firmware = "uefi" if server.architecture == "arm" else server.firmware
    found["hw_firmware_type"] = firmware
    if server.architecture == "arm":
        found["__support_arm"] = "true"
    if server.image_id:
        found["__originalimagename"] = server.image_id
    return found


def _request(server_id: str | None, volume: Volume) -> dict[str, object]:
    return {"server": server_id, "volume": volume.id}


def _entities(image: Image) -> dict[str, str]:
    return {"image_name": image.name or "", "image_id": image.id}


class Capture(Ingest):
    """The steps. `type` is that of one disk's job."""

    def __init__(self, job_type: JobType, parts: Parts) -> None:
        super().__init__(job_type, parts)
        self.servers = parts.servers

    async def _fetch(self, run: Run) -> Result:
        image_id = image_of(run.job)
        await self.images.db.write(
            lambda c: self.images.begin_bytes_in(c, image_id, run.upload_id, reserve=0, now=now_ms())
        )
        project = await project_of(self.images.db, run.job.project_id)
        folder = run.scratch / CAPTURED
        folder.mkdir(parents=True, exist_ok=True)
        request = run.job.request
        [captured] = await to_the_end(
            partial(
                self.servers.capture,
                project,
                request["server"],
                [request["volume"]],
                folder,
                name=run.job.id,
                progress=run.advance_bytes,
                cancelled=run.stop.is_set,
            )
        )
        if captured.size > MOST_FILE * self.settings.servers.disk_bytes:
            raise ImageTooLarge("the file of the disk is far larger than the disk may be")
        await asyncio.to_thread(captured.path.replace, run.scratch / "source")
        await self._reserve(run, run.scratch / "source")
        return {"size": captured.size, "format": captured.format}

    def _declared(self, run: Run) -> str | None:
        declared: str | None = run.results["fetch"]["format"]
        return declared

    async def _detected(self, run: Run, image: Image, found: Inspection, window: Window | None) -> Mapping[str, str]:
        known = run.job.request.get("os_known")  # the source of servers says what runs there
        return {} if known else await super()._detected(run, image, found, window)

    def _check_wanted(self, job: Job, found: DiskFormat) -> None:
        if found is DiskFormat.ISO:
            raise FormatMismatch("the disk holds an ISO, not a disk")

    def clean(self, job: Job) -> None:
        super().clean(job)
        self.servers.release(job.id)
