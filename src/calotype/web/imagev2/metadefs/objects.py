"""Objects of a namespace: properties that belong together."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.metadefs.forms import ObjectForm, object_document
from calotype.metadefs.model import DefinitionSortKey, Kind
from calotype.web.imagev2.metadefs.entry import (
    NAMESPACE,
    definition_query,
    document,
    here,
    link,
    reading,
    sorting,
    writing,
)
from calotype.web.imagev2.metadefs.view import ObjectsView, ObjectView, object_view
from calotype.web.request import app_of, caller, json
from calotype.web.route import Route

ALL: Final = f"{NAMESPACE}/objects"
ONE: Final = f"{NAMESPACE}/objects/{{object_name:path}}"


async def list_objects(request: Request) -> Response:
    metadefs, namespace = app_of(request).metadefs, request.path_params["namespace"]
    page = await metadefs.definitions(caller(request), namespace, Kind.OBJECT, definition_query(request))
    told: dict[str, Any] = {
        "objects": [object_view(namespace, each) for each in page.definitions],
        "schema": "/v2/schemas/metadefs/objects",
    }
    if page.next_marker is not None:
        told["next"] = link(here(namespace, "objects"), request, page.next_marker)
    return json(told)


async def create_object(request: Request) -> Response:
    form = await document(request, ObjectForm)
    metadefs, namespace = app_of(request).metadefs, request.path_params["namespace"]
    made = await metadefs.add(caller(request), namespace, Kind.OBJECT, form.name, object_document(form))
    return json(object_view(namespace, made), status=201)


async def show_object(request: Request) -> Response:
    found = await app_of(request).metadefs.definition(caller(request), *_named(request))
    return json(object_view(request.path_params["namespace"], found))


async def replace_object(request: Request) -> Response:
    form = await document(request, ObjectForm)
    new = (form.name, object_document(form))
    made = await app_of(request).metadefs.replace(caller(request), *_named(request), *new)
    return json(object_view(request.path_params["namespace"], made))


async def delete_object(request: Request) -> Response:
    await app_of(request).metadefs.remove(caller(request), *_named(request))
    return Response(status_code=204)


async def delete_objects(request: Request) -> Response:
    await app_of(request).metadefs.clear(caller(request), request.path_params["namespace"], Kind.OBJECT)
    return Response(status_code=204)


def _named(request: Request) -> tuple[str, Kind, str]:
    return request.path_params["namespace"], Kind.OBJECT, request.path_params["object_name"]


ROUTES: Final[list[Route]] = [
    reading(
        path=ALL,
        handler=list_objects,
        summary="List the objects of a namespace",
        reads=sorting(DefinitionSortKey),
        gives=ObjectsView,
    ),
    writing(
        method="POST",
        path=ALL,
        handler=create_object,
        summary="Add an object to a namespace",
        takes=ObjectForm,
        gives=ObjectView,
        status=201,
    ),
    writing(method="DELETE", path=ALL, handler=delete_objects, summary="Delete all objects of a namespace", status=204),
    reading(path=ONE, handler=show_object, summary="Show an object", gives=ObjectView),
    writing(
        method="PUT",
        path=ONE,
        handler=replace_object,
        summary="Replace an object",
        takes=ObjectForm,
        gives=ObjectView,
    ),
    writing(method="DELETE", path=ONE, handler=delete_object, summary="Delete an object", status=204),
]
