"""Resource types, and which of them a namespace is associated with."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.metadefs.forms import AssociationForm
from calotype.web.imagev2.metadefs.entry import NAMESPACE, document, reading, writing
from calotype.web.imagev2.metadefs.view import (
    AssociationsView,
    AssociationView,
    ResourceTypesView,
    association_view,
    resource_type_view,
)
from calotype.web.request import app_of, caller, json
from calotype.web.route import Route

KNOWN: Final = "/v2/metadefs/resource_types"
ALL: Final = f"{NAMESPACE}/resource_types"
ONE: Final = f"{NAMESPACE}/resource_types/{{resource_type:path}}"


async def list_resource_types(request: Request) -> Response:
    known = await app_of(request).metadefs.resource_types()
    return json({"resource_types": [resource_type_view(each) for each in known]})


async def list_associations(request: Request) -> Response:
    found = await app_of(request).metadefs.associations(caller(request), request.path_params["namespace"])
    return json({"resource_type_associations": [association_view(each) for each in found]})


async def associate(request: Request) -> Response:
    form = await document(request, AssociationForm)
    made = await app_of(request).metadefs.associate(caller(request), request.path_params["namespace"], form)
    return json(association_view(made), status=201)


async def dissociate(request: Request) -> Response:
    params = request.path_params
    await app_of(request).metadefs.dissociate(caller(request), params["namespace"], params["resource_type"])
    return Response(status_code=204)


ROUTES: Final[list[Route]] = [
    reading(path=KNOWN, handler=list_resource_types, summary="List resource types", gives=ResourceTypesView),
    reading(
        path=ALL,
        handler=list_associations,
        summary="List the resource types of a namespace",
        gives=AssociationsView,
    ),
    writing(
        method="POST",
        path=ALL,
        handler=associate,
        summary="Associate a namespace with a resource type",
        takes=AssociationForm,
        gives=AssociationView,
        status=201,
    ),
    writing(
        method="DELETE",
        path=ONE,
        handler=dissociate,
        summary="End an association with a resource type",
        status=204,
    ),
]
