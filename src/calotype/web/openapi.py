"""The description of every route for programs: OpenAPI 3.1, made of the one route table and served without a token."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype import VERSION
from calotype.identity.permissions import OneOf
from calotype.settings import BUCKET_NAME
from calotype.web import described
from calotype.web.request import app_of
from calotype.web.route import Media, Parameter, Route

PATH: Final = "/calotype/v1/openapi.json"
TITLES: Final[Mapping[str, str]] = {
    "ims": "The IMS API: images from files, and the jobs that make them",
    "imagev2": "The OpenStack Image API v2",
    "identity": "Keystone's Identity API v3",
    "native": "Calotype's own: health, buckets, jobs, this description",
}
JSON: Final = "application/json"
BYTES: Final[Mapping[str, str]] = {"type": "string", "format": "binary"}
COMPONENT: Final = "#/components/schemas/{name}"
ERRORS: Final[Mapping[str, Any]] = {
    "ims": described.ImsError,
    "imagev2": described.TitledError,
    "identity": described.TitledError,
    "native": described.NativeError,
}
_HEX: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_UUID: Final = {"type": "string", "format": "uuid"}
# Of parameters in a path, by their names; one that is not here is any text.
IN_PATH: Final[Mapping[str, Mapping[str, Any]]] = {
    "project_id": _HEX,
    "job_id": _HEX,
    "image_id": _UUID,
    "task_id": _UUID,
    "bucket": {"type": "string", "pattern": f"^{BUCKET_NAME}$"},
    "tag": {"type": "string", "minLength": 1, "maxLength": 255},
    "member_id": {"type": "string", "minLength": 1, "maxLength": 255},
}
_IN_PATH: Final = re.compile(r"\{([a-z0-9_]+)(?::path)?\}")
_SAFE: Final = frozenset({"GET", "HEAD"})


def published(table: Sequence[Route]) -> tuple[Route, ...]:
    """The table with the route that tells it, itself included."""

    async def show(request: Request) -> Response:
        text, etag = encoded(app_of(request).settings.http.url.rstrip("/") or "/")
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(text, headers=headers, media_type=JSON)

    @cache
    def encoded(url: str) -> tuple[bytes, str]:
        text = msgspec.json.encode(document(routes, url=url))
        return text, f'"{hashlib.sha256(text).hexdigest()[:32]}"'

    own = Route(
        method="GET",
        path=PATH,
        handler=show,
        family="native",
        permission=None,
        summary="This description of every route, as OpenAPI 3.1",
        reads=(Parameter(name="If-None-Match", where="header", summary="the ETag of the one that is known"),),
        gives={"type": "object"},
        also=(HTTPStatus.NOT_MODIFIED,),
    )
    routes = (*table, own)
    return routes


def document(routes: Iterable[Route], *, url: str = "/") -> dict[str, Any]:
    """The whole description. `url` is the service's root; relative, it is that of where the document was read."""
    routes = tuple(routes)
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(shown_path(route), {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Calotype",
            "version": VERSION,
            "summary": "A self-hosted service for virtual machine images",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": text} for name, text in TITLES.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Auth-Token",
                    "description": "From POST /identity/v3/auth/tokens, in the header X-Subject-Token of the answer",
                }
            },
        },
    }


def shown_path(route: Route) -> str:
    return _IN_PATH.sub(r"{\1}", route.path)


