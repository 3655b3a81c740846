"""Tags of a namespace: words that resources may be marked with."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody
from calotype.metadefs.forms import LONGEST_NAME, TagForm, TagsForm, is_name
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
from calotype.web.imagev2.metadefs.view import TagsView, TagView, tag_view
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

ALL: Final = f"{NAMESPACE}/tags"
ONE: Final = f"{NAMESPACE}/tags/{{tag_name:path}}"
APPEND: Final = "X-Openstack-Append"
TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})  # what upstream takes for true


async def list_tags(request: Request) -> Response:
    metadefs, namespace = app_of(request).metadefs, request.path_params["namespace"]
    page = await metadefs.definitions(caller(request), namespace, Kind.TAG, definition_query(request))
    told: dict[str, Any] = {"tags": [{"name": each.name} for each in page.definitions]}
    if page.next_marker is not None:
        told["next"] = link(here(namespace, "tags"), request, page.next_marker)
    return json(told)


async def create_tags(request: Request) -> Response:
    """In place of those that are there; beside them with `X-Openstack-Append: true`."""
    form = await document(request, TagsForm)
    names = [tag.name for tag in form.tags]
    append = request.headers.get(APPEND, "").strip().lower() in TRUE
    await app_of(request).metadefs.add_tags(caller(request), request.path_params["namespace"], names, append=append)
    return json({"tags": [{"name": name} for name in names]}, status=201)


async def create_tag(request: Request) -> Response:
    namespace, kind, name = _named(request)
    if not is_name(name):
        raise MalformedBody(f"the name of a tag wants 1 to {LONGEST_NAME} characters, none a control character")
    made = await app_of(request).metadefs.add(caller(request), namespace, kind, name, {})
    return json(tag_view(made), status=201)


async def show_tag(request: Request) -> Response:
    return json(tag_view(await app_of(request).metadefs.definition(caller(request), *_named(request))))


async def rename_tag(request: Request) -> Response:
    form = await document(request, TagForm)
    made = await app_of(request).metadefs.replace(caller(request), *_named(request), form.name, {})
    return json(tag_view(made))


async def delete_tag(request: Request) -> Response:
    await app_of(request).metadefs.remove(caller(request), *_named(request))
    return Response(status_code=204)


async def delete_tags(request: Request) -> Response:
    await app_of(request).metadefs.clear(caller(request), request.path_params["namespace"], Kind.TAG)
    return Response(status_code=204)


def _named(request: Request) -> tuple[str, Kind, str]:
    return request.path_params["namespace"], Kind.TAG, request.path_params["tag_name"]


_APPENDING: Final = (Parameter(name=APPEND, where="header", summary="true: keep the tags that are there"),)

ROUTES: Final[list[Route]] = [
    reading(
        path=ALL,
        handler=list_tags,
        summary="List the tags of a namespace",
        reads=sorting(DefinitionSortKey),
        gives=TagsView,
    ),
    writing(
        method="POST",
        path=ALL,
        handler=create_tags,
        summary="Put tags in the place of those of a namespace, or add them",
        reads=_APPENDING,
        takes=TagsForm,
        gives=TagsView,
        status=201,
    ),
    writing(method="DELETE", path=ALL, handler=delete_tags, summary="Delete all tags of a namespace", status=204),
    reading(path=ONE, handler=show_tag, summary="Show a tag", gives=TagView),
    writing(method="POST", path=ONE, handler=create_tag, summary="Add a tag to a namespace", gives=TagView, status=201),
    writing(method="PUT", path=ONE, handler=rename_tag, summary="Rename a tag", takes=TagForm, gives=TagView),
    writing(method="DELETE", path=ONE, handler=delete_tag, summary="Delete a tag", status=204),
]
