"""How errors look on the wire: one table from families to statuses, one form an API. Nothing else names a status."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from calotype import errors as e

log = structlog.get_logger()

STATUS: Final[Mapping[type[e.CalotypeError], HTTPStatus]] = {
    e.Invalid: HTTPStatus.BAD_REQUEST,
    e.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    e.Forbidden: HTTPStatus.FORBIDDEN,
    e.NotFound: HTTPStatus.NOT_FOUND,
    e.Conflict: HTTPStatus.CONFLICT,
    e.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    e.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    e.RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    e.Throttled: HTTPStatus.TOO_MANY_REQUESTS,
    e.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    e.KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
}
RETRY_AFTER_S: Final = "5"


def status_of(error: e.CalotypeError) -> HTTPStatus:
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


@cache
def img_codes() -> Mapping[str, Mapping[str, Any]]:
    """IMS error code -> {status, message}, as the API documents them."""
    text = resources.files("calotype.jobs").joinpath("img_codes.json").read_text()
    codes: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return codes


def answer(family: str, error: e.CalotypeError, request: Request) -> Response:
    status = status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return bug(family, error, request)
    headers = _headers(error, status)
    if isinstance(error, e.Unavailable):
        log.warning("unavailable", code=error.code, reason=error.message)
    if isinstance(error, e.SignatureRefused):
        return _gateway(error, status, headers, request)
    if family == "ims":
        return _ims(error, status, headers, request)
    if family == "native":
        return _json({"error": {"code": error.code, "message": error.message}}, status, headers)
    return _titled(status, error.message, headers)


def method_not_allowed(family: str, allowed: Sequence[str], request: Request) -> Response:
    status = HTTPStatus.METHOD_NOT_ALLOWED
    message = f"{request.method} is not a method of this resource"
    return plain(family, status, message, {"Allow": ", ".join(allowed)})


def plain(family: str, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error that no code of the domain stands behind: no such path, no such method, a bug."""
    if family == "ims":
        code = "IMG.0061" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "IMG.0105"
        return _json({"error": {"code": code, "message": message}}, status, headers)
    if family == "native":
        return _json({"error": {"code": status.name.lower(), "message": message}}, status, headers)
    return _titled(status, message, headers)


def bug(family: str, error: Exception, request: Request) -> Response:
    log.error("unforeseen_error", method=request.method, path=request.url.path, exc_info=error)
    return plain(family, HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the service; its log has the details")


def _headers(error: e.CalotypeError, status: HTTPStatus) -> dict[str, str]:
    headers = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Keystone uri="/identity"'
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = RETRY_AFTER_S
    if isinstance(error, e.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    return headers


def _ims(error: e.CalotypeError, status: HTTPStatus, headers: Mapping[str, str], request: Request) -> Response:
    """Business errors are 400 (403 for a missing permission, 404 for an unknown image in the path); refusals of the
    credential have the gateway's flat form. `message` is the documented one to the letter, `detail` says more."""
    if status is HTTPStatus.UNAUTHORIZED:
        return _gateway(error, status, headers, request)
    documented = img_codes()[error.img]
    if status is not HTTPStatus.SERVICE_UNAVAILABLE:
        status = HTTPStatus(documented["status"])
    if isinstance(error, e.ImageNotFound | e.TagNotFound | e.MemberNotFound):
        status = HTTPStatus.NOT_FOUND
    if isinstance(error, e.KeyReused):  # a header of ours, of which the documented statuses do not speak
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    told = {"code": error.img, "message": documented["message"]}
    if not isinstance(error, e.JobNotFound):
        told["detail"] = error.message
    return _json({"error": told}, status, headers)


def _gateway(error: e.CalotypeError, status: HTTPStatus, headers: Mapping[str, str], request: Request) -> Response:
    flat = {
        "error_msg": f"Incorrect IAM authentication information: {error.message}",
        "error_code": "APIGW.0301",
        "request_id": getattr(request.state, "request_id", ""),
    }
    return _json(flat, status, headers)


def _titled(status: HTTPStatus, message: str, headers: Mapping[str, str] | None) -> Response:
    return _json({"error": {"code": int(status), "message": message, "title": status.phrase}}, status, headers)


def _json(value: Any, status: HTTPStatus, headers: Mapping[str, str] | None) -> Response:
    return Response(msgspec.json.encode(value), int(status), dict(headers or {}), "application/json")
