"""Importing and registering a whole file of a bucket: the first step, and what else they do beside `ingest.py`.

Where the source is after `fetch`, so that nobody changes it, or so that it is seen when somebody does:

- An object of a bucket of our own never changes. It is linked into the job's scratch folder: no byte is copied.
- A file of a mapped folder, which other programs may write to, is read where it lies when it is to be converted: each
  step opens it, and it must be the same file, not written to since, before and after the step. A child could be shown
  another header than the gate was; it is kept from every other file, and where it is not (no bubblewrap), or cannot
  read what we can, the file is copied first.
- A file of a mapped folder that is kept as it is, is copied to the blob store's staging folder, and the copy looked at.
- An object of an S3 server that is kept as it is, streams once, by ranges, into the blob store's staging folder, after
  the gate has looked at it where it lies; any other comes once to the scratch folder.
- What is packed in gzip, xz, zstd or bzip2 is unpacked into the scratch folder, straight from where it lies, once.
- A file of our own layout of ZVHD and ZVHD2 (`disks/zvhd.py`), whatever it is called, is opened: the VHD in it is
  imported. A file that is called `.zvhd` or `.zvhd2`, or fills an image that is declared so, and is of no format that
  is known, is kept as it is and not looked into.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from calotype.blobs.local import BlobReader
from calotype.blobs.threads import to_the_end
from calotype.buckets.folder import FolderStore
from calotype.buckets.held import HeldObject
from calotype.buckets.s3.store import S3Store
from calotype.db.engine import now_ms
from calotype.disks import zvhd
from calotype.disks.gate import OPAQUE, inspect_at, keep
from calotype.disks.model import DiskFormat, Inspection, Opaque, OpaqueKind
from calotype.disks.sandbox import Limits, inside, open_input
from calotype.disks.unpack import MARKS, Packing, most_unpacked, packing_of
from calotype.errors import (
    CalotypeError,
    ConversionFailed,
    DiskRefused,
    ImageTooLarge,
    JobCancelled,
    ObjectChanged,
    ObjectNotFound,
    RegisterFailed,
    UnpackRefused,
    VerificationFailed,
)
from calotype.jobs.kinds import unpacking, zvhd_file
from calotype.jobs.kinds.ingest import Ingest, image_of, opaque_name, opaque_result, source_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.kinds.source_digest import check_equal, checked
from calotype.jobs.model import Job, JobType
from calotype.jobs.run import Result, Run, upload_id
from calotype.jobs.scratch import STAT_BLOCK

RAW_SUFFIXES: Final = frozenset({"raw", "img", "bin", "dd"})  # say more than a disk_format that nobody may have chosen
COPIED: Final = ".source"  # what of a mapped folder is to be kept, in staging
READS: Final = frozenset({"inspect", "convert", "verify"})  # steps that read the source
MAY_BE_PACKED: Final = (*MARKS, zvhd.ZSTD_FRAME, *zvhd.ZLIB_MARKS)  # what such a file begins with
PROBE: Final = Limits(memory_bytes=1024**3, cpu_s=10, file_bytes=1, wall_s=10.0)


class IngestFile(Ingest):
    def __init__(self, job_type: JobType, parts: Parts) -> None:
        super().__init__(job_type, parts)
        self._held: dict[Run, HeldObject] = {}  # while a step reads an object where it lies

    async def step(self, name: str, run: Run) -> Result:
        try:
            async with self._holding(name, run):
                return await super().step(name, run)
        except (ConversionFailed, VerificationFailed) as error:
            if self.type is JobType.REGISTER:
                raise RegisterFailed(error.message) from error
            raise

    # --- fetch --------------------------------------------------------------------------------------------------------

    async def _fetch(self, run: Run, *, may_hold: bool = True) -> Result:
        """`may_hold`: the source may stay where it lies."""
        source = source_of(run.job)
        store = await self.buckets.resolve(run.job.project_id, source.bucket)
        with await asyncio.to_thread(store.hold, source.key, source.etag) as held:
            most = self.settings.image.quick_bytes if source.quick else self.settings.image.file_bytes
            if held.size > most:
                raise ImageTooLarge(f"the file has {held.size} bytes; at most {most} are allowed")
            image_id = image_of(run.job)
            await self.images.db.write(
                lambda c: self.images.begin_bytes_in(c, image_id, run.upload_id, reserve=held.size, now=now_ms())
            )
            await asyncio.to_thread(self._prepare, run)
            fetched: Result | None
            if not isinstance(store, FolderStore) or not isinstance(held, HeldObject):
                fetched = await self._from_s3(run, store, held, most)
            else:
                fetched = await self._unpacked(run, store, held, most)
                if fetched is None:
                    fetched = await self._taken(run, store, held, may_hold)
            run.advance_bytes(held.size, held.size)
            return {"size": held.size, **fetched}

    def _prepare(self, run: Run) -> None:
        """Nothing of earlier attempts at this step is left."""
        run.scratch.mkdir(parents=True, exist_ok=True)
        for name in ("source", "source.part", "packed"):
            (run.scratch / name).unlink(missing_ok=True)
        self._discard_copies(run.tokens)

    def _discard_copies(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            copy = self.blobs.staging_path(f"{token}{COPIED}")
            for path in (copy, copy.with_name(f"{copy.name}.part")):  # as `snapshot` calls it while it grows
                path.unlink(missing_ok=True)

    async def _from_s3(self, run: Run, store: FolderStore | S3Store, held: BlobReader, most: int) -> Result:
        head = await asyncio.to_thread(held.read_at, 0, max(map(len, MAY_BE_PACKED)))
        if not head.startswith(MAY_BE_PACKED) and await self._will_be_kept(run, held):
            await run.reserve(staging=held.size)
            token = f"{run.token}{COPIED}"
            return {"file": token, "md5": await self._snapshot(run, store, self.blobs.staging_path(token))}
        await run.reserve(scratch=held.size)
        arrived = run.scratch / "source"
        await self._snapshot(run, store, arrived)
        info = await asyncio.to_thread(store.stat, source_of(run.job).key)
        with HeldObject(await asyncio.to_thread(os.open, arrived, os.O_RDONLY | os.O_CLOEXEC), info) as near:
            return await self._unpacked(run, store, near, most) or {}

    async def _unpacked(self, run: Run, store: FolderStore | S3Store, held: HeldObject, most: int) -> Result | None:
        """Write what is in a packed object to the scratch folder; None: it is not packed."""
        path, made = open_input(held.fileno()), run.scratch / "source.part"
        kind = await asyncio.to_thread(zvhd.kind_of, path)
        packing = None if kind is not None else await asyncio.to_thread(packing_of, path)
        if packing is not None and not await self._is_unpacked(run):
            packing = None
        if kind is None and packing is None:
            return None
        if isinstance(store, S3Store):
            path = run.scratch / "source"
        elif (kind is OpaqueKind.ZVHD2 or packing is Packing.ZSTD) and not await self._is_seen_inside(held):
            path = run.scratch / "packed"  # for the tool
            await self._snapshot(run, store, path)
        async with checked(path, source_of(run.job).source_digest):
            if kind is not None:
                await zvhd_file.unpack(run, self.sandbox, path, made, kind, most_bytes=most)
            elif packing is not None:
                ratio = self.settings.imports.decompress_ratio
                most_bytes = most_unpacked(held.size, ratio=ratio, most_bytes=most)
                grew = partial(self._grew, run)
                await unpacking.unpack(run, self.sandbox, path, packing, made, most_bytes=most_bytes, grew=grew)
                if await asyncio.to_thread(zvhd.kind_of, made) is not None:
                    raise UnpackRefused("the image is packed twice; unpack it before sending it")
        if not store.owned:
            await asyncio.to_thread(held.check)
        await self._reserve(run, made)
        await asyncio.to_thread(made.replace, run.scratch / "source")
        await asyncio.to_thread((run.scratch / "packed").unlink, missing_ok=True)
        return {"checked": True} | ({"unpacked": packing.value} if packing else {"opened": kind.value if kind else ""})

    async def _is_unpacked(self, run: Run) -> bool:
        """Whether compression around the file is taken off: not where bytes are taken over whatever they are."""
        source = source_of(run.job)
        return (
            self.settings.imports.decompress
            and not source.quick
            and not source.iso
            and await self._declared_opaque(run) is None
        )

    async def _grew(self, run: Run, total: int, more: int) -> None:
        image_id = image_of(run.job)
        await run.reserve(scratch=more)
        await self.images.db.write(lambda c: self.images.reserve_in(c, image_id, run.upload_id, total, now_ms()))

    async def _taken(self, run: Run, store: FolderStore, held: HeldObject, may_hold: bool) -> Result:
        """Have an object that is not packed where it can be read, and nobody changes it unseen."""
        if store.owned:
            await self._snapshot(run, store, run.scratch / "source")
            return {}
        most = await asyncio.to_thread(_allocated, held)
        if await self._will_be_kept(run, held):
            await run.reserve(staging=most)
            token = f"{run.token}{COPIED}"
            await self._snapshot(run, store, self.blobs.staging_path(token))
            return {"file": token}
        if may_hold and self.sandbox.isolated and await self._is_seen_inside(held):
            return {"held": held.version}
        await run.reserve(scratch=most)
        await self._snapshot(run, store, run.scratch / "source")
        return {}

    async def _snapshot(self, run: Run, store: FolderStore | S3Store, target: Path) -> str | None:
        """Returns the MD5 of what came over the network, if it did."""
        source = source_of(run.job)
        size = (await asyncio.to_thread(store.stat, source.key)).size
        made = await to_the_end(
            partial(
                store.fetch if isinstance(store, S3Store) else store.snapshot,
                source.key,
                target,
                source.etag,
                progress=lambda done: run.advance_bytes(done, size),
                cancelled=run.stop.is_set,
            )
        )
        return made if isinstance(made, str) else None

    async def _will_be_kept(self, run: Run, held: BlobReader) -> bool:
        if await self._declared_opaque(run) is not None:
            return True
        try:
            found = await asyncio.to_thread(
                inspect_at,
                held.read_at,
                held.size,
                declared=self._declared(run),
                most_virtual_bytes=self.settings.image.virtual_bytes_per_image,
            )
        except DiskRefused:
            return False  # the step `inspect` says so
        return self._is_kept(run.job, found)

    async def _is_seen_inside(self, held: HeldObject) -> bool:
        """Whether a child in the sandbox, which has no more rights than a file gives to everyone, can read it."""
        probe = ["test", "-r", inside(0)]
        try:
            result = await self.sandbox.run(probe, read_only=[open_input(held.fileno())], limits=PROBE)
        except TimeoutError:
            return False
        return result.status == 0

    # --- an object that is read where it lies -------------------------------------------------------------------------

    @asynccontextmanager
    async def _holding(self, name: str, run: Run) -> AsyncIterator[None]:
        version = run.results.get("fetch", {}).get("held") if name in READS else None
        if version is not None and not self.sandbox.isolated:
            # Taken over from a worker that could let children read there.
            run.results["fetch"], version = await self._fetch(run, may_hold=False), None
        if version is None:
            yield
            return
        source = source_of(run.job)
        store = await self.buckets.resolve(run.job.project_id, source.bucket)
        try:
            held = await asyncio.to_thread(store.hold, source.key, source.etag)
        except ObjectNotFound as error:
            raise ObjectChanged(f"object {source.bucket}:{source.key} was deleted meanwhile") from error
        if not isinstance(held, HeldObject):
            raise ObjectChanged(f"bucket {source.bucket} is no folder any more")
        with held:
            await asyncio.to_thread(held.check, version)
            self._held[run] = held
            try:
                yield
            except JobCancelled:
                raise
            except CalotypeError:
                await asyncio.to_thread(held.check, version)  # rather than what came of the change
                raise
            finally:
                del self._held[run]
            await asyncio.to_thread(held.check, version)

    def _source(self, run: Run) -> Path:
        if run in self._held:
            return open_input(self._held[run].fileno())
        copied = run.results.get("fetch", {}).get("file")
        return super()._source(run) if copied is None else self.blobs.staging_path(copied)

    async def _at_hand(self, run: Run) -> Path:
        if not await asyncio.to_thread(self._source(run).exists):
            run.results["fetch"] = await self._fetch(run, may_hold=False)
        return self._source(run)

    # --- inspect and convert ------------------------------------------------------------------------------------------

    async def _inspect(self, run: Run) -> Result:
        called = None if "opened" in run.results["fetch"] else await self._declared_opaque(run)
        if called is not None:
            await self._at_hand(run)
            found = await asyncio.to_thread(self._looked_at, run, called)
            if isinstance(found, Opaque):
                run.advance(1.0)
                return opaque_result(found)
        return await super()._inspect(run)

    async def _convert(self, run: Run) -> Result:
        source = await self._at_hand(run)
        expected = None if "checked" in run.results["fetch"] else source_of(run.job).source_digest
        algorithm = self.settings.image.hash_algorithm
        if expected and run.results["inspect"]["as_it_is"] and expected.startswith(f"{algorithm}:"):
            made = await super()._convert(run)
            check_equal(algorithm, made["hash_value"], expected)
            return made
        async with checked(source, expected):
            made = await super()._convert(run)
        arrived = run.results["fetch"].get("md5")
        if arrived is not None and made.get("md5", arrived) != arrived:
            raise VerificationFailed("the bytes that were stored are not those that came from the S3 server")
        return made

    async def _declared_opaque(self, run: Run) -> OpaqueKind | None:
        """The format without a public description that the file, or the image that it fills, is said to have."""
        request: Any = run.job.request
        if "member" in request or request.get("iso"):
            return None
        named = opaque_name(request["key"])
        if named is not None or self.type is not JobType.REGISTER:
            return named
        image = await self.images.db.read(lambda c: self._image_in(c, run.job))
        suffix = request["key"].rpartition(".")[2].casefold()
        declared = image.disk_format
        return OpaqueKind(declared) if declared in OPAQUE and suffix not in RAW_SUFFIXES else None

    def _looked_at(self, run: Run, called: OpaqueKind) -> Inspection | Opaque:
        most = self.settings.image.virtual_bytes_per_image
        with self._source(run).open("rb") as file:
            return keep(file, declared=called, most_virtual_bytes=most, converted=True)

    def _properties(self, run: Run) -> Mapping[str, str]:
        found = super()._properties(run)
        if self.type is not JobType.REGISTER:
            return found
        origin = f"file,{run.job.request['bucket']}:{run.job.request['key']}"
        return {"__root_origin": "file", "__data_origin": origin, "__originalimagename": "", **found}

    def _declared(self, run: Run) -> str | None:
        return DiskFormat.VHD.value if "opened" in run.results.get("fetch", {}) else super()._declared(run)

    def clean(self, job: Job) -> None:
        self._discard_copies(f"{upload_id(job)}-{attempt}" for attempt in range(1, job.attempt + 1))
        super().clean(job)


def _allocated(held: HeldObject) -> int:
    """The bytes that a copy with the same holes takes."""
    found = os.fstat(held.fileno())
    return min(found.st_size, found.st_blocks * STAT_BLOCK)
