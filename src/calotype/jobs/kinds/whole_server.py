"""imsCreateWholeImageByInstanceJob and imsCreateWholeImageByBackupJob: a server with all its disks becomes an image.

The disks become a backup that the service keeps (`calotype.backups`); the image has the system disk's bytes. Accepting
them is in `whole_accepting.py`. All disks are of one moment: what has to be brought again is brought again whole. Then
each goes the way of an import's file (`ingest.py`), one after the other. One of the service's own backups needs no byte
moved: for it only the last step does something.
"""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.backups.model import KeptBackup, KeptDisk
from calotype.backups.rules import unusable
from calotype.backups.service import Backups
from calotype.blobs.model import Blob, BlobId, nth_of
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.disks.model import DiskFormat, Inspection, Window
from calotype.errors import FormatMismatch, ImageTooLarge, VolumeUnusable
from calotype.images.model import Image
from calotype.jobs.kinds.ingest import Ingest, digests_of_json, image_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobType
from calotype.jobs.run import Result, Run, upload_id
from calotype.servers.opening import project_of
from calotype.servers.source import Captured

ARRIVING: Final = "arriving"  # folders in the job's scratch folder: disks that are being brought,
TOGETHER: Final = "disks"  # and disks of one moment: all are there
AGAIN: Final = "again"  # in a step's result: those of earlier steps, where it had to do them again
# A file may be larger than the disk that it describes, by its tables and its snapshots, and not by more than this.
LARGEST: Final = 2


class DiskRun(Run):
    """One disk of a run, as `Ingest` sees a run: with its own folder, token and results. What is done of it is a part
    of what is done of the step. It never ends the job."""

    def __init__(self, whole: Run, number: int, disks: Sequence[Result], results: Mapping[str, Result]) -> None:
        super().__init__(whole.job, whole.space, _never)
        self.scratch = _folder(whole, number)
        self.whole = whole
        self.number = number
        self.stop = whole.stop
        self.results = dict(results)
        sizes = [disk["size"] + 1 for disk in disks]
        self._before = sum(sizes[:number]) / sum(sizes)
        self._share = sizes[number] / sum(sizes)

    @property
    def token(self) -> str:
        return f"{self.whole.token}.{self.number}"

    @property
    def tokens(self) -> list[str]:
        return [f"{token}.{self.number}" for token in self.whole.tokens]

    async def reserve(self, *, scratch: int = 0, staging: int = 0) -> None:
        await self.whole.reserve(scratch=scratch, staging=staging)

    @property
    def blob_id(self) -> BlobId:
        return nth_of(BlobId(self.job.id), self.number)

    def advance(self, fraction: float) -> None:
        self.whole.advance(self._before + self._share * min(1.0, fraction))


class DiskSteps(Ingest):
    """What is done with one disk. Every `run` is a `DiskRun`."""

    def properties(self, run: DiskRun) -> Mapping[str, str]:
        """What the image has from this disk."""
        return self._properties(run)

    def has_source(self, run: DiskRun) -> bool:
        return self._source(run).exists()

    def is_at_hand(self, run: DiskRun) -> bool:
        """Whether its bytes are on this machine, in staging or published already."""
        return self._bytes_of(run).exists()

    async def _inspect(self, run: Run) -> Result:
        """Of a data disk; the image is as large as the system disk."""
        if cast(DiskRun, run).number == 0:
            return await super()._inspect(run)
        source = self._source(run)
        found = await asyncio.to_thread(self._inspected, source, self._declared(run))
        await self.converter.check(source, found.format)
        self._check_wanted(run.job, found.format)
        stored = self._stored_format(found.format)
        return {
            "format": found.format.value,
            "virtual_size": found.virtual_size,
            "stored_format": stored.value,
            "as_it_is": stored is found.format and not found.snapshots,
        }

    async def _detected(self, run: Run, image: Image, found: Inspection, window: Window | None) -> Mapping[str, str]:
        known = run.job.request["os_known"]  # the source of servers says what runs there
        return {} if known else await super()._detected(run, image, found, window)

    async def _reserve(self, run: Run, target: Path) -> None:
        """The run reserves for all disks together."""

    async def _at_hand(self, run: Run) -> Path:
        return self._source(run)  # never brought alone: the run has looked that all are there

    def _declared(self, run: Run) -> str | None:
        declared: str | None = run.results["fetch"]["format"]
        return declared

    def _check_wanted(self, job: Job, found: DiskFormat) -> None:
        if found is DiskFormat.ISO:
            raise FormatMismatch("a disk of the server holds an ISO, not a disk")

    def _bytes_of(self, run: Run) -> Path:
        staged = self.blobs.staging_path(run.results["convert"]["token"])
        published = self.blobs.path(cast(DiskRun, run).blob_id)
        return published if not staged.exists() and published.exists() else staged


