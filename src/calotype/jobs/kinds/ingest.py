"""From an object in a bucket to the bytes of an image: what importing and registering have in common, and of the steps
what every import does (`interoperable.py`).

fetch    the source is where it can be read: `ingest_file.py` for what lies in buckets
inspect  the gate: what it is, whole, safe, and within bounds; its tables consistent
convert  to the format that is stored, into the blob store's staging folder; a self-contained qcow2 stays as it is, and
         the file itself if it can
verify   what was written, if anything was, reads back, and a guest sees in it what it sees in the source
publish  the bytes get their name; then, in one transaction, the image is active and the job a success

The blob's id is the job's, so that publishing twice ends in the same place.
"""

import asyncio
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from msgspec import Struct, convert, to_builtins
from sqlalchemy import Connection

from calotype.blobs.digest import digest_file
from calotype.blobs.model import Blob, BlobId, Digests
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.disks.gate import NEVER_KEPT, OPAQUE, inspect
from calotype.disks.guest.detect import detect
from calotype.disks.measure import most_bytes
from calotype.disks.model import DiskFormat, Inspection, Opaque, OpaqueKind, Window
from calotype.disks.targets import TargetKind
from calotype.errors import FormatMismatch, ImageNotFound, QuickFormat, VerificationFailed
from calotype.images import attributes
from calotype.images.model import Image, ImageId
from calotype.images.os_detected import attributes_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import WHOLE, Job, JobType
from calotype.jobs.run import Result, Run, Superseded, upload_id
from calotype.jobs.scratch import STAT_BLOCK

# Job types whose image a server is started from, so that the system on it matters.
STARTED_FROM: Final = frozenset({JobType.IMPORT, JobType.FROM_SERVER, JobType.FROM_VOLUME, *WHOLE})


class Source(Struct, frozen=True, kw_only=True):
    """What the request of an importing or registering job holds."""

    bucket: str
    key: str
    etag: str  # of the object when the job was accepted
    iso: bool = False  # whether an ISO is what was asked for
    quick: bool = False  # taken over as it is, however large
    source_digest: str | None = None  # that the object must have; see `source_digest.py`

    def to_request(self, **more: Any) -> dict[str, Any]:
        request: dict[str, Any] = {**to_builtins(self), **more}
        return {name: value for name, value in request.items() if name != "source_digest" or value is not None}


