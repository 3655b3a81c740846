"""The image service of another region, as one project there sees it: the few calls that a copy needs."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
import structlog

from calotype.errors import RegionFailed, RegionUnavailable
from calotype.regions.destination import Destination
from calotype.regions.login import login
from calotype.regions.wire import Answer, Wire
from calotype.settings import RegionSettings, Settings, WrongSetting

log = structlog.get_logger()
T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.5  # between tries; doubles each time
LONGEST_PAUSE_S: Final = 15.0
UNAUTHORIZED: Final = 401
GONE: Final = (404, 410)
BUSY: Final = 409
PATCH: Final = "application/openstack-images-v2.1-json-patch"
# Algorithms as RFC 9530 calls them.
DIGEST_NAMES: Final[Mapping[str, str]] = {"sha512": "sha-512", "sha256": "sha-256", "md5": "md5"}


class Regions:
    """The regions of the settings. Raises `WrongSetting` for a file of certificates that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.regions
        self._tls = {name: _tls(name, region) for name, region in settings.regions.items()}

    @asynccontextmanager
    async def opened(self, where: Destination) -> AsyncIterator["Region"]:
        """Nothing is sent before the first call. Raises `RegionFailed` for a region that is set up no longer."""
        settings = self._settings.get(where.region)
        if settings is None or where.project not in settings.projects:
            raise RegionFailed(f"project {where.project} of region {where.region} is no longer set up to copy to")
        wire = Wire(where.region, self._tls[where.region], settings.timeout_s)
        try:
            yield Region(where, settings, wire)
        finally:
            await wire.close()


class Region:
    """All calls raise `RegionUnavailable` for what may pass, and `RegionFailed` for what the region refuses."""

    def __init__(self, where: Destination, settings: RegionSettings, wire: Wire) -> None:
        self.name = where.region
        self.project = where.project
        self._root = settings.url.rstrip("/")
        self.patience_s = settings.patience_s
        self._wire = wire
        self._login = login(settings, where.project, wire)
        self.asked = False  # whether it was asked to make anything

    async def patiently(self, work: Callable[[], Awaitable[T]], *, within_s: float | None = None) -> T:
        """What `work` returns, tried again while the region is away, for `patience_s`, or `within_s` if less."""
        patience_s = self.patience_s if within_s is None else min(within_s, self.patience_s)
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + patience_s, FIRST_PAUSE_S
        while True:
            try:
                return await work()
            except RegionUnavailable as error:
                if loop.time() + pause > end:
                    raise RegionFailed(f"{error.message}; tried again for {patience_s:g} seconds") from error
                log.info("region_tried_again", region=self.name, reason=error.message)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def create(self, document: Mapping[str, Any]) -> Answer:
        """Ask for an image. The answer as it is: the caller knows what a refusal means."""
        return await self._call("POST", "/v2/images", document)

    async def show(self, image_id: str) -> Mapping[str, Any] | None:
        """None where there is no such image, or none any more."""
        answer = await self._call("GET", f"/v2/images/{image_id}")
        if answer.status in GONE:
            return None
        self._accept(answer, "show the image")
        return answer.document()

    async def upload(self, image_id: str, chunks: AsyncIterable[bytes], size: int, digests: Mapping[str, str]) -> None:
        """Send the bytes of a queued image. `digests`: algorithm -> hex; a service that knows Content-Digest compares
        them before it makes the image active."""
        url = self._url(f"/v2/images/{image_id}/file")
        headers = {
            "content-type": "application/octet-stream",
            "content-digest": content_digest(digests),
            **await self._login.headers("PUT", url, None),
        }
        answer = await self._wire.send(url, chunks, size, headers=headers)
        if answer.status == UNAUTHORIZED and self._login.forget():
            raise RegionUnavailable(f"region {self.name} no longer takes the token")
        if answer.status in (*GONE, BUSY):  # deleted there, or not queued: another image has to be made
            raise RegionUnavailable(f"region {self.name} does not take the bytes: {answer.said}")
        self._accept(answer, "take the bytes")

    async def change(self, image_id: str, operations: Sequence[Mapping[str, Any]]) -> None:
        answer = await self._call("PATCH", f"/v2/images/{image_id}", operations, media_type=PATCH)
        self._accept(answer, "change the image")

    async def delete(self, image_id: str) -> None:
        """Gone already is as good."""
        answer = await self._call("DELETE", f"/v2/images/{image_id}")
        if answer.status == BUSY:
            raise RegionUnavailable(f"region {self.name} does not delete the image now: {answer.said}")
        if answer.status not in GONE:
            self._accept(answer, "delete the image")

    async def _call(
        self, method: str, path: str, document: object = None, *, media_type: str = "application/json"
    ) -> Answer:
        url, body = self._url(path), b"" if document is None else msgspec.json.encode(document)
        for _ in range(2):
            headers = dict(await self._login.headers(method, url, body))
            if body:
                headers["content-type"] = media_type
            self.asked = self.asked or method == "POST"
            answer = await self._wire.exchange(method, url, headers=headers, content=body)
            if answer.status != UNAUTHORIZED or not self._login.forget():
                break
        return answer

    def _url(self, path: str) -> str:
        return f"{self._root}{path}"

    def _accept(self, answer: Answer, what: str) -> None:
        if not 200 <= answer.status < 300:
            raise RegionFailed(f"region {self.name} does not {what}: {answer.said}")


def content_digest(digests: Mapping[str, str]) -> str:
    """The header Content-Digest (RFC 9530) of algorithms and hexadecimal digests; unknown algorithms are left out."""
    known = {DIGEST_NAMES[name]: bytes.fromhex(value) for name, value in digests.items() if name in DIGEST_NAMES}
    return ", ".join(f"{name}=:{base64.b64encode(value).decode()}:" for name, value in known.items())


def _tls(name: str, region: RegionSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if region.ca_file:
            context.load_verify_locations(cafile=region.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise WrongSetting(f"regions.{name}.ca_file: cannot be read as certificates in PEM") from error
    return context