def statuses(route: Route) -> list[int]:
    """What the route may answer; 500 is none of them: that would be a bug."""
    found = {int(route.status), *route.also, HTTPStatus.SERVICE_UNAVAILABLE}
    named = set(_IN_PATH.findall(route.path))
    if route.permission is not None:
        found |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if named:
        found |= {HTTPStatus.NOT_FOUND}
    if named or route.reads or route.takes is not None:
        found |= {HTTPStatus.BAD_REQUEST}
    if route.method not in _SAFE and route.permission is not None:
        found |= {HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
    if route.takes is not None:
        found |= {HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
        if JSON not in _media(route.takes).types:
            found |= {HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
    return sorted(int(status) for status in found)


def _operation(route: Route, schemas: "_Schemas") -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [route.family],
        "summary": route.summary,
        "x-permission": _permissions(route),
    }
    if isinstance(route.permission, OneOf):
        told["x-permission-one-of"] = [*route.permission.actions]
    if route.permission is None:
        told["security"] = []
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": dict(IN_PATH.get(name, {"type": "string"}))}
        for name in _IN_PATH.findall(route.path)
    ]
    parameters += [_parameter(parameter) for parameter in route.reads]
    if parameters:
        told["parameters"] = parameters
    if route.takes is not None:
        media = _media(route.takes)
        told["requestBody"] = {"required": media.required, "content": _content(media, schemas)}
    told["responses"] = {str(status): _answer(route, status, schemas) for status in statuses(route)}
    return told


def _operation_id(route: Route) -> str:
    """Unique, since a path has a method once; a slash at the end of a path counts."""
    words = re.sub(r"[^a-z0-9]+", "_", route.path.lower().replace(":path", "")).strip("_")
    return f"{route.method.lower()}_{words or 'root'}{'_slash' if route.path.endswith('/') and words else ''}"


def _permissions(route: Route) -> list[str]:
    """All that are needed; of those of which one is enough, none is."""
    if isinstance(route.permission, OneOf):
        return []
    given = (route.permission or "",) if isinstance(route.permission, str | None) else route.permission
    return [action for action in dict.fromkeys(given) if action]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"name": parameter.name, "in": parameter.where, "schema": dict(parameter.schema)}
    if parameter.required:
        told["required"] = True
    if parameter.summary:
        told["description"] = parameter.summary
    return told


def _answer(route: Route, status: int, schemas: "_Schemas") -> dict[str, Any]:
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if route.method == "HEAD" or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return told
    if status < HTTPStatus.BAD_REQUEST:
        if route.gives is not None:
            told["content"] = _content(_media(route.gives), schemas)
        return told
    told["content"] = {JSON: {"schema": schemas.of(_error(route, status))}}
    return told


def _error(route: Route, status: int) -> Any:
    if route.family == "ims" and status == HTTPStatus.UNAUTHORIZED:
        return described.ImsRefusal
    return ERRORS[route.family]


def _content(media: Media, schemas: "_Schemas") -> dict[str, Any]:
    schema = BYTES if media.form is None else schemas.of(media.form)
    return {media_type: {"schema": schema} for media_type in media.types}


def _media(form: Any) -> Media:
    return form if isinstance(form, Media) else Media(form=form)


def _anything(kind: type) -> dict[str, Any]:
    """The schema of what msgspec does not know: `object` is any value."""
    if kind is object:
        return {"description": "any value"}
    raise NotImplementedError


class _Schemas:
    """The JSON Schemas of all that the routes take and give, the named ones as components."""

    def __init__(self, routes: Iterable[Route]) -> None:
        forms: list[Any] = [*ERRORS.values(), described.ImsRefusal]
        for route in routes:
            forms += [_media(form).form for form in (route.takes, route.gives) if form is not None]
        types = list(
            {repr(form): form for form in forms if form is not None and not isinstance(form, Mapping)}.values()
        )
        made, self.components = msgspec.json.schema_components(types, schema_hook=_anything, ref_template=COMPONENT)
        self._of_type = {repr(form): schema for form, schema in zip(types, made, strict=True)}

    def of(self, form: Any) -> dict[str, Any]:
        """A type's schema. A JSON Schema with a `title` becomes a component of that name; another stays as it is."""
        if not isinstance(form, Mapping):
            return self._of_type[repr(form)]
        title = form.get("title")
        if title is None:
            return dict(form)
        known = self.components.setdefault(title, dict(form))
        if known != form:
            raise ValueError(f"two schemas have the title {title}")
        return {"$ref": COMPONENT.format(name=title)}
