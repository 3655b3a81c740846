"""locationImportJob: an image is to point at a URL. All bytes are read once, through the gate and the hashes, before it
becomes active; none of them are kept.

fetch    the bytes, into the job's scratch folder
inspect  the gate; size and digests, compared with what the caller said of them; then the file goes
publish  the image is active on the URL, and the job a success
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection

from calotype.blobs.digest import digest_file
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import now_ms
from calotype.disks.gate import keep
from calotype.disks.model import Inspection, Opaque
from calotype.errors import DigestMismatch, Forbidden, MalformedBody, WrongStatus
from calotype.fetch.fetcher import Fetcher
from calotype.identity.model import Caller
from calotype.images import attributes
from calotype.images.model import Image, ImageStatus, Location
from calotype.images.service import Images
from calotype.images.survey import judged
from calotype.jobs.kinds.ingest import digests_of_json, digests_to_json, image_of
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run, upload_id_of
from calotype.jobs.service import Jobs


async def submit(
    caller: Caller,
    image_id: str,
    url: str,
    claim: Mapping[str, str],
    *,
    images: Images,
    jobs: Jobs,
    stores: Stores,
    fetcher: Fetcher,
    request_id: str,
) -> JobId:
    """Accept a location, or raise the first reason against it. The image is `importing` on return, the location is
    listed already, and stays so when the job fails. `claim`: os_hash_algo and os_hash_value, or nothing.

    Raises `ImageNotFound`, `NotImageOwner`, `WrongStatus`, `Forbidden` where the settings do not let owners set
    locations, `FetchRefused`, `MalformedBody`, `TooManyJobs`.
    """
    if images.settings.imagev2.locations != "set" or not stores.remote:
        raise Forbidden("this service does not let images point at URLs; import with web-download instead")
    location = Location(url=url, store=stores.remote[0])

    def work(c: Connection) -> JobId:
        image = images.owned_in(c, caller, image_id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(now=image.status, wanted="a location is added only while it is queued")
        if not (image.disk_format and image.container_format):
            raise MalformedBody("disk_format and container_format must be set before a location is")
        fetcher.check(url)
        jobs.refuse_second_in(c, image.id)
        request = {
            "loc_url": urlsplit(url)._replace(query="", fragment="").geturl(),  # a query may hold a secret
            "validation_data": dict(claim),
            "request_id": request_id,
        }
        entities = {"image_name": image.name or "", "image_id": image.id}
        job_id = jobs.submit_in(c, caller, JobType.LOCATE, request=request, entities=entities, image_id=image.id)
        images.begin_location_in(c, image.id, upload_id_of(job_id), location, now_ms())
        return job_id

    return await images.db.write(work)


class Locate:
    type = JobType.LOCATE

    def __init__(self, parts: Parts) -> None:
        self.settings = parts.settings
        self.images = parts.images
        self.fetcher = parts.fetcher

    async def step(self, name: str, run: Run) -> Result:
        match name:
            case "fetch":
                return await self._fetch(run)
            case "inspect":
                return await self._inspect(run)
            case _:
                return await self._publish(run)

    async def _fetch(self, run: Run) -> Result:
        image = await self.images.db.read(lambda c: self.images.held_in(c, image_of(run.job), run.upload_id))
        run.scratch.mkdir(parents=True, exist_ok=True)
        image_id = image.id

        def grew(_total: int) -> None:
            with self.images.db.writing() as c:
                if not self.images.touch_in(c, image_id, run.upload_id, now_ms()):
                    raise WrongStatus(now="deleted", wanted="its location is not looked at any more")

        def progress(done: int, size: int | None) -> None:
            if size:
                run.advance_bytes(done, size)

        fetch = partial(
            self.fetcher.download,
            image.locations[0].url,
            run.scratch / "source",
            most_bytes=self.settings.image.file_bytes,
            progress=progress,
            cancelled=run.stop,
            grew=grew,
        )
        size = await to_the_end(fetch)
        return {"size": size}

    async def _inspect(self, run: Run) -> Result:
        source = run.scratch / "source"
        if not await asyncio.to_thread(source.exists):
            await self._fetch(run)  # fetched by a worker on another machine, whose scratch folder this is not
        image = await self.images.db.read(lambda c: self.images.held_in(c, image_of(run.job), run.upload_id))
        claim = run.job.request["validation_data"]
        found = await asyncio.to_thread(self._judged, source, image)
        attributes.min_disk_holds(image.min_disk, found.virtual_size)
        algorithm = claim.get("os_hash_algo", self.settings.image.hash_algorithm)
        digest = partial(
            digest_file,
            source,
            hash_algorithm=algorithm,
            progress=lambda done: run.advance_bytes(done, found.file_size),
            cancelled=run.stop,
        )
        digests = await to_the_end(digest)
        if claim and claim["os_hash_value"].lower() != digests.hash_value:
            raise DigestMismatch(f"the bytes at the location do not have the {algorithm} that was given")
        return {"virtual_size": found.virtual_size, **digests_to_json(digests)}

    def _judged(self, source: Path, image: Image) -> Inspection | Opaque:
        with source.open("rb") as file:
            return judged(partial(keep, file), image, self.settings.image)

    async def _publish(self, run: Run) -> Result:
        kept = run.results["inspect"]
        run.committing = True

        def finish(c: Connection) -> None:
            now = now_ms()
            image = self.images.held_in(c, image_of(run.job), run.upload_id)
            digests, virtual_size = digests_of_json(kept), kept["virtual_size"]
            self.images.point_in(c, image, image.locations, digests, virtual_size=virtual_size, now=now)
            run.succeed_in(c, entities=dict(run.job.entities), image_id=image.id, now=now)

        await self.images.db.write(finish)
        return {}

    def clean(self, job: Job) -> None:
        """All that it leaves is in its scratch folder, which goes by itself."""
