"""The stores: which there are, and taking an image out of one."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.blobs.stores import Stores
from calotype.web.request import app_of, caller, json
from calotype.web.route import Route

_YES: Final = {"type": "string", "enum": ["true"]}
_STORE: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "description": {"type": "string"},
        "default": _YES,
        "read-only": _YES,
        "weight": {"type": "integer"},
        "type": {"type": "string"},
        "properties": {"type": "object"},
    },
    "required": ["id"],
}


def _page(title: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": {"stores": {"type": "array", "items": _STORE}},
        "required": ["stores"],
    }


async def list_stores(request: Request) -> Response:
    return json({"stores": [_view(app_of(request).blobs, name) for name in app_of(request).blobs.ids]})


async def list_details(request: Request) -> Response:
    stores = app_of(request).blobs
    return json({"stores": [_view(stores, name) | _details(stores, name) for name in stores.ids]})


def _view(stores: Stores, name: str) -> dict[str, Any]:
    """Without a key where it does not apply: upstream's clients look whether it is there."""
    store = stores.configured[name]
    view: dict[str, Any] = {"id": name, "weight": store.weight}
    if store.description:
        view["description"] = store.description
    if name == stores.default:
        view["default"] = "true"
    if name in stores.remote:
        view["read-only"] = "true"
    return view


def _details(stores: Stores, name: str) -> dict[str, Any]:
    """Types by upstream's names."""
    if name in stores.remote:
        return {"type": "http", "properties": {}}
    return {"type": "file", "properties": {"data_dir": str(stores.folder_of(name)), "thin_provisioning": True}}


async def drop_image(request: Request) -> Response:
    parameters = request.path_params
    await app_of(request).locations.drop(caller(request), parameters["store_id"], parameters["image_id"])
    return Response(status_code=204)


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v2/info/stores",
        handler=list_stores,
        family="imagev2",
        permission="ims:images:get",
        summary="List the stores, the heaviest first",
        gives=_page("Stores"),
    ),
    Route(
        method="GET",
        path="/v2/info/stores/detail",
        handler=list_details,
        family="imagev2",
        permission="imagev2:stores:detail",
        summary="List the stores with what only an admin is to know",
        gives=_page("StoresDetail"),
    ),
    Route(
        method="DELETE",
        path="/v2/stores/{store_id}/{image_id}",
        handler=drop_image,
        family="imagev2",
        permission="imagev2:stores:drop",
        summary="Remove an image's data from one store",
        status=204,
    ),
]
