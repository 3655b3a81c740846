"""Properties of a namespace: schemas of single values."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.metadefs.forms import NamedPropertyForm, property_document
from calotype.metadefs.model import DefinitionQuery, Kind
from calotype.web.imagev2.metadefs.entry import NAMESPACE, document, reading, writing
from calotype.web.imagev2.metadefs.view import PropertiesView, properties_view, property_view
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

ALL: Final = f"{NAMESPACE}/properties"
ONE: Final = f"{NAMESPACE}/properties/{{property_name:path}}"
_INSERTED: Final = DefinitionQuery(sort_key="id", descending=False)


async def list_properties(request: Request) -> Response:
    """All of them: a namespace has no more than one page holds."""
    metadefs, namespace = app_of(request).metadefs, request.path_params["namespace"]
    page = await metadefs.definitions(caller(request), namespace, Kind.PROPERTY, _INSERTED)
    return json({"properties": properties_view(page.definitions)})


async def create_property(request: Request) -> Response:
    form = await document(request, NamedPropertyForm)
    metadefs, namespace = app_of(request).metadefs, request.path_params["namespace"]
    made = await metadefs.add(caller(request), namespace, Kind.PROPERTY, form.name, property_document(form))
    return json(property_view(made), status=201)


async def show_property(request: Request) -> Response:
    metadefs, (namespace, name) = app_of(request).metadefs, _named(request)
    resource_type = request.query_params.get("resource_type")
    if resource_type:
        found = await metadefs.prefixed_property(caller(request), namespace, name, resource_type)
    else:
        found = await metadefs.definition(caller(request), namespace, Kind.PROPERTY, name)
    return json(property_view(found))


async def replace_property(request: Request) -> Response:
    form = await document(request, NamedPropertyForm)
    new = (form.name, property_document(form))
    made = await app_of(request).metadefs.replace(caller(request), *_of_kind(request), *new)
    return json(property_view(made))


async def delete_property(request: Request) -> Response:
    await app_of(request).metadefs.remove(caller(request), *_of_kind(request))
    return Response(status_code=204)


async def delete_properties(request: Request) -> Response:
    await app_of(request).metadefs.clear(caller(request), request.path_params["namespace"], Kind.PROPERTY)
    return Response(status_code=204)


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["namespace"], request.path_params["property_name"]


def _of_kind(request: Request) -> tuple[str, Kind, str]:
    namespace, name = _named(request)
    return namespace, Kind.PROPERTY, name


ROUTES: Final[list[Route]] = [
    reading(path=ALL, handler=list_properties, summary="List the properties of a namespace", gives=PropertiesView),
    writing(
        method="POST",
        path=ALL,
        handler=create_property,
        summary="Add a property to a namespace",
        takes=NamedPropertyForm,
        gives=NamedPropertyForm,
        status=201,
    ),
    writing(
        method="DELETE",
        path=ALL,
        handler=delete_properties,
        summary="Delete all properties of a namespace",
        status=204,
    ),
    reading(
        path=ONE,
        handler=show_property,
        summary="Show a property",
        reads=(Parameter(name="resource_type", summary="the name in the path has the prefix that it has there"),),
        gives=NamedPropertyForm,
    ),
    writing(
        method="PUT",
        path=ONE,
        handler=replace_property,
        summary="Replace a property",
        takes=NamedPropertyForm,
        gives=NamedPropertyForm,
    ),
    writing(method="DELETE", path=ONE, handler=delete_property, summary="Delete a property", status=204),
]
