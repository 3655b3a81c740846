"""The steps of an interoperable import: bytes that were staged, or that are fetched, become those of an image.

fetch       staged bytes are used where they lie; a URL, or an image of another service, is written beside them
decompress  gzip, xz, zstd and bzip2 around the image are taken off, once
inspect     the gate, as for an upload; its tables consistent
convert     only if the settings want another format: to the blob store's staging folder
verify      what will be stored has the digests that it had when it came, or holds what a guest sees in the source
publish     one store after the other; then, in one transaction, the image is active and the job a success

What is kept as it is gets its last name by a rename: no second copy is made. The blob's id is the job's.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection

from calotype.blobs.digest import digest_file
from calotype.blobs.model import Blob, BlobId, Digests
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.disks import zvhd
from calotype.disks.gate import OPAQUE
from calotype.disks.model import DiskFormat, Opaque
from calotype.disks.unpack import Packing, most_unpacked, packing_of
from calotype.errors import (
    BlobNotFound,
    CalotypeError,
    ImageNotFound,
    JobCancelled,
    StagedBytesGone,
    VerificationFailed,
)
from calotype.fetch.download import GREW_BYTES
from calotype.images import attributes, marks
from calotype.images.upload import inspected, shown_format
from calotype.jobs.kinds import unpacking
from calotype.jobs.kinds.ingest import Ingest, digests_of_json, digests_to_json, image_of, opaque_result
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.kinds.remote_image import HASHES, RemoteImage
from calotype.jobs.model import Job, JobType
from calotype.jobs.run import Result, Run, upload_id
from calotype.jobs.scratch import LOOK_EVERY_S
from calotype.jobs.tasks import task_id

log = structlog.get_logger()

SOURCE: Final = ".source"  # what was fetched
UNPACKED: Final = ".unpacked"
PACKED_CONTAINERS: Final = frozenset({"compressed", "docker", "ova"})  # these are meant to be packed
# Parts of an image that a boot loader reads as they are.
NEVER_CONVERTED: Final = frozenset({"ami", "aki", "ari"})


class Interoperable(Ingest):
    """`type` tells whether the image was there before (`INTEROPERABLE`), or was made for the job (`TASK`)."""

    def __init__(self, job_type: JobType, parts: Parts) -> None:
        super().__init__(job_type, parts)
        self.fetcher = parts.fetcher
        self.remote = parts.remote

    async def step(self, name: str, run: Run) -> Result:
        try:
            return await (self._decompress(run) if name == "decompress" else super().step(name, run))
        except (FileNotFoundError, BlobNotFound) as error:
            image_id = image_of(run.job)
            if await self.images.db.read(lambda c: self.images.by_id_in(c, image_id)) is None:
                raise ImageNotFound(image_id) from error
            raise StagedBytesGone("the data to import is no longer there; bring it again") from error

    # --- fetch --------------------------------------------------------------------------------------------------------

    async def _fetch(self, run: Run) -> Result:
        method = run.job.request["import_req"]["method"]
        match method["name"]:
            case "glance-direct":
                return await self._staged(run)
            case "glance-download":
                return await self._from_other_service(run, method)
            case _:
                fetch = partial(self.fetcher.download, method["uri"], most_bytes=self.settings.image.file_bytes)
                return await self._written(run, fetch)

    async def _staged(self, run: Run) -> Result:
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        if image.staged is None:
            raise StagedBytesGone("no data is staged for the image; stage it again")
        size = (await asyncio.to_thread(self.blobs.staging_path(image.staged.token).stat)).st_size
        if size != image.staged.digests.size:
            raise VerificationFailed("the staged data is not as long as it was; stage it again")
        run.advance_bytes(size, size)
        return {"file": image.staged.token, "size": size, "digests": digests_to_json(image.staged.digests)}

    async def _from_other_service(self, run: Run, method: Mapping[str, str]) -> Result:
        find = partial(
            self.remote.find,
            run.job,
            region=method["glance_region"],
            interface=method["glance_service_interface"],
            image_id=method["glance_image_id"],
        )
        image = await to_the_end(find)
        fetched = await self._written(run, partial(self.remote.download, run.job, image))
        fetched |= {
            "disk_format": image.disk_format,
            "container_format": image.container_format,
            "properties": dict(image.properties),
        }
        if image.digests:
            fetched["digests"] = digests_to_json(await self._compared(run, fetched["file"], image))
        return fetched

    async def _compared(self, run: Run, token: str, image: RemoteImage) -> Digests:
        algorithm = next((name for name in HASHES if name in image.digests), self.settings.image.hash_algorithm)
        path = self.blobs.staging_path(token)
        found = await to_the_end(partial(digest_file, path, hash_algorithm=algorithm, cancelled=run.stop))
        for name, value in (("md5", found.md5), (algorithm, found.hash_value)):
            if image.digests.get(name, value) != value:
                raise VerificationFailed(f"the data of the other service does not have the {name} that it tells")
        return found

    async def _written(self, run: Run, fetch: Callable[..., int]) -> Result:
        token = f"{run.token}{SOURCE}"
        image_id, loop = image_of(run.job), asyncio.get_running_loop()

        def grew(total: int) -> None:
            _room_for_more(run, loop)
            with self.images.db.writing() as c:
                self.images.reserve_in(c, image_id, run.upload_id, total, now_ms())

        def progress(done: int, size: int | None) -> None:
            if size:
                run.advance_bytes(done, size)

        target = self.blobs.staging_path(token)
        size = await to_the_end(partial(fetch, target=target, progress=progress, cancelled=run.stop, grew=grew))
        await self._reserve(run, target)
        run.advance_bytes(size, size)
        return {"file": token, "size": size}

    # --- decompress ---------------------------------------------------------------------------------------------------

    async def _decompress(self, run: Run) -> Result:
        file, size = run.results["fetch"]["file"], run.results["fetch"]["size"]
        path = self.blobs.staging_path(file)
        packing = await asyncio.to_thread(packing_of, path) if self.settings.imports.decompress else None
        if packing is Packing.ZSTD and await self._is_opaque(run, path):
            packing = None
        if packing is None or await self._container(run) in PACKED_CONTAINERS:
            return {"file": file, "unpacked": False}
        token = f"{run.token}{UNPACKED}"
        target = self.blobs.staging_path(token)
        await asyncio.to_thread(self.blobs.discard, token)
        ratio, most = self.settings.imports.decompress_ratio, self.settings.image.file_bytes
        most_bytes = most_unpacked(size, ratio=ratio, most_bytes=most)
        image_id = image_of(run.job)

        async def grew(total: int, more: int) -> None:
            if packing is Packing.ZSTD:
                await run.reserve(scratch=more)  # where the tool works; what it has made is moved
            else:
                await run.reserve(staging=more)
            await self.images.db.write(lambda c: self.images.reserve_in(c, image_id, run.upload_id, total, now_ms()))

        await unpacking.unpack(run, self.sandbox, path, packing, target, most_bytes=most_bytes, grew=grew)
        await self._reserve(run, target)
        return {"file": token, "unpacked": True}

    # --- inspect, convert, verify -------------------------------------------------------------------------------------

    async def _inspect(self, run: Run) -> Result:
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        path = await self._at_hand(run)
        declared = run.results["fetch"].get("disk_format") or image.disk_format
        converts = self._converts(declared, await self._container(run))
        look = partial(inspected, image_id=image.id, declared=declared, limits=self.settings.image, converted=converts)
        found = await asyncio.to_thread(look, path)
        attributes.min_disk_holds(image.min_disk, found.virtual_size)
        run.advance(1.0)
        if isinstance(found, Opaque):
            return opaque_result(found)
        await self.converter.check(path, found.format)
        stored = self._wanted(found.format) if converts else found.format
        return {
            "format": found.format.value,
            "virtual_size": found.virtual_size,
            "stored_format": stored.value,
            "as_it_is": stored is found.format,
            "shown_format": shown_format(declared, found) if stored is found.format else stored.value,
        }

    def _converts(self, declared: str | None, container: str) -> bool:
        """Whether a disk is stored as what the settings want, whatever it is. An ISO is always kept."""
        return self.settings.imagev2.convert_to != "keep" and container == "bare" and declared not in NEVER_CONVERTED

    def _wanted(self, found: DiskFormat) -> DiskFormat:
        return found if found is DiskFormat.ISO else DiskFormat(self.settings.imagev2.convert_to)

    async def _kept(self, run: Run, source: Path) -> Result:
        await self._reserve(run, source)
        return {"token": run.results["decompress"]["file"], "format": run.results["inspect"]["stored_format"]}

    async def _verify(self, run: Run) -> Result:
        written = await super()._verify(run)
        told = run.results["fetch"].get("digests")
        if told is not None and run.results["inspect"]["as_it_is"] and not run.results["decompress"]["unpacked"]:
            same = ["size", "md5", *(["hash_value"] if told["hash_algorithm"] == written["hash_algorithm"] else [])]
            if any(told[name] != written[name] for name in same):
                raise VerificationFailed("the data has changed since it was sent; bring it again")
        return written

    # --- publish ------------------------------------------------------------------------------------------------------

    async def _publish(self, run: Run) -> Result:
        converted, image_id, blob_id = run.results["verify"], image_of(run.job), BlobId(run.job.id)
        blob = Blob(id=blob_id, digests=digests_of_json(converted))
        held, failed = await self._stored(run, converted["token"], blob)
        run.committing = True
        fetched = run.results["fetch"]
        properties = {"__root_origin": "file", **fetched.get("properties", {}), **run.job.request.get("inject", {})}

        def finish(c: Connection) -> BlobId:
            now = now_ms()
            used = self.images.activate_in(
                c,
                image_id,
                run.upload_id,
                blob,
                disk_format=run.results["inspect"]["shown_format"],
                container_format=fetched.get("container_format"),
                virtual_size=run.results["inspect"]["virtual_size"],
                properties=properties,
                stores=held,
                now=now,
            )
            marks.end_in(c, image_id, task_id(run.job.id), failed, now)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)
            return used

        used = await self.images.db.write(finish)
        if used != blob_id:
            await asyncio.to_thread(self.blobs.delete, blob_id)
        return {}

    async def _stored(self, run: Run, token: str, blob: Blob) -> tuple[tuple[str, ...], list[str]]:
        """Bring the bytes to every store; return which have them, heaviest first, and which do not."""
        stores, must = run.job.request["backend"], run.job.request["import_req"].get("all_stores_must_succeed", True)
        held: list[str] = []
        failed: list[str] = []
        for store in stores:
            try:
                await self._place(run, token, blob, store)
                held.append(store)
            except JobCancelled:
                raise
            except (CalotypeError, OSError) as error:
                if must or (store == stores[-1] and not held):
                    raise
                failed.append(store)
                log.warning("store_not_reached", store=store, image_id=run.job.image_id, reason=str(error))
        return self.blobs.ordered(held), failed

    async def _place(self, run: Run, token: str, blob: Blob, store: str) -> None:
        holders = await asyncio.to_thread(self.blobs.holders, blob.id)
        if not holders or store in holders:
            await to_the_end(partial(self.blobs.publish, token, blob.id, store))
            return
        size = blob.digests.size
        replicate = partial(
            self.blobs.replicate,
            blob.id,
            store,
            expected=blob.digests,
            progress=lambda done: run.advance_bytes(done, size),
            cancelled=run.stop.is_set,
        )
        await to_the_end(replicate)

    def clean(self, job: Job) -> None:
        if job.request.get("staged"):
            self.blobs.discard(job.request["staged"])
        for attempt in range(1, job.attempt + 1):
            for suffix in (SOURCE, UNPACKED):
                self.blobs.discard(f"{upload_id(job)}-{attempt}{suffix}")
        super().clean(job)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _source(self, run: Run) -> Path:
        return self.blobs.staging_path(run.results["decompress"]["file"])

    async def _at_hand(self, run: Run) -> Path:
        """Fetched, or unpacked, by a worker on another machine, whose staging folder this is not: done again here."""
        if not await asyncio.to_thread(self._source(run).exists):
            if not await asyncio.to_thread(self.blobs.staging_path(run.results["fetch"]["file"]).exists):
                run.results["fetch"] = await self._fetch(run)
            run.results["decompress"] = await self._decompress(run)
        return self._source(run)

    async def _is_opaque(self, run: Run, path: Path) -> bool:
        """Whether a file that begins like zstd is a ZVHD2 of others, which is kept as it is."""
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        declared = run.results["fetch"].get("disk_format") or image.disk_format
        return declared in OPAQUE and await asyncio.to_thread(zvhd.kind_of, path) is None

    async def _container(self, run: Run) -> str:
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        return run.results["fetch"].get("container_format") or image.container_format or "bare"


def _room_for_more(run: Run, loop: asyncio.AbstractEventLoop) -> None:
    """In the thread that downloads: return once there is room for what comes until this is asked again.

    Raises `ScratchFull`, `JobCancelled`."""
    room = asyncio.run_coroutine_threadsafe(run.reserve(staging=GREW_BYTES), loop)
    while not concurrent.futures.wait([room], timeout=LOOK_EVERY_S).done:
        if run.stop.is_set():
            room.cancel()
            raise JobCancelled("cancelled while it waited for room on the disk")
    room.result()
