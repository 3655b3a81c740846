"""imsImportOvaImageJob: an OVA in a bucket becomes the image of a system disk, and one of each data disk.

The job reads what the OVA says, looks at each disk through the gate, and is the parent of one import a disk from then
on, which are queued in the transaction that makes their images. Each of these reads its disk where it lies in the
archive; nothing is extracted but what is packed.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import convert, to_builtins
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.blobs import sparse
from calotype.blobs.faults import storage_fault
from calotype.blobs.local import BlobReader
from calotype.blobs.threads import to_the_end
from calotype.blobs.writer import FileWriter
from calotype.buckets.model import ObjectAddress
from calotype.buckets.s3.reading import S3Object
from calotype.buckets.service import Buckets
from calotype.db.engine import now_ms
from calotype.disks import ova, part
from calotype.disks.gate import inspect_at
from calotype.disks.model import DiskFormat, Window
from calotype.disks.ova import Ova, OvaDisk
from calotype.disks.sandbox import open_input
from calotype.disks.unpack import Packing, most_unpacked, unpacked
from calotype.errors import (
    EmptyDisk,
    ImageNotFound,
    ImageTooLarge,
    JobCancelled,
    ObjectChanged,
    OvaRefused,
)
from calotype.identity.model import Caller
from calotype.images import attributes
from calotype.images.model import Image, ImageCreate
from calotype.images.os_versions import os_attributes
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.families import SubJob
from calotype.jobs.kinds.ingest import Source, digests_to_json, image_of
from calotype.jobs.kinds.ingest_file import IngestFile
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.kinds.source_digest import checked
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run, Superseded
from calotype.jobs.service import Jobs
from calotype.settings import Settings

SUFFIX: Final = ".ova"
GIB: Final = 1024**3
MOST_DATA_GB: Final = 2048  # min_disk of a data disk image
MOST_NAME: Final = 120  # characters of the name that data disk images have from the system disk's
INHERITED: Final = ("__description", "enterprise_project_id", "__root_origin", "__data_origin", "__originalimagename")
UNPACKED: Final = "unpacked"  # in the job's scratch folder


async def is_ova(caller: Caller, address: ObjectAddress, buckets: Buckets) -> bool:
    """Whether an object is to be imported as an OVA: it is one by its first bytes, or is called one.

    Raises `BucketNotFound`, `ObjectNotFound`.
    """
    store = await buckets.resolve(str(caller.project_id), address.bucket)

    def looked() -> bool:
        _, reader = store.open(address.key)
        with reader:
            return ova.is_ova(reader.read_at, reader.size)

    return await asyncio.to_thread(looked) or address.key.casefold().endswith(SUFFIX)


async def submit(
    caller: Caller,
    address: ObjectAddress,
    spec: ImageCreate,
    *,
    os_given: bool,
    config: bool = False,
    source_digest: str | None = None,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
    settings: Settings,
) -> JobId:
    """Accept the import of an OVA, or raise the first reason against it. `spec` is that of the system disk's image,
    which is there, `queued`, once this returns; `os_given`: its OS version is the caller's, not the default."""
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    found = await asyncio.to_thread(store.stat, address.key)
    _check_size(found.size, settings, f"{address.bucket}:{address.key}")
    source = Source(bucket=address.bucket, key=address.key, etag=found.etag, source_digest=source_digest)

    def work(c: Connection) -> JobId:
        image = images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now_ms())
        return jobs.submit_in(
            c,
            caller,
            JobType.OVA,
            request=source.to_request(config=config, os_given=os_given),
            entities={"image_name": image.name or "", "image_id": image.id},
            image_id=image.id,
        )

    return await images.db.write(work)


