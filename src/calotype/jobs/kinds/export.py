"""imsNativeExportImageJob: an image becomes an object in a bucket, in one of `FILE_FORMATS`; with `ims.open_zvhd` also
as the open equivalent of ZVHD, and by a quick export of ZVHD2.

The object appears whole or not at all, and never over one that was there. It is named only in the last step, after
its guest bytes were compared with the image's.
"""

import asyncio
import os
import shutil
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
from calotype.disks.convert import OVERHEAD_BYTES
from calotype.disks.gate import OPAQUE, keep
from calotype.disks.measure import most_bytes
from calotype.disks.model import DiskFormat, Inspection, Opaque, OpaqueKind
from calotype.disks.targets import FILE_FORMATS, FileFormat, TargetKind, too_large
from calotype.disks.zvhd import kind_of
from calotype.errors import (
    ChargedImage,
    ExportRunning,
    ExportTooLarge,
    ExportUnsupported,
    IsoImage,
    LiesElsewhere,
    NotExportable,
    NotImageOwner,
    ObjectExists,
    ObjectNotFound,
    OpaqueFormat,
    PublicImageExport,
    VerificationFailed,
    WholeImageExport,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images.model import Image, ImageId, ImageStatus, Visibility
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.kinds import zvhd_file
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs
from calotype.settings import Settings

PACKED: Final = FileFormat(kind=TargetKind.VHD, summary="what is inside of ZVHD and ZVHD2")
ENCRYPTED: Final = "__system__cmkid"
# Platforms whose public images must not leave the cloud, nor what was made of them.
CHARGED: Final = frozenset({"Windows", "SUSE", "RedHat", "Ubuntu", "Oracle Linux"})
MOST_ORIGINS: Final = 64  # images of which each was made of the next


async def submit(
    caller: Caller,
    image_id: ImageId,
    address: ObjectAddress,
    file_format: str,
    *,
    quick: bool = False,
    images: Images,
    buckets: Buckets,
    jobs: Jobs,
) -> JobId:
    """Accept an export, or raise the first reason against it. Nothing is written then. `quick`: as ZVHD2, whatever
    `file_format` says."""
    file_format = OpaqueKind.ZVHD2.value if quick else file_format
    _check_format(file_format, quick=quick, open_zvhd=images.settings.ims.open_zvhd)
    store = await buckets.resolve(str(caller.project_id), address.bucket)
    store.check_writable()

    def work(c: Connection) -> JobId:
        image = images.visible_in(c, caller, image_id)
        check_exportable(image, caller, images.settings, quick=quick)
        check_size(image, file_format)
        check_origins_in(c, image, images)
        if sql.open_on_image(c, image.id, [JobType.EXPORT]):
            raise ExportRunning("an export of this image is under way; wait until it has ended")
        return jobs.submit_in(
            c,
            caller,
            JobType.EXPORT,
            request={
                "bucket": address.bucket,
                "key": address.key,
                "file_format": file_format,
                **({"quick": True} if quick else {}),
            },
            entities={"image_id": image.id, "image_name": image.name or ""},
            image_id=image.id,
        )

    try:
        await asyncio.to_thread(store.stat, address.key)
    except ObjectNotFound:
        return await images.db.write(work)
    raise ObjectExists(address.bucket, address.key)


def _check_format(file_format: str, *, quick: bool, open_zvhd: bool) -> None:
    if file_format in FILE_FORMATS:
        return
    if quick or file_format == OpaqueKind.ZVHD:
        if open_zvhd:
            return
        what = "a quick export writes ZVHD2, which" if quick else "ZVHD"
        raise ExportUnsupported(
            f"{what} has no public description; the operator can switch on an open equivalent with the setting "
            f"ims.open_zvhd; or export as {', '.join(FILE_FORMATS)}{' without is_quick_export' if quick else ''}"
        )
    known = ", ".join([*FILE_FORMATS, *([OpaqueKind.ZVHD.value] if open_zvhd else [])])
    raise ExportUnsupported(f"images are exported as {known}; not as {file_format[:40]!r}")


def check_exportable(image: Image, caller: Caller, settings: Settings, *, quick: bool) -> None:
    """Pass for an image that the caller may export, going by the image alone; else raise the first reason against."""
    if image.visibility is Visibility.PUBLIC:
        raise PublicImageExport("public images cannot be exported; copy it first")
    if image.project_id != caller.project_id:
        raise NotImageOwner("only the owner of an image can export it; copy it first")
    if image.status is not ImageStatus.ACTIVE or image.blob_id is None:
        raise WrongStatus(now=image.status, wanted="only an active image can be exported")
    if image.is_whole:
        raise WholeImageExport("a full-server image cannot be exported; download the disks of its backup")
    if image.lies_elsewhere:
        raise LiesElsewhere("the bytes of the image lie at a URL; upload it as an image of its own, then export that")
    if image.disk_format == DiskFormat.ISO:
        raise IsoImage("an ISO image cannot be exported; download it")
    if image.disk_format in OPAQUE and image.virtual_size is None:
        raise _opaque(str(image.disk_format))
    size = image.size or 0
    if size >= settings.image.quick_bytes:
        raise NotExportable(f"images of {settings.image.quick_bytes} bytes and more cannot be exported; download it")
    if size > settings.image.export_bytes and not quick:
        raise ExportTooLarge(
            f"images of more than {settings.image.export_bytes} bytes are exported with is_quick_export only"
        )
    if quick and image.properties.get(ENCRYPTED):
        raise NotExportable("an encrypted image has no quick export; leave is_quick_export out")


def check_size(image: Image, file_format: str) -> None:
    """Pass if the format holds a disk of that size. Raises `NotExportable`."""
    wanted = _wanted(file_format)
    if wanted.as_stored and image.disk_format == wanted.format:
        return
    if reason := too_large(wanted.kind, image.virtual_size or 0):
        raise NotExportable(reason)


def _wanted(file_format: str) -> FileFormat:
    return PACKED if file_format in OPAQUE else FILE_FORMATS[file_format]


def _opaque(disk_format: str) -> OpaqueFormat:
    return OpaqueFormat(
        f"the image is kept as {disk_format} that was never looked into: that format has no public description, so it "
        "cannot be converted; download it as it is"
    )


def check_origins_in(c: Connection, image: Image, images: Images) -> None:
    """Pass unless the image was made, through others that are still there, of a public one of a charged platform.

    Raises `ChargedImage`."""
    seen = {str(image.id)}
    for _ in range(MOST_ORIGINS):
        origin_id = image.properties.get("__originalimagename", "")
        if not origin_id or origin_id in seen:
            return
        seen.add(origin_id)
        origin = images.by_id_in(c, origin_id)
        if origin is None:
            return
        charged = CHARGED & {origin.properties.get(name, "") for name in ("__platform", "__os_type")}
        if origin.visibility is Visibility.PUBLIC and charged:
            raise ChargedImage(f"the image was made of a public {min(charged)} image, which cannot be exported")
        image = origin
    raise ChargedImage(
        f"the image is a copy of a copy, more than {MOST_ORIGINS} times: what it was made of is not known"
    )


class Export:
    type = JobType.EXPORT

    def __init__(self, parts: Parts) -> None:
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
        found = await asyncio.to_thread(self._inspected, source, str(image.disk_format))
        run.advance(1.0)
        return {"format": found.format.value, "virtual_size": found.virtual_size, "size": image.size}

    def _inspected(self, path: Path, disk_format: str) -> Inspection:
        most = self.settings.image.virtual_bytes_per_image
        with path.open("rb") as file:
            found = keep(file, declared=disk_format, most_virtual_bytes=most)
        if isinstance(found, Opaque):
            raise _opaque(disk_format)
        return found

    async def _convert(self, run: Run) -> Result:
        source = run.scratch / "source"
        if not await asyncio.to_thread(source.exists):
            await self._fetch(run)  # held by a worker on another machine, whose scratch folder this is not
        source_format = DiskFormat(run.results["fetch"]["format"])
        name = run.job.request["file_format"]
        packed, wanted = OpaqueKind(name) if name in OPAQUE else None, _wanted(name)
        target = run.scratch / f"out-{run.job.attempt}"
        for attempt in range(1, run.job.attempt + 1):
            target.with_name(f"out-{attempt}").unlink(missing_ok=True)
        await self._reserve(run, source, source_format, packed=packed is not None)
        if wanted.as_stored and source_format is wanted.format:
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
                wanted.kind,
                virtual_size=run.results["fetch"]["virtual_size"],
                progress=run.advance,
            )
        if packed is not None:
            vhd = target.with_name("vhd")
            await asyncio.to_thread(target.replace, vhd)
            await zvhd_file.pack(run, self.sandbox, vhd, target, packed)
            await asyncio.to_thread(vhd.unlink)
        return {"file": target.name, "format": wanted.format.value, "packed": packed.value if packed else None}

    async def _reserve(self, run: Run, source: Path, format_: DiskFormat, *, packed: bool) -> None:
        """The result, and what it is packed from. In a bucket of our own on the same disk it is not copied again."""
        most = await most_bytes(self.sandbox, source, format_)
        await run.reserve(scratch=2 * most if packed else most)

    async def _verify(self, run: Run) -> Result:
        converted = run.results["convert"]
        if not (run.scratch / converted["file"]).exists():
            # Made by a worker on another machine, whose scratch folder this is not: make it again here.
            await self._fetch(run)
            converted = await self._convert(run)
        made = run.scratch / converted["file"]
        if converted.get("packed"):
            made = await self._opened(run, made, OpaqueKind(converted["packed"]))
        await self.converter.compare(
            run.scratch / "source",
            DiskFormat(run.results["fetch"]["format"]),
            made,
            DiskFormat(converted["format"]),
            virtual_size=run.results["fetch"]["virtual_size"],
            progress=run.advance,
        )
        return {"convert": converted}

    async def _opened(self, run: Run, packed: Path, kind: OpaqueKind) -> Path:
        """The VHD in a file that was just written, taken out as an import would."""
        if await asyncio.to_thread(kind_of, packed) is not kind:
            raise VerificationFailed(f"the result is not recognised as {kind}")
        virtual_size = run.results["fetch"]["virtual_size"]
        most_bytes = virtual_size + virtual_size // 16 + OVERHEAD_BYTES
        target = run.scratch / "check"
        await zvhd_file.unpack(run, self.sandbox, packed, target, kind, most_bytes=most_bytes)
        await asyncio.to_thread(self._inspected, target, DiskFormat.VHD.value)
        return target

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
