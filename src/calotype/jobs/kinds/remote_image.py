"""Images of the Image services that the catalog names, asked for on behalf of the user of a job (glance-download)."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from calotype.db.engine import Database
from calotype.errors import (
    FetchFailed,
    Invalid,
    ReadOnlyAttribute,
    Unauthenticated,
    UnknownEndpoint,
    VerificationFailed,
)
from calotype.fetch.fetcher import Fetcher
from calotype.identity.catalog import catalog
from calotype.identity.delegation import token_for
from calotype.images import attributes
from calotype.jobs.model import Job
from calotype.settings import Settings

SERVICE: Final = "image"
MOST_DOCUMENT_BYTES: Final = 1024 * 1024
NOT_FOUND: Final = 404
HASHES: Final = ("sha512", "sha256")


class RemoteImage(Struct, frozen=True, kw_only=True):
    """What is taken over of an image of another service."""

    url: str
    size: int
    disk_format: str
    container_format: str
    properties: Mapping[str, str]
    digests: Mapping[str, str]  # algorithm -> hex, as far as the other service tells those that are known here


class RemoteImages:
    """`fetcher` trusts the endpoints of the catalog, and no user's URL is ever given to it. For threads."""

    def __init__(self, settings: Settings, db: Database, fetcher: Fetcher) -> None:
        self.settings = settings
        self.db = db
        self.fetcher = fetcher

    def find(self, job: Job, *, region: str, interface: str, image_id: str) -> RemoteImage:
        """Raises `UnknownEndpoint`, `FetchFailed` with what the other service says, `SourceUnavailable`."""
        url = f"{self._endpoint(region, interface)}/v2/images/{image_id}"
        try:
            with self.fetcher.open(url, headers=self._headers(job)) as answer:
                document = _document(answer.chunks())
        except FetchFailed as error:
            if error.status == NOT_FOUND:
                raise FetchFailed(f"the other service has no image {image_id} for you", status=NOT_FOUND) from error
            raise
        return self._taken_over(url, document)

    def download(
        self,
        job: Job,
        image: RemoteImage,
        target: Path,
        *,
        progress: Callable[[int, int | None], None],
        cancelled: threading.Event,
        grew: Callable[[int], None],
    ) -> int:
        """Write the bytes to `target`. Raises `VerificationFailed` for another length than was told."""
        size = self.fetcher.download(
            f"{image.url}/file",
            target,
            most_bytes=self.settings.image.file_bytes,
            headers=self._headers(job),
            progress=progress,
            cancelled=cancelled,
            grew=grew,
        )
        if size != image.size:
            raise VerificationFailed(f"the other service sent {size} bytes of an image that has {image.size}")
        return size

    def _endpoint(self, region: str, interface: str) -> str:
        for service in catalog(self.settings):
            if service.type == SERVICE:
                for endpoint in service.endpoints:
                    if (endpoint.region_id, endpoint.interface) == (region, interface):
                        return endpoint.url
        raise UnknownEndpoint(
            f"the catalog has no {SERVICE} endpoint in region {region!r} for the interface {interface!r}; "
            "openstack catalog show image lists them"
        )

    def _headers(self, job: Job) -> dict[str, str]:
        try:
            return {"X-Auth-Token": token_for(self.db, job.user_id, job.project_id)}
        except Unauthenticated as error:
            raise Invalid("the user who asked for this has no role on the project any more") from error

    def _taken_over(self, url: str, document: Mapping[str, Any]) -> RemoteImage:
        size, formats = document.get("size"), (document.get("disk_format"), document.get("container_format"))
        if document.get("status") != "active" or not isinstance(size, int) or size < 0:
            raise FetchFailed("the image of the other service is not active; import it when it is")
        if formats[0] not in attributes.DISK_FORMATS or formats[1] not in attributes.CONTAINER_FORMATS:
            raise FetchFailed("the image of the other service has formats that are not known here")
        told = {"md5": document.get("checksum")}
        if document.get("os_hash_algo") in HASHES:
            told[document["os_hash_algo"]] = document.get("os_hash_value")
        return RemoteImage(
            url=url,
            size=size,
            disk_format=str(formats[0]),
            container_format=str(formats[1]),
            properties=_properties(document, self.settings.imagev2.downloaded_properties),
            digests={name: value.lower() for name, value in told.items() if isinstance(value, str)},
        )


def trusted_endpoints(settings: Settings) -> frozenset[str]:
    """The catalog's Image services, as `host:port`."""
    urls = [urlsplit(e.url) for service in catalog(settings) if service.type == SERVICE for e in service.endpoints]
    return frozenset(f"{_host(url)}:{url.port or (443 if url.scheme == 'https' else 80)}" for url in urls)


def _host(url: SplitResult) -> str:
    host = url.hostname or ""
    return f"[{host}]" if ":" in host else host


def _properties(document: Mapping[str, Any], beginnings: tuple[str, ...]) -> dict[str, str]:
    """Those that the settings name and that an owner could set here; what could not be is left out."""
    taken = {}
    for name, value in document.items():
        if not name.startswith(beginnings) or name in attributes.BASE:
            continue
        try:
            attributes.may_set(name, is_admin=False)
            taken[name] = attributes.property_value(name, value)
        except (Invalid, ReadOnlyAttribute):
            continue
    return taken


def _document(chunks: Any) -> Mapping[str, Any]:
    parts, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > MOST_DOCUMENT_BYTES:
            raise FetchFailed("the other service describes the image at too great length")
        parts.append(chunk)
    try:
        return msgspec.json.decode(b"".join(parts), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise FetchFailed("the other service does not describe the image as an Image service does") from error
