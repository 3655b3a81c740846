"""Decoding requests and encoding answers: bodies of bounded size, JSON by msgspec."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import EmptyBody, MalformedBody, TooLarge
from calotype.identity.model import Caller

if TYPE_CHECKING:
    from calotype.compose import App

T = TypeVar("T")
MOST_BODY_BYTES: Final = 1024 * 1024  # of a JSON body
MOST_DEPTH: Final = 32


def app_of(request: Request) -> "App":
    return cast("App", request.app.state.calotype)


def caller(request: Request) -> Caller:
    """Who calls; only in handlers of routes that want a token."""
    return cast(Caller, request.state.caller)


async def body_bytes(request: Request, *, most: int = MOST_BODY_BYTES) -> bytes:
    """The whole body, at most `most` bytes. Raises `TooLarge`. Not for image data: that is streamed."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the body is above {most} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def body(request: Request, kind: type[T]) -> T:
    """The JSON body as `kind` (a Struct, `dict[str, Any]`, a list …). Raises `EmptyBody`, `MalformedBody`."""
    return decoded(await body_bytes(request), kind)


def decoded(raw: bytes, kind: type[T]) -> T:
    if not raw.strip():
        raise EmptyBody("the request body is empty; a JSON document is wanted")
    try:
        value = msgspec.json.decode(raw)
        if not _shallow(value, MOST_DEPTH):
            raise MalformedBody(f"the JSON document is nested deeper than {MOST_DEPTH}")
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise MalformedBody(f"the body is not as documented: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON document: {error}") from error


def _shallow(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_shallow(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_shallow(item, depth - 1) for item in value)
    return True


def json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, dict(headers or {}), "application/json")
