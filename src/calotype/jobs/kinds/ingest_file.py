"""What importing and registering a whole file do beside `ingest.py`: ZVHD and ZVHD2.

A file of our own layout (`disks/zvhd.py`), whatever it is called, is opened when it is fetched: the VHD in it is
imported. A file that is called `.zvhd` or `.zvhd2`, or fills an image that is declared so, and is of no format that is
known, is kept as it is and not looked into.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from calotype.disks import zvhd
from calotype.disks.gate import OPAQUE, keep
from calotype.disks.model import DiskFormat, Inspection, Opaque, OpaqueKind
from calotype.errors import ConversionFailed, RegisterFailed, VerificationFailed
from calotype.jobs.kinds import zvhd_file
from calotype.jobs.kinds.ingest import Ingest, opaque_name, opaque_result
from calotype.jobs.model import JobType
from calotype.jobs.run import Result, Run

RAW_SUFFIXES: Final = frozenset({"raw", "img", "bin", "dd"})  # say more than a disk_format that nobody may have chosen


class IngestFile(Ingest):
    async def step(self, name: str, run: Run) -> Result:
        try:
            return await super().step(name, run)
        except (ConversionFailed, VerificationFailed) as error:
            if self.type is JobType.REGISTER:
                raise RegisterFailed(error.message) from error
            raise

    async def _fetch(self, run: Run) -> Result:
        fetched = await super()._fetch(run)
        source = run.scratch / "source"
        kind = await asyncio.to_thread(zvhd.kind_of, source)
        if kind is None:
            return fetched
        limits = self.settings.image
        most_bytes = limits.quick_bytes if run.job.request.get("quick") else limits.file_bytes
        await zvhd_file.unpack(run, self.sandbox, source, source, kind, most_bytes=most_bytes)
        await self._reserve(run, source)
        return {**fetched, "opened": kind.value}

    async def _inspect(self, run: Run) -> Result:
        called = await self._called(run)
        if called is not None:
            found = await asyncio.to_thread(self._looked_at, run, called)
            if isinstance(found, Opaque):
                run.advance(1.0)
                return opaque_result(found)
        return await super()._inspect(run)

    async def _called(self, run: Run) -> OpaqueKind | None:
        """The format without a public description that the file, or the image that it fills, is said to have."""
        request: Any = run.job.request
        if "opened" in run.results["fetch"] or "member" in request or request.get("iso"):
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
        return DiskFormat.VHD.value if "opened" in run.results["fetch"] else super()._declared(run)
