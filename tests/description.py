"""What the served description says of each answer, for tests that hold answers to it."""

import json
import re
from functools import cache
from typing import Any, Final

import httpx
import jsonschema_rs

from calotype.web import openapi
from calotype.web.app import FAMILY_OF_PREFIX, ROUTES
from calotype.web.route import Route

DOCUMENT: Final = openapi.document(ROUTES)
_PATTERNS: Final = [
    (re.compile(re.sub(r"\\\{\w+(:path)?\\\}", lambda m: ".*" if m[1] else "[^/]+", re.escape(route.path))), route)
    for route in ROUTES
]


def held_to_its_description(answer: httpx.Response) -> None:
    """Fails when an answer has a status, a type of content or a form that the description does not have."""
    method, path = answer.request.method, answer.request.url.path
    answer.read()
    check(method, path, answer.status_code, answer.headers.get("content-type", ""), answer.content)


def check(method: str, path: str, status: int, content_type: str, content: bytes) -> None:
    where = f"{method} {path} answered {status} {content_type} {content[:500]!r}"
    route = route_of(method, path)
    if route is None:
        assert status in (404, 405), where
        error_form(path, status, content_type, content, method=method)
        return
    told = DOCUMENT["paths"][openapi.shown_path(route)][method.lower()]["responses"].get(str(status))
    assert told is not None, f"{where}: the description has no such status"
    offered = told.get("content")
    if offered is None:
        assert content == b"", where
        return
    media_type = content_type.partition(";")[0]
    assert media_type in offered, where
    if media_type == openapi.JSON and method != "HEAD":
        _valid(route.method, openapi.shown_path(route), str(status)).validate(json.loads(content))


def route_of(method: str, path: str) -> Route | None:
    """The route that answers, by the order of the table; None where the method or the path is not there."""
    template = next((route.path for pattern, route in _PATTERNS if pattern.fullmatch(path)), None)
    return next((route for route in ROUTES if route.path == template and route.method == method), None)


def error_form(path: str, status: int, content_type: str, content: bytes, *, method: str = "GET") -> None:
    """Fails when an error is not told in the form of the API that the path belongs to."""
    if method == "HEAD":
        assert content == b""
        return
    where = f"{method} {path} answered {status} {content_type} {content[:500]!r}"
    assert content_type == openapi.JSON, where
    found = next((family for prefix, family in FAMILY_OF_PREFIX if path.startswith(prefix)), "imagev2")
    told = json.loads(content)
    if found == "ims" and status == 401:
        assert set(told) == {"error_code", "error_msg", "request_id"}, where
        return
    assert set(told) == {"error"}, where
    if found in ("imagev2", "identity"):
        assert told["error"]["code"] == status, where
        assert told["error"]["title"], where
    assert told["error"]["message"], where


@cache
def _valid(method: str, path: str, status: str) -> jsonschema_rs.Validator:
    schema: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]["responses"][status]["content"][openapi.JSON]
    return jsonschema_rs.Draft202012Validator({**schema["schema"], "components": DOCUMENT["components"]})