class Ingest:
    """The steps. `type` tells the two job types apart: importing made its image, registering fills one that waits."""

    def __init__(self, job_type: JobType, parts: Parts) -> None:
        self.type = job_type
        self.settings = parts.settings
        self.images = parts.images
        self.blobs = parts.blobs
        self.buckets = parts.buckets
        self.converter = parts.converter
        self.sandbox = parts.sandbox

    async def step(self, name: str, run: Run) -> Result:
        match name:
            case "fetch":
                return await self._fetch(run)
            case "inspect":
                return await self._inspect(run)
            case "convert":
                return await self._convert(run)
            case "verify":
                return await self._verify(run)
            case _:
                return await self._publish(run)

    async def _fetch(self, run: Run) -> Result:
        """Bring the source to where `_source` says."""
        raise NotImplementedError

    async def _inspect(self, run: Run) -> Result:
        source, window = await self._at_hand(run), await self._window(run)
        found = await asyncio.to_thread(self._inspected, source, self._declared(run), window)
        await self.converter.check(source, found.format, window=window)
        self._check_wanted(run.job, found.format)
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        attributes.min_disk_holds(image.min_disk, found.virtual_size)
        detected = await self._detected(run, image, found, window)
        stored = self._format_to_store(run.job, found)
        run.advance(1.0)
        return {
            "format": found.format.value,
            "virtual_size": found.virtual_size,
            "stored_format": stored.value,
            "as_it_is": self._is_kept(run.job, found),
            "detected": detected,
        }

    async def _convert(self, run: Run) -> Result:
        source = await self._at_hand(run)
        await asyncio.to_thread(self._discard_attempts, run)
        if run.results["inspect"]["as_it_is"]:
            return await self._kept(run, source)
        source_format = DiskFormat(run.results["inspect"]["format"])
        virtual_size = cast(int, run.results["inspect"]["virtual_size"])
        stored = DiskFormat(run.results["inspect"]["stored_format"])
        target = self.blobs.staging_path(run.token)
        made: Result = {"token": run.token, "format": stored.value}
        kind = TargetKind.RAW if stored is DiskFormat.RAW else TargetKind.QCOW2_ZSTD
        most = await most_bytes(self.sandbox, source, source_format, window=await self._window(run))
        await run.reserve(staging=most)
        await self.converter.convert(
            source,
            source_format,
            target,
            kind,
            virtual_size=virtual_size,
            progress=run.advance,
            window=await self._window(run),
        )
        await self._reserve(run, target)
        return made

    async def _kept(self, run: Run, source: Path) -> Result:
        """Take over the source as it is: the file itself, or its blocks. Where neither can be it is copied."""
        target = self.blobs.staging_path(run.token)
        made = {"token": run.token, "format": run.results["inspect"]["stored_format"]}
        adopted = await to_the_end(partial(self.blobs.adopt, source, run.token))
        if adopted:
            made |= digests_to_json(await self._digested(run, target, copy_to=None))
        else:
            found = await asyncio.to_thread(source.stat)
            await run.reserve(staging=min(found.st_size, found.st_blocks * STAT_BLOCK))
            made |= digests_to_json(await self._digested(run, source, copy_to=target))
        await self._reserve(run, target)
        return {**made, "adopted": adopted}

    def _discard_attempts(self, run: Run) -> None:
        """What earlier attempts at this step have written: nobody will need it."""
        for token in run.tokens:
            self.blobs.discard(token)

    async def _reserve(self, run: Run, target: Path) -> None:
        image_id = image_of(run.job)
        size = (await asyncio.to_thread(target.stat)).st_size
        await self.images.db.write(lambda c: self.images.reserve_in(c, image_id, run.upload_id, size, now_ms()))

    async def _verify(self, run: Run) -> Result:
        converted = run.results["convert"]
        if not self._bytes_of(run).exists():
            # Made by a worker on another machine, whose staging folder this is not: make it again here.
            run.results["convert"] = converted = await self._convert(run)
        staged = self._bytes_of(run)
        if converted.get("adopted"):
            return converted  # nothing was written, and so nothing is to be read back
        if run.results["inspect"]["as_it_is"]:
            written = await self._digested(run, staged, copy_to=None)
            if "md5" in converted and written != digests_of_json(converted):
                raise VerificationFailed("the stored bytes do not read back as they were written")
            return {**converted, **digests_to_json(written)}
        await self._at_hand(run)
        # The digests are taken while qemu-img compares: both read the same bytes, once from the disk.
        digesting = asyncio.ensure_future(self._digested(run, staged, copy_to=None, told=False))
        try:
            await self._compare(run, staged, DiskFormat(converted["format"]))
            return {**converted, **digests_to_json(await digesting)}
        finally:
            if not digesting.done():
                run.stop.set()
                await asyncio.wait({digesting})
                digesting.exception()  # looked at: what ended the comparison is what is told

    async def _compare(self, run: Run, staged: Path, stored: DiskFormat) -> None:
        virtual_size = run.results["inspect"]["virtual_size"]
        await self.converter.compare(
            self._source(run),
            DiskFormat(run.results["inspect"]["format"]),
            staged,
            stored,
            virtual_size=virtual_size,
            progress=run.advance,
            window=await self._window(run),
        )
        # What comes out of a conversion is an image itself, and is looked at like any other.
        await self.converter.check(staged, stored)
        found = await asyncio.to_thread(self._inspected, staged, declared=stored)
        if found.virtual_size != virtual_size:
            raise VerificationFailed("the converted image is not as large as the source")

    async def _publish(self, run: Run) -> Result:
        converted = run.results["verify"]
        blob_id = BlobId(run.job.id)
        image_id = image_of(run.job)
        run.committing = True
        await asyncio.to_thread(self.blobs.publish, converted["token"], blob_id)
        blob = Blob(id=blob_id, digests=digests_of_json(converted))

        def finish(c: Connection) -> BlobId:
            now = now_ms()
            used = self.images.activate_in(
                c,
                image_id,
                run.upload_id,
                blob,
                disk_format=converted["format"],
                virtual_size=run.results["inspect"]["virtual_size"],
                properties=self._properties(run),
                now=now,
            )
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image_id, now=now)
            return used

        used = await self.images.db.write(finish)
        if used != blob_id:
            await asyncio.to_thread(self.blobs.delete, blob_id)
        return {}

    def clean(self, job: Job) -> None:
        for attempt in range(1, job.attempt + 1):
            self.blobs.discard(f"{upload_id(job)}-{attempt}")
        shutil.rmtree(self.settings.folder / "scratch" / job.id, ignore_errors=True)
        blob_id = BlobId(job.id)
        with self.images.db.reading() as c:
            known = self.images.known_blob_ids_in(c, [blob_id])
        if blob_id not in known:
            self.blobs.delete(blob_id)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _source(self, run: Run) -> Path:
        """The file that becomes the image."""
        return run.scratch / "source"

    async def _window(self, _run: Run) -> Window | None:
        """Where in that file the image lies; None: it is all of it."""
        return None

    async def _at_hand(self, run: Run) -> Path:
        if not await asyncio.to_thread(self._source(run).exists):
            # Fetched by a worker on another machine, whose scratch folder this is not.
            run.results["fetch"] = await self._fetch(run)
        return self._source(run)

    def _declared(self, _run: Run) -> str | None:
        """The format that the content must have; None: whatever it is."""
        return None

    def _properties(self, run: Run) -> Mapping[str, str]:
        """What the image has from its source; it wins over what it was asked for with."""
        detected: Mapping[str, str] = run.results["inspect"].get("detected", {})
        return detected

    async def _detected(self, run: Run, image: Image, found: Inspection, window: Window | None) -> Mapping[str, str]:
        """The attributes of the system on the disk; none where none is found, or none is looked for."""
        wanted = self.settings.imports.detect_os and run.job.kind in STARTED_FROM
        if not wanted or image.properties.get("virtual_env_type") == "IsoImage":
            return {}
        guest = await detect(
            self.sandbox,
            self._source(run),
            found.format,
            virtual_size=found.virtual_size,
            scratch=run.scratch / "guest",
            window=window,
        )
        return {} if guest is None else attributes_of(guest, image.properties)

    def _check_wanted(self, job: Job, found: DiskFormat) -> None:
        source = source_of(job)
        # What is called ZVHD2 has no bitmap beside it, as a raw file has; what was inside is a VHD.
        quick_format = DiskFormat.RAW if opaque_name(source.key) is None else DiskFormat.VHD
        if source.quick and found is not quick_format:
            raise QuickFormat(f"a quick import takes raw and ZVHD2 files, not {found}; leave is_quick_import out")
        if (found is DiskFormat.ISO) != source.iso:
            wanted = f"type IsoImage wants an ISO, not {found}" if source.iso else "an ISO image wants type IsoImage"
            raise FormatMismatch(wanted)

    def _format_to_store(self, job: Job, found: Inspection) -> DiskFormat:
        return found.format if job.request.get("quick") else self._stored_format(found.format)

    def _is_kept(self, job: Job, found: Inspection) -> bool:
        """Whether the file is taken over as it is. Snapshots inside a qcow2 hold guest data that nobody sees: then only
        what is in force is."""
        return self._format_to_store(job, found) is found.format and not found.snapshots

    def _stored_format(self, source: DiskFormat) -> DiskFormat:
        wanted = self.settings.imports.format
        if wanted == "keep" and source in NEVER_KEPT:
            return DiskFormat.QCOW2
        if wanted == "keep" or source in (DiskFormat.ISO, DiskFormat.QCOW2 if wanted == "qcow2" else DiskFormat.RAW):
            return source
        return DiskFormat(wanted)

    def _bytes_of(self, run: Run) -> Path:
        """Where the converted bytes are: in staging, or already published by an execution that was cut off."""
        staged = self.blobs.staging_path(run.results["convert"]["token"])
        published = self.blobs.path(BlobId(run.job.id))
        return published if not staged.exists() and published.exists() else staged

    def _inspected(self, path: Path, declared: str | None = None, window: Window | None = None) -> Inspection:
        most = self.settings.image.virtual_bytes_per_image
        with path.open("rb") as file:
            return inspect(file, declared=declared, most_virtual_bytes=most, window=window)

    async def _digested(self, run: Run, path: Path, *, copy_to: Path | None, told: bool = True) -> Digests:
        """`told`: whether it is this that the step's progress is measured by."""
        size = (await asyncio.to_thread(path.stat)).st_size
        return await to_the_end(
            partial(
                digest_file,
                path,
                hash_algorithm=self.settings.image.hash_algorithm,
                copy_to=copy_to,
                sparse=True,
                progress=(lambda done: run.advance_bytes(done, size)) if told else None,
                cancelled=run.stop,
            )
        )

    def _image_in(self, c: Connection, job: Job) -> Image:
        image = self.images.by_id_in(c, image_of(job))
        if image is None:
            raise ImageNotFound(image_of(job))
        return image


def digests_to_json(digests: Digests) -> Mapping[str, str | int]:
    return {
        "size": digests.size,
        "md5": digests.md5,
        "hash_algorithm": digests.hash_algorithm,
        "hash_value": digests.hash_value,
    }


def digests_of_json(kept: Result) -> Digests:
    return Digests(
        size=kept["size"],
        md5=kept["md5"],
        hash_algorithm=kept["hash_algorithm"],
        hash_value=kept["hash_value"],
    )


def opaque_name(key: str) -> OpaqueKind | None:
    """The format without a public description that a file is called by its suffix; None: another, or none."""
    suffix = key.rpartition(".")[2].casefold()
    return OpaqueKind(suffix) if suffix in OPAQUE else None


def opaque_result(found: Opaque) -> Result:
    """Of the step inspect: what is not looked into is kept as it came."""
    kind = found.format.value
    return {"format": kind, "virtual_size": None, "stored_format": kind, "as_it_is": True, "shown_format": kind}


def source_of(job: Job) -> Source:
    return convert(job.request, Source)


def image_of(job: Job) -> ImageId:
    if job.image_id is None:
        raise Superseded
    return ImageId(job.image_id)