class WholeServer:
    """The steps. `type` tells the two job types apart: a job of a backup brings the disks of that."""

    def __init__(self, job_type: JobType, parts: Parts, backups: Backups) -> None:
        self.type = job_type
        self.settings = parts.settings
        self.images = parts.images
        self.blobs = parts.blobs
        self.servers = parts.servers
        self.backups = backups
        self.disks = DiskSteps(job_type, parts)

    async def step(self, name: str, run: Run) -> Result:
        if name == "publish":
            return await self._publish(run)
        if not run.job.request["volumes"]:
            return {}  # the backup is kept here
        if name == "fetch":
            return await self._fetch(run)
        earlier = run.plan.names[: run.plan.names.index(name)]
        if await asyncio.to_thread(self._at_hand, run, made="convert" in earlier):
            return await self._verify(run) if name == "verify" else await self._each(name, run)
        # Brought by a worker on another machine, whose folders these are not: bring them again, all of one moment.
        again: dict[str, Result] = {}
        for step in earlier:
            run.results[step] = again[step] = await (self._fetch(run) if step == "fetch" else self._each(step, run))
        return {**await self.step(name, run), AGAIN: again}

    # --- the disks come -----------------------------------------------------------------------------------------------

    async def _fetch(self, run: Run) -> Result:
        image_id = image_of(run.job)
        await self.images.db.write(
            lambda c: self.images.begin_bytes_in(c, image_id, run.upload_id, reserve=0, now=now_ms())
        )
        arriving, together = run.scratch / ARRIVING, run.scratch / TOGETHER
        await asyncio.to_thread(_emptied, arriving)
        captured = await self._captured(run, arriving)
        fetched: list[Result] = []
        for number, one in enumerate(captured):
            if one.size > self.settings.image.virtual_bytes_per_image * LARGEST:
                raise ImageTooLarge(f"the file of the disk {one.volume.id} is far larger than a disk may be")
            fetched.append(
                {
                    "volume": str(one.volume.id),
                    "name": one.volume.name,
                    "slot": one.volume.slot or 0,
                    "size": one.size,
                    "format": one.format,
                }
            )
            await asyncio.to_thread(_laid, one.path, arriving / str(number))
        await asyncio.to_thread(_put_together, arriving, together)
        await self._reserve(run, [one["size"] for one in fetched])
        return {"disks": fetched}

    async def _captured(self, run: Run, folder: Path) -> Sequence[Captured]:
        """All disks that the request names, in its order: the system disk first."""
        project = await project_of(self.images.db, run.job.project_id)
        request = run.job.request
        if self.type is JobType.WHOLE_FROM_SERVER:
            capture = partial(self.servers.capture, project, request["server"], request["volumes"], folder)
        else:
            capture = partial(self.servers.capture_backup, project, request["backup"], folder)
        found = await to_the_end(
            partial(capture, name=run.job.id, progress=run.advance_bytes, cancelled=run.stop.is_set)
        )
        by_id = {str(one.volume.id): one for one in found}
        if by_id.keys() != set(request["volumes"]):
            if self.type is JobType.WHOLE_FROM_SERVER:
                raise VolumeUnusable("the disks of the server were changed since the image was asked for")
            kept = await self.images.db.read(lambda c: self.backups.of_image_in(c, image_of(run.job)))
            raise unusable(kept.kind, "the disks of the backup were changed since the image was asked for")
        return [by_id[volume_id] for volume_id in request["volumes"]]

    # --- each of them -------------------------------------------------------------------------------------------------

    async def _each(self, step: str, run: Run) -> Result:
        """Do a step of an import with one disk after the other."""
        done = [await self.disks.step(step, disk) for disk in self._runs(run)]
        if step == "convert":
            sizes = [(await asyncio.to_thread(self.blobs.staging_path(one["token"]).stat)).st_size for one in done]
            await self._reserve(run, sizes)
        return {"disks": done}

    async def _verify(self, run: Run) -> Result:
        """Of each disk, all that is known of it then."""
        runs = self._runs(run)
        verified = await self._each("verify", run)
        return {
            "disks": [
                {**disk.results["fetch"], **disk.results["inspect"], **one}
                for disk, one in zip(runs, verified["disks"], strict=True)
            ]
        }

    def _at_hand(self, run: Run, *, made: bool) -> bool:
        """Whether all disks are on this machine; with `made` also what was made of them."""
        return all(
            self.disks.has_source(disk) and (not made or self.disks.is_at_hand(disk)) for disk in self._runs(run)
        )

    def _runs(self, run: Run) -> list[DiskRun]:
        results: dict[str, Result] = {}
        for step in ("fetch", "inspect", "convert"):
            if step in run.results:
                results |= {**run.results[step].get(AGAIN, {}), step: run.results[step]}
        disks: list[Result] = results["fetch"]["disks"]
        return [
            DiskRun(run, number, disks, {step: result["disks"][number] for step, result in results.items()})
            for number in range(len(disks))
        ]

    async def _reserve(self, run: Run, sizes: Sequence[int]) -> None:
        """Count every disk for the backup, and the system disk for the image as well."""
        image_id, total = image_of(run.job), sum(sizes) + sizes[0]
        await self.images.db.write(lambda c: self.images.reserve_in(c, image_id, run.upload_id, total, now_ms()))

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _publish(self, run: Run) -> Result:
        if not run.job.request["volumes"]:
            return await self._publish_kept(run)
        if not await asyncio.to_thread(self._verified_at_hand, run):
            run.results["verify"] = await self.step("verify", run)
        disks = [_stored(run, number, one) for number, one in enumerate(run.results["verify"]["disks"])]
        run.committing = True
        for disk, one in zip(disks, run.results["verify"]["disks"], strict=True):
            await asyncio.to_thread(self.blobs.publish, one["token"], disk.blob.id)
        properties = self.disks.properties(self._verified(run)[0])

        def finish(c: Connection) -> frozenset[BlobId]:
            now, image_id = now_ms(), image_of(run.job)
            self.images.held_in(c, image_id, run.upload_id)
            kept = _knowing(self.backups.of_image_in(c, image_id), properties.get("__os_version"))
            activate = partial(self._activate_in, c, run, disks[0], properties, now)
            used = self.backups.keep_in(c, kept, disks, activate, now)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)
            return used

        used = await self.images.db.write(finish)
        for disk in disks:
            if disk.blob.id not in used:
                await asyncio.to_thread(self.blobs.delete, disk.blob.id)
        return {}

    async def _publish_kept(self, run: Run) -> Result:
        """Rows only: the disks stay where they are."""
        run.committing = True

        def finish(c: Connection) -> None:
            now, image_id = now_ms(), image_of(run.job)
            self.images.begin_bytes_in(c, image_id, run.upload_id, reserve=0, now=now)
            system = self.backups.of_image_in(c, image_id).disks[0]
            self._activate_in(c, run, system, {}, now, system.blob)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)

        await self.images.db.write(finish)
        return {}

    def _activate_in(
        self, c: Connection, run: Run, system: KeptDisk, properties: Mapping[str, str], now: int, blob: Blob
    ) -> BlobId:
        return self.images.activate_in(
            c,
            image_of(run.job),
            run.upload_id,
            blob,
            disk_format=system.disk_format,
            virtual_size=system.virtual_size,
            properties=properties,
            now=now,
        )

    def _verified(self, run: Run) -> list[DiskRun]:
        disks: list[Result] = run.results["verify"]["disks"]
        return [DiskRun(run, number, disks, {"inspect": one, "convert": one}) for number, one in enumerate(disks)]

    def _verified_at_hand(self, run: Run) -> bool:
        return all(self.disks.is_at_hand(disk) for disk in self._verified(run))

    def clean(self, job: Job) -> None:
        volumes = job.request["volumes"]
        for number in range(len(volumes)):
            for attempt in range(1, job.attempt + 1):
                self.blobs.discard(f"{upload_id(job)}-{attempt}.{number}")
        shutil.rmtree(self.settings.folder / "scratch" / job.id, ignore_errors=True)
        ours = [nth_of(BlobId(job.id), number) for number in range(len(volumes))]
        with self.images.db.reading() as c:
            known = self.images.known_blob_ids_in(c, ours)
        for blob_id in ours:
            if blob_id not in known:
                self.blobs.delete(blob_id)
        self.servers.release(job.id)


def _stored(run: Run, number: int, disk: Mapping[str, Any]) -> KeptDisk:
    return KeptDisk(
        slot=disk["slot"],
        volume_id=disk["volume"],
        name=disk["name"],
        blob=Blob(id=nth_of(BlobId(run.job.id), number), digests=digests_of_json(dict(disk))),
        virtual_size=disk["virtual_size"],
        disk_format=disk["format"],
    )


def _knowing(kept: KeptBackup, os_version: str | None) -> KeptBackup:
    """The backup, of a server of which it was found out what runs there."""
    return kept if os_version is None else replace(kept, server=replace(kept.server, os_version=os_version))


def _folder(run: Run, number: int) -> Path:
    return run.scratch / TOGETHER / str(number)


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _laid(captured: Path, folder: Path) -> None:
    folder.mkdir()
    captured.replace(folder / "source")


def _put_together(arriving: Path, together: Path) -> None:
    """From now on the disks are there; before, none is."""
    shutil.rmtree(together, ignore_errors=True)
    arriving.rename(together)


def _never(_now: int) -> int:
    raise AssertionError("a disk ends no job")