class ImportOva:
    """The parent's one step. The image of the system disk is the job's until the sub job that fills it is there."""

    type = JobType.OVA

    def __init__(self, parts: Parts, jobs: Jobs) -> None:
        self.settings = parts.settings
        self.images = parts.images
        self.buckets = parts.buckets
        self.jobs = jobs

    async def step(self, _name: str, run: Run) -> Result:
        if not await self.images.db.read(lambda c: sql.children(c, run.job.id)):
            source = convert(run.job.request, Source)
            image = await self.images.db.read(lambda c: self._image_in(c, run.job))
            store = await self.buckets.resolve(run.job.project_id, source.bucket)
            found, reader = await asyncio.to_thread(store.open, source.key)
            with reader:
                if found.etag != source.etag:
                    raise ObjectChanged(f"object {source.bucket}:{source.key} was changed meanwhile")
                _check_size(found.size, self.settings, "the OVA")
                whole = reader.again() if isinstance(reader, S3Object) else open_input(reader.fileno())
                async with checked(whole, source.source_digest):
                    machine = await to_the_end(partial(self._read, reader, image.min_disk))
            run.committing = True
            await self.images.db.write(lambda c: self._hand_over_in(c, run, source, machine))
        run.handed_over = True
        return {}

    def clean(self, job: Job) -> None:
        """It leaves nothing."""

    def _read(self, reader: BlobReader, min_disk: int) -> Ova:
        machine = ova.read(reader.read_at, reader.size, most_data_disks=self.settings.image.data_disks)
        for number, disk in enumerate(machine.disks):
            if disk.packed:
                continue  # looked at when it is unpacked
            found = inspect_at(
                reader.read_at,
                reader.size,
                declared=None,
                most_virtual_bytes=self.settings.image.virtual_bytes_per_image,
                window=disk.window,
            )
            _check_capacity(disk, found.virtual_size)
            if number == 0:
                attributes.min_disk_holds(min_disk, found.virtual_size)
        return machine

    def _image_in(self, c: Connection, job: Job) -> Image:
        image = self.images.by_id_in(c, image_of(job))
        if image is None:
            raise ImageNotFound(image_of(job))
        return image

    def _hand_over_in(self, c: Connection, run: Run, source: Source, machine: Ova) -> None:
        job = sql.locked_open(c, run.job.id)
        if job is None or job.attempt != run.job.attempt:
            raise Superseded
        if job.cancel_requested:
            raise JobCancelled(job.cancel_reason or "cancelled")
        if not self.jobs.spawn_in(c, job, run.position, self._children_in(c, job, source, machine), now_ms()):
            raise Superseded

    def _children_in(self, c: Connection, job: Job, source: Source, machine: Ova) -> Sequence[SubJob]:
        system = self._image_in(c, job)
        os_version = None if job.request["os_given"] else machine.os_version
        made = [_child(JobType.IMPORT, system, source, machine.disks[0], config=job.request["config"])]
        made[0] = replace(made[0], request={**made[0].request, "os_version": os_version})
        os_type = os_attributes(os_version)["__os_type"] if os_version else system.properties.get("__os_type", "Linux")
        for number, disk in enumerate(machine.disks[1:], 1):
            spec = _data_spec(system, os_type, disk, number)
            image = self.images.create_in(c, project_id=job.project_id, spec=spec, now=now_ms())
            made.append(_child(JobType.IMPORT_DATA, image, source, disk))
        return made


def _child(kind: JobType, image: Image, source: Source, disk: OvaDisk, **more: Any) -> SubJob:
    return SubJob(
        kind=kind,
        request=replace(source, source_digest=None).to_request(member=to_builtins(disk), **more),
        entities={"image_name": image.name or "", "image_id": image.id},
        image_id=image.id,
    )


