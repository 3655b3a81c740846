"""Interoperable image import: which methods there are, and asking for one. The work is a job."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody
from calotype.jobs.kinds.imports import COPY, OTHER, STAGED, URL, ImportRequest
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Parameter, Route

STORE_HEADER: Final = "x-image-meta-store"
LONGEST: Final = 2048  # characters of a URL
LONGEST_NAME: Final = 255  # characters of a store, a region or an interface
MOST_STORES: Final = 64

METHODS: Final = {
    "title": "ImportMethods",
    "type": "object",
    "properties": {
        "import-methods": {
            "type": "object",
            "properties": {
                "description": {"type": "string"},
                "type": {"const": "array"},
                "value": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["description", "type", "value"],
        }
    },
    "required": ["import-methods"],
}
_NAME: Final = {"type": "string", "maxLength": LONGEST_NAME}
IMPORT: Final = {
    "title": "Import",
    "type": "object",
    "properties": {
        "method": {
            "type": "object",
            "properties": {
                "name": {"enum": [STAGED, URL, COPY, OTHER]},
                "uri": {"type": "string", "maxLength": LONGEST},
                "glance_image_id": {"type": "string"},
                "glance_region": _NAME,
                "glance_service_interface": _NAME,
            },
            "required": ["name"],
        },
        "stores": {"type": "array", "items": _NAME, "maxItems": MOST_STORES},
        "all_stores": {"type": "boolean"},
        "all_stores_must_succeed": {"type": "boolean"},
    },
    "required": ["method"],
}


async def show_methods(request: Request) -> Response:
    methods = list(app_of(request).imports.methods)
    told = {"description": "How the data of an image can be imported here", "type": "array", "value": methods}
    return json({"import-methods": told})


async def import_image(request: Request) -> Response:
    imports = app_of(request).imports
    wanted = asked(await body(request, dict[str, Any]), request.headers.get(STORE_HEADER), imports.methods)
    image_id = request.path_params["image_id"]
    await imports.submit(caller(request), image_id, wanted, request_id=request_id(request))
    return Response(status_code=202)


def request_id(request: Request) -> str:
    """As the answer's header `x-openstack-request-id` has it."""
    return f"req-{UUID(hex=request.state.request_id)}"


def asked(document: Mapping[str, Any], store: str | None, methods: tuple[str, ...]) -> ImportRequest:
    """What a body asks for; `store` is the header that names one. Raises `MalformedBody`."""
    stores = document.get("stores")
    all_stores = _flag(document, "all_stores", default=False)
    if all_stores and ("stores" in document or store is not None):
        raise MalformedBody(f"all_stores cannot be used with stores or the header {STORE_HEADER}")
    if "stores" in document and store is not None:
        raise MalformedBody(f"stores and the header {STORE_HEADER} cannot both be given")
    if store is not None:
        stores = [store]
    elif "stores" in document and (not isinstance(stores, list) or not stores or len(stores) > MOST_STORES):
        raise MalformedBody("stores: wants an array of names of stores")
    return ImportRequest(
        method=_method(document.get("method"), methods),
        stores=None if stores is None else tuple(_text("stores", name, LONGEST_NAME) for name in stores),
        all_stores=all_stores,
        all_stores_must_succeed=_flag(document, "all_stores_must_succeed", default=True),
    )


def _method(given: object, methods: tuple[str, ...]) -> dict[str, str]:
    if not isinstance(given, dict):
        raise MalformedBody("an import request wants a 'method' field, an object")
    if "name" not in given:
        raise MalformedBody("an import request wants a 'name' field in 'method'")
    name = _text("name", given["name"], LONGEST_NAME)
    if name not in methods:
        raise MalformedBody(f"unknown import method name '{name}'; there are {', '.join(methods) or 'none'}")
    if name == URL:
        if "uri" not in given:
            raise MalformedBody("'uri' needs to be set for the web-download import method")
        return {"name": name, "uri": _text("uri", given["uri"], LONGEST)}
    if name != OTHER:
        return {"name": name}
    for field in ("glance_region", "glance_image_id"):
        if field not in given:
            raise MalformedBody(f"'{field}' needs to be set for the glance-download import method")
    return {
        "name": name,
        "glance_region": _text("glance_region", given["glance_region"], LONGEST_NAME),
        "glance_image_id": _remote_id(given["glance_image_id"]),
        "glance_service_interface": _text(
            "glance_service_interface", given.get("glance_service_interface", "public"), LONGEST_NAME
        ),
    }


def _remote_id(given: object) -> str:
    text = _text("glance_image_id", given, LONGEST_NAME)
    try:
        return str(UUID(text))
    except ValueError:
        raise MalformedBody(f"remote image id does not look like a UUID: {text}") from None


def _text(field: str, given: object, most: int) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= most or not given.isprintable():
        raise MalformedBody(f"{field}: wants a string of 1 to {most} characters")
    return given


def _flag(document: Mapping[str, Any], field: str, *, default: bool) -> bool:
    given = document.get(field, default)
    if not isinstance(given, bool):
        raise MalformedBody(f"'{field}' must be boolean value only")
    return given


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v2/info/import",
        handler=show_methods,
        family="imagev2",
        permission="ims:images:get",
        summary="List import methods",
        gives=METHODS,
    ),
    Route(
        method="POST",
        path="/v2/images/{image_id}/import",
        handler=import_image,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update", "ims:images:upload"),
        summary="Import image data",
        reads=(Parameter(name="X-Image-Meta-Store", where="header", summary="the store it goes to"),),
        takes=IMPORT,
        status=202,
    ),
]
