"""Namespaces of metadata definitions: list, create, show, replace, delete."""

from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter
from calotype.metadefs.forms import NamespaceForm
from calotype.metadefs.model import NamespaceQuery, NamespaceSortKey, Visibility
from calotype.web.imagev2.metadefs.entry import (
    NAMESPACE,
    NAMESPACES,
    document,
    here,
    limit,
    link,
    one_of,
    reading,
    sorting,
    word,
    writing,
)
from calotype.web.imagev2.metadefs.view import NamespacesView, NamespaceView, content_view, namespace_view
from calotype.web.imagev2.versions import base_url
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

MOST_RESOURCE_TYPES: Final = 100  # that a list can be asked for at once


async def list_namespaces(request: Request) -> Response:
    page = await app_of(request).metadefs.list(caller(request), _query(request))
    told: dict[str, Any] = {
        "namespaces": [content_view(content) for content in page.namespaces],
        "schema": "/v2/schemas/metadefs/namespaces",
        "first": link(NAMESPACES, request),
    }
    if page.next_marker is not None:
        told["next"] = link(NAMESPACES, request, page.next_marker)
    return json(told)


async def create_namespace(request: Request) -> Response:
    form = await document(request, NamespaceForm)
    content = await app_of(request).metadefs.create(caller(request), form)
    location = f"{base_url(request)}{here(content.namespace.name)}"
    return json(content_view(content), status=201, headers={"Location": location})


async def show_namespace(request: Request) -> Response:
    content = await app_of(request).metadefs.get(caller(request), request.path_params["namespace"])
    return json(content_view(content, resource_type=request.query_params.get("resource_type")))


async def replace_namespace(request: Request) -> Response:
    """What is in it stays; the answer is without, as upstream's."""
    form = await document(request, NamespaceForm)
    namespace = await app_of(request).metadefs.update(caller(request), request.path_params["namespace"], form)
    return json(namespace_view(namespace))


async def delete_namespace(request: Request) -> Response:
    await app_of(request).metadefs.delete(caller(request), request.path_params["namespace"])
    return Response(status_code=204)


def _query(request: Request) -> NamespaceQuery:
    """Other parameters count for nothing. Raises `BadFilter`."""
    asked: dict[str, Any] = {}
    for name, value in request.query_params.items():
        match name:
            case "limit":
                asked["limit"] = limit(value)
            case "marker":
                asked["marker"] = value
            case "sort_key":
                asked["sort_key"] = word(name, value, get_args(NamespaceSortKey))
            case "sort_dir":
                asked["descending"] = word(name, value, ("asc", "desc")) == "desc"
            case "visibility":
                asked["visibility"] = Visibility(word(name, value, Visibility))
            case "protected":
                asked["protected"] = word(name, value.lower(), ("true", "false")) == "true"
            case "resource_types":
                asked["resource_types"] = _resource_types(value)
            case _:
                pass
    return NamespaceQuery(**asked)


def _resource_types(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if len(names) > MOST_RESOURCE_TYPES:
        raise BadFilter(f"resource_types: at most {MOST_RESOURCE_TYPES} at once")
    return tuple(name for name in names if "\x00" not in name)  # which no resource type has


_LISTING: Final = (
    *sorting(NamespaceSortKey),
    one_of("visibility", Visibility),
    one_of("protected", ("true", "false")),
    Parameter(name="resource_types", summary="names, with commas between them"),
)
_OF_RESOURCE: Final = (Parameter(name="resource_type", summary="show properties under the names they have there"),)

ROUTES: Final[list[Route]] = [
    reading(
        path=NAMESPACES,
        handler=list_namespaces,
        summary="List namespaces of metadata definitions",
        reads=_LISTING,
        gives=NamespacesView,
        also=(404,),
    ),
    writing(
        method="POST",
        path=NAMESPACES,
        handler=create_namespace,
        summary="Create a namespace, with what is in it",
        takes=NamespaceForm,
        gives=NamespaceView,
        status=201,
    ),
    reading(
        path=NAMESPACE,
        handler=show_namespace,
        summary="Show a namespace with all that is in it",
        reads=_OF_RESOURCE,
        gives=NamespaceView,
    ),
    writing(
        method="PUT",
        path=NAMESPACE,
        handler=replace_namespace,
        summary="Replace what a namespace says of itself",
        takes=NamespaceForm,
        gives=NamespaceView,
    ),
    writing(
        method="DELETE",
        path=NAMESPACE,
        handler=delete_namespace,
        summary="Delete a namespace with all that is in it",
        status=204,
    ),
]