def _data_spec(system: Image, os_type: str, disk: OvaDisk, number: int) -> ImageCreate:
    size_gb = -(-disk.capacity // GIB)
    if size_gb > MOST_DATA_GB:
        raise OvaRefused(f"the OVF says that a data disk has {size_gb} GB; at most {MOST_DATA_GB} are taken")
    kept = {name: system.properties[name] for name in INHERITED if name in system.properties}
    return ImageCreate(
        name=f"{(system.name or 'ova')[:MOST_NAME]}-data{number}",
        container_format="bare",
        min_disk=size_gb,
        os_version=None,
        properties={"virtual_env_type": "DataImage", "__os_type": os_type, **kept},
        tags=system.tags,
    )


def _check_capacity(disk: OvaDisk, virtual_size: int) -> None:
    """A smaller disk is grown where it is used; a larger one is not the disk that was described."""
    if virtual_size > disk.capacity:
        raise OvaRefused(f"the disk {disk.name} has {virtual_size} bytes; the OVF says {disk.capacity}")


def _check_size(size: int, settings: Settings, what: str) -> None:
    if size == 0:
        raise EmptyDisk(f"{what} is empty")
    if size > settings.image.file_bytes:
        raise ImageTooLarge(f"{what} has {size} bytes; at most {settings.image.file_bytes} are allowed")


class ImportDisk(IngestFile):
    """The import of a file, or of a disk in an OVA: then the request has a `member`."""

    async def _fetch(self, run: Run, *, may_hold: bool = True) -> Result:
        member = _member(run.job)
        if member is None:
            return await super()._fetch(run, may_hold=may_hold)
        source, image_id = convert(run.job.request, Source), image_of(run.job)
        size = member.window.length
        store = await self.buckets.resolve(run.job.project_id, source.bucket)
        await self.images.db.write(
            lambda c: self.images.begin_bytes_in(c, image_id, run.upload_id, reserve=size, now=now_ms())
        )
        run.scratch.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread((run.scratch / UNPACKED).unlink, missing_ok=True)
        if not store.owned:
            await run.reserve(scratch=size)
        await to_the_end(
            partial(
                store.snapshot,
                source.key,
                run.scratch / "source",
                source.etag,
                part=(member.window.offset, size),
                progress=lambda done: run.advance_bytes(done, size),
                cancelled=run.stop.is_set,
            )
        )
        await to_the_end(partial(self._check_digest, run, member))
        if member.packed:
            await to_the_end(partial(self._unpack, run, member))
            await self._reserve(run, self._source(run))
        run.advance_bytes(size, size)
        return {"size": size}

    def _check_digest(self, run: Run, member: OvaDisk) -> None:
        path = run.scratch / "source"

        def told(done: int) -> None:
            if run.stop.is_set():
                raise JobCancelled("cancelled while the manifest was checked")
            run.advance_bytes(done, member.window.length)

        with _reader(path) as reader:
            ova.check_digest(reader.read_at, replace(member, window=_place(path, member)), each=told)

    def _unpack(self, run: Run, member: OvaDisk) -> None:
        """The unpacked file gets its name when it is whole."""
        source, made = run.scratch / "source", run.scratch / f"{UNPACKED}.part"
        most_bytes = most_unpacked(
            member.window.length,
            ratio=self.settings.imports.decompress_ratio,
            most_bytes=self.settings.image.file_bytes,
        )
        try:
            with _reader(source) as reader, made.open("wb") as file:
                writer = FileWriter(file.fileno(), sparse=True)
                packed = part.opened(reader.fileno(), _place(source, member))
                for piece in unpacked(packed, Packing.GZIP, most_bytes=most_bytes, progress=lambda _: None):
                    if run.stop.is_set():
                        raise JobCancelled("cancelled while the disk was unpacked")
                    writer.write([piece])
                writer.finish()
            made.replace(run.scratch / UNPACKED)
        except OSError as error:
            raise storage_fault(error) from error

    async def _inspect(self, run: Run) -> Result:
        found = await super()._inspect(run)
        member = _member(run.job)
        if member is not None:
            _check_capacity(member, found["virtual_size"])
        return found

    async def _kept(self, run: Run, source: Path) -> Result:
        """Of an archive only the disk is taken over."""
        window = await self._window(run)
        if window is None:
            return await super()._kept(run, source)
        target = self.blobs.staging_path(run.token)
        format_ = DiskFormat(run.results["inspect"]["format"])
        await to_the_end(partial(self._copied, run, source, target, window))
        await self.converter.compare(
            source,
            format_,
            target,
            format_,
            virtual_size=run.results["inspect"]["virtual_size"],
            progress=run.advance,
            window=window,
        )
        made = {"token": run.token, "format": run.results["inspect"]["stored_format"]}
        made |= digests_to_json(await self._digested(run, target, copy_to=None, told=False))
        await self._reserve(run, target)
        return made

    def _copied(self, run: Run, source: Path, target: Path, window: Window) -> None:
        try:
            with _reader(source) as reader, target.open("wb") as file:
                sparse.copy(
                    reader.fileno(), file.fileno(), window.length, start=window.offset, cancelled=run.stop.is_set
                )
        except OSError as error:
            raise storage_fault(error) from error

    def _source(self, run: Run) -> Path:
        member = _member(run.job)
        return run.scratch / UNPACKED if member is not None and member.packed else super()._source(run)

    async def _window(self, run: Run) -> Window | None:
        member = _member(run.job)
        if member is None or member.packed:
            return None
        place = await asyncio.to_thread(_place, self._source(run), member)
        return place if place.offset else None

    def _properties(self, run: Run) -> Mapping[str, str]:
        """What is found on the disk counts more than what the OVF says of it."""
        os_version = run.job.request.get("os_version")
        return {**(os_attributes(os_version) if os_version else {}), **super()._properties(run)}


def _member(job: Job) -> OvaDisk | None:
    member = job.request.get("member")
    return None if member is None else convert(member, OvaDisk)


def _place(path: Path, member: OvaDisk) -> Window:
    """Where in a snapshot the disk lies: a link has the whole archive, a copy only the disk."""
    copied = path.stat().st_size == member.window.length
    return Window(offset=0 if copied else member.window.offset, length=member.window.length)


def _reader(path: Path) -> BlobReader:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return BlobReader(fd, os.fstat(fd).st_size)
