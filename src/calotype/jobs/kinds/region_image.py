"""The image that a copy makes in another region: under which ids it may be there, and how it comes to be there once.

Each attempt of the job has a few ids of its own, made from the job's id, so that whoever goes on with the job knows
what the ones before may have left. An image that has the right bytes already is taken as it is; any other is removed,
and the next id is used: ids are never used twice.
"""

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import structlog
from msgspec import Struct

from calotype.errors import RegionFailed, VerificationFailed
from calotype.images import attributes
from calotype.images.model import Image
from calotype.jobs.model import Job
from calotype.regions.client import Region
from calotype.regions.wire import Answer

log = structlog.get_logger()

TRIES: Final = 5  # images that one attempt of a job may begin, one after the other
CREATED: Final = 201
EXISTS: Final = 409
REFUSED: Final = (400, 403)
ORIGIN: Final = ("__data_origin", "__originalimagename")
ARRIVING: Final = ("saving", "importing")
SETTLED_WITHIN_S: Final = 120.0  # a service may take its time after the last byte
SETTLED_EVERY_S: Final = 1.0
HIDDEN: Final = "os_hidden"
OS_VERSION: Final = "__os_version"  # a service makes all that it says of the OS of this
# Of an image here, and no good there: what belongs to it are images and projects of this region.
LEFT_OUT: Final = frozenset({"kernel_id", "ramdisk_id", "enterprise_project_id", "__description"})


class Facts(Struct, frozen=True, kw_only=True):
    """What is to be there in the end."""

    blob_id: str
    size: int  # bytes
    digests: Mapping[str, str]  # algorithm -> hex
    document: Mapping[str, Any]  # to create the image from, without an id


def facts_of(source: Image, *, name: str, description: str | None, region: str) -> Facts:
    """`region`: this one, where `source` is."""
    digests = {"md5": source.checksum, source.hash_algorithm or "": source.hash_value}
    return Facts(
        blob_id=str(source.blob_id),
        size=source.size or 0,
        digests={algorithm: value for algorithm, value in digests.items() if algorithm and value},
        document=document_of(source, name=name, description=description, region=region),
    )


def document_of(source: Image, *, name: str, description: str | None, region: str) -> dict[str, Any]:
    """The copy as a service is asked for it: what an owner could set here, the OS, and where it comes from."""
    document: dict[str, Any] = {
        "name": name,
        "visibility": "private",
        HIDDEN: True,  # until its bytes are verified
        "disk_format": source.disk_format,
        "container_format": source.container_format,
        "min_disk": source.min_disk,
        "min_ram": source.min_ram,
        "tags": [*source.tags],
    }
    document |= {name: value for name, value in source.properties.items() if name not in LEFT_OUT and _settable(name)}
    if description:
        document["__description"] = description
    document |= dict(zip(ORIGIN, (f"image,{region},{source.id}", source.id), strict=True))
    return document


def _settable(attribute: str) -> bool:
    """Whether an owner sets it: all others the service there sets by itself, or nobody does."""
    if attribute.startswith("__"):
        return attribute in attributes.OWNERS or attribute == OS_VERSION
    return not attribute.startswith(attributes.RESERVED_PREFIXES)


def image_ids(job_id: str, attempt: int) -> Iterator[str]:
    """The ids that an attempt may use, in this order."""
    for number in range(TRIES):
        yield str(uuid.uuid5(uuid.UUID(hex=job_id), f"{attempt}.{number}"))


def verify(found: Mapping[str, Any], facts: Facts, region: str) -> None:
    """Pass when an image of another service has the bytes that it should have, by what that service says of them.

    Raises `VerificationFailed`; also when it says nothing that could be compared.
    """
    if found.get("status") != "active" or found.get("size") != facts.size:
        raise VerificationFailed(
            f"region {region} has the image as {found.get('status')} with {found.get('size')} bytes; "
            f"active with {facts.size} is right"
        )
    told = {"md5": found.get("checksum"), str(found.get("os_hash_algo")): found.get("os_hash_value")}
    common = [name for name, value in told.items() if name in facts.digests and isinstance(value, str) and value]
    if not common:
        raise VerificationFailed(f"region {region} tells no digest of the image that is known here")
    for name in common:
        if str(told[name]).lower() != facts.digests[name].lower():
            raise VerificationFailed(f"the bytes of the image in region {region} are others: its {name} differs")


