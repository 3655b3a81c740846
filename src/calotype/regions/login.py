"""Logging in to a region: a token for a password, or each request signed with an access key."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import quote

import httpx
import msgspec

from calotype.errors import RegionFailed
from calotype.identity.signatures import (
    ALGORITHM,
    CONTENT,
    DATE,
    EMPTY,
    UNSIGNED,
    Authorization,
    Dialect,
    Message,
    canonical_requests,
    signing_key,
    string_to_sign,
)
from calotype.regions.wire import Answer, Wire
from calotype.settings import RegionSettings

OK: Final = 200
CREATED: Final = 201
REFUSED: Final = (401, 403)
PROJECT: Final = "x-project-id"


class Login(Protocol):
    """What makes requests to a region those of one project there. Two real ones: `PasswordLogin`, `KeyLogin`."""

    async def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """Headers that the request needs; logs in where that is still to be done. `body`: None for one that is not
        known beforehand. Raises `RegionFailed` when the login is refused, `RegionUnavailable`."""
        ...

    def forget(self) -> bool:
        """Drop what the region no longer takes; whether another login may help."""
        ...


def login(settings: RegionSettings, project: str, wire: Wire) -> Login:
    auth_url = (settings.auth_url or f"{settings.url.rstrip('/')}/identity/v3").rstrip("/")
    kind = KeyLogin if settings.access_key else PasswordLogin
    return kind(settings, auth_url, project, wire)


class PasswordLogin:
    def __init__(self, settings: RegionSettings, auth_url: str, project: str, wire: Wire) -> None:
        self._settings = settings
        self._url = f"{auth_url}/auth/tokens"
        self._project = project
        self._wire = wire
        self._token: str | None = None

    async def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        if self._token is None:
            self._token = await self._log_in()
        return {"x-auth-token": self._token}

    def forget(self) -> bool:
        self._token = None
        return True

    async def _log_in(self) -> str:
        who = {
            "name": self._settings.user,
            "domain": {"name": self._settings.user_domain},
            "password": self._settings.password,
        }
        scope = {"project": {"name": self._project, "domain": {"name": self._settings.project_domain}}}
        asked = {"auth": {"identity": {"methods": ["password"], "password": {"user": who}}, "scope": scope}}
        answer = await self._wire.exchange(
            "POST",
            self._url,
            headers={"content-type": "application/json"},
            content=msgspec.json.encode(asked),
        )
        token = answer.headers.get("x-subject-token")
        if answer.status != CREATED or not token:
            raise _refused(answer, self._project)
        return token


class KeyLogin:
    """In the dialect of the vendor's SDKs. A body that comes in pieces is not signed, as the dialect has it."""

    def __init__(self, settings: RegionSettings, auth_url: str, project: str, wire: Wire) -> None:
        self._settings = settings
        self._auth_url = auth_url
        self._project = project
        self._wire = wire
        self._project_id: str | None = None

    async def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        if self._project_id is None:
            self._project_id = await self._find_project()
        return self._signed(method, url, body, {PROJECT: self._project_id})

    def forget(self) -> bool:
        return False

    async def _find_project(self) -> str:
        url = f"{self._auth_url}/projects?name={quote(self._project, safe='')}"
        answer = await self._wire.exchange("GET", url, headers=self._signed("GET", url, b"", {}))
        if answer.status != OK:
            raise _refused(answer, self._project)
        found = answer.document().get("projects")
        ids = [one.get("id") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        if len(ids) != 1 or not isinstance(ids[0], str):
            raise RegionFailed(f"region {answer.region} has no project {self._project} for the access key")
        return ids[0]

    def _signed(self, method: str, url: str, body: bytes | None, more: Mapping[str, str]) -> dict[str, str]:
        parsed = httpx.URL(url)
        date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": parsed.netloc.decode(), DATE: date, **more}
        if body is None:
            headers[CONTENT] = UNSIGNED
        given = Authorization(
            dialect=Dialect.ACCESS,
            access=self._settings.access_key,
            scope="",
            signed=tuple(sorted(headers)),
            signature="",
            date=date,
        )
        path, _, query = parsed.raw_path.decode("ascii").partition("?")
        message = Message(method=method, path=path, query=query, headers=[*headers.items()])
        hashed = UNSIGNED if body is None else hashlib.sha256(body).hexdigest() if body else EMPTY
        text = string_to_sign(given, next(canonical_requests(given, message, hashed)))
        signature = hmac.new(signing_key(self._settings.secret_key, given), text.encode(), hashlib.sha256).hexdigest()
        names = ";".join(given.signed)
        headers["authorization"] = f"{ALGORITHM} Access={given.access}, SignedHeaders={names}, Signature={signature}"
        return headers


def _refused(answer: Answer, project: str) -> RegionFailed:
    if answer.status in REFUSED:
        return RegionFailed(
            f"region {answer.region} does not take the login that this service has for its project {project} "
            f"({answer.status})"
        )
    return RegionFailed(f"region {answer.region} does not log this service in: {answer.said}")
