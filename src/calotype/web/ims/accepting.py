"""How the calls that start jobs answer, and what their routes have in common: above all that one which is sent again
under the same key starts nothing again."""

import hashlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import Invalid, RequestRepeated
from calotype.identity.model import RequestKey
from calotype.jobs.model import JobId
from calotype.web.described import Accepted
from calotype.web.request import app_of, body_bytes, caller, json
from calotype.web.route import Handler, Parameter, Permission, Route

KEY_HEADERS: Final = ("Idempotency-Key", "X-Client-Token")
KEY: Final = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")
KEYED: Final = tuple(
    Parameter(
        name=name,
        where="header",
        schema={"type": "string", "minLength": 1, "maxLength": 255},
        summary="a name for this request: sent again under it within 7 days, it gives the same job",
    )
    for name in KEY_HEADERS
)


def accepted(job_id: JobId) -> Response:
    """200, not 202: a client of this API takes 202 for an error."""
    return json({"job_id": job_id})


def route(
    method: str,
    path: str,
    handler: Handler,
    permission: Permission,
    summary: str,
    takes: Any,
    also: tuple[int, ...] = (429,),
) -> Route:
    return Route(
        method=method,
        path=path,
        handler=once(handler),
        family="ims",
        permission=permission,
        summary=summary,
        reads=KEYED,
        takes=takes,
        gives=Accepted,
        also=(*also, 422),
    )


def once(handler: Handler) -> Handler:
    """What answers a request that is sent again under the same key with the job that it began."""

    async def answered(request: Request) -> Response:
        name = _key(request)
        if name is None:
            return await handler(request)
        raw = await body_bytes(request)
        key = RequestKey(key=name, fingerprint=_fingerprint(request, raw))
        jobs, who = app_of(request).jobs, caller(request)
        before = await jobs.accepted_before(who, key)
        if before is None:
            request.state.caller = replace(who, request_key=key)
            try:
                return await handler(Request(request.scope, _again(raw, request.receive)))
            except RequestRepeated:  # it was being accepted at the same time
                before = await jobs.accepted_before(who, key)
                if before is None:
                    raise
        return json({"job_id": before}, headers={"Idempotent-Replayed": "true"})

    return answered


def _key(request: Request) -> str | None:
    """The one that the request has, without the quotes that the draft of IETF's writes. Raises `Invalid`."""
    given = {value for name in KEY_HEADERS for value in request.headers.getlist(name)}
    if not given:
        return None
    if len(given) > 1:
        raise Invalid(f"{' and '.join(KEY_HEADERS)}: one key, not several")
    key = given.pop()
    if len(key) > 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not KEY.fullmatch(key):
        raise Invalid("an idempotency key has 1 to 255 visible characters of ASCII")
    return key


def _fingerprint(request: Request, raw: bytes) -> str:
    asked = hashlib.blake2b(digest_size=32)
    for part in (request.method.encode(), request.url.path.encode(), request.url.query.encode(), raw):
        asked.update(len(part).to_bytes(8, "big") + part)
    return asked.hexdigest()


def _again(raw: bytes, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> Any:
    """The body that was read, once more; then what comes after it."""
    pieces = [{"type": "http.request", "body": raw, "more_body": False}]

    async def received() -> MutableMapping[str, Any]:
        return pieces.pop() if pieces else await receive()

    return received