def is_right(found: Mapping[str, Any], facts: Facts, region: str) -> bool:
    try:
        verify(found, facts, region)
    except VerificationFailed:
        return False
    return True


class RegionImage:
    """The image of one job there, whichever its id is just now."""

    def __init__(self, region: Region, job: Job, facts: Facts) -> None:
        self.region = region
        self.job = job
        self.facts = facts
        self.last_id: str | None = None  # the last that was used
        self.all_sent = False  # whether the service there has had every byte once, and may be busy with them

    async def ready(self) -> tuple[str, bool]:
        """An image of this job that waits for its bytes, made where there is none; or one that has them, and True.

        Raises `RegionUnavailable`, `RegionFailed`.
        """
        kept = await self._of_earlier_attempts()
        if kept is not None:
            return kept, True
        for image_id in image_ids(self.job.id, self.job.attempt):
            self.last_id = image_id
            if await self._create(image_id):
                log.info("region_image_created", region=self.region.name, image_id=image_id)
                return image_id, False
            found = await self.region.show(image_id)
            if found is None:
                continue  # it was there and was removed
            if self.all_sent:
                found = await self.settled(image_id)
            if found.get("status") == "queued":
                return image_id, False
            if is_right(found, self.facts, self.region.name):
                return image_id, True
            await self.region.delete(image_id)
        raise RegionFailed(f"{TRIES} images were begun in region {self.region.name}, and none got its bytes")

    async def settled(self, image_id: str) -> Mapping[str, Any]:
        """The image as it is once nothing is being done with its bytes; at most `SETTLED_WITHIN_S` are waited for it.
        Raises `RegionFailed` when it is gone."""
        end = asyncio.get_running_loop().time() + SETTLED_WITHIN_S
        while True:
            found = await self.region.show(image_id)
            if found is None:
                raise RegionFailed(f"the image was deleted in region {self.region.name} meanwhile")
            if found.get("status") not in ARRIVING or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(SETTLED_EVERY_S)

    async def _of_earlier_attempts(self) -> str | None:
        for attempt in range(1, self.job.attempt):
            for image_id in image_ids(self.job.id, attempt):
                found = await self.region.show(image_id)
                if found is not None and is_right(found, self.facts, self.region.name):
                    return image_id
                if found is not None:
                    await self.region.delete(image_id)
        return None

    async def _create(self, image_id: str) -> bool:
        """False when the id is taken. What a service lets nobody set is left out when it refuses."""
        answer: Answer | None = None
        for document in variants(self.facts.document):
            answer = await self.region.create({**document, "id": image_id})
            if answer.status not in REFUSED:
                break
        assert answer is not None, "there is one document at least"  # noqa: S101
        if answer.status == EXISTS:
            return False
        if answer.status != CREATED:
            raise RegionFailed(f"region {self.region.name} refuses the image: {answer.said}")
        made = str(answer.document().get("id"))
        if made != image_id:
            await self.region.delete(made)
            raise RegionFailed(f"region {self.region.name} gives images ids of its own, which a copy cannot work with")
        return True


def variants(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All of it; without its origin, which only some services let a user set; without what IMS does not know."""
    yield dict(document)
    yield {name: value for name, value in document.items() if name not in ORIGIN}
    yield {name: value for name, value in document.items() if name not in (*ORIGIN, HIDDEN)}


async def remove(region: Region, ids: Iterable[str], *, within_s: float) -> None:
    """Remove the images of `ids` that are there. Raises `RegionFailed` with the first that may be left."""
    for image_id in ids:
        try:
            await region.patiently(partial(region.delete, image_id), within_s=within_s)
        except RegionFailed as error:
            raise RegionFailed(f"image {image_id} may be left ({error.message})") from error
