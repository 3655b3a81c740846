"""The three calls of the Image API v1 and v1.1 that clients of IMS still make. Contract: images-glance.md §6."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from calotype.images.model import Image, Visibility
from calotype.images.query import parse
from calotype.images.view import image_view
from calotype.web.imagev2.bodies import PAGING
from calotype.web.imagev2.images import DELETION, delete_image
from calotype.web.ims import bodies
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

PAGE: Final = 25  # images, when a list does not say how many
FILTERS: Final = ("name", "container_format", "disk_format", "status", "size_min", "size_max")
ORDER: Final = ("limit", "marker", "sort_key", "sort_dir")
# What v2 has and v1 has not, besides what it calls otherwise.
NOT_OF_V1: Final = frozenset(
    {"visibility", "os_hidden", "os_hash_algo", "os_hash_value", "tags", "self", "file", "schema"}
)
MOST_HEADERS: Final = 16 * 1024  # bytes of properties; what is above stays away
HTML: Final = "text/html; charset=UTF-8"


async def list_images(request: Request) -> Response:
    asked: list[tuple[str, str]] = []
    for name, value in request.query_params.multi_items():
        if name in FILTERS or name in ORDER:
            asked.append((name, value))
        elif name == "changes-since":
            asked.append(("updated_at", f"gte:{value}"))
        elif name.startswith("property-"):
            asked.append((name.removeprefix("property-"), value))
    page = await app_of(request).images.list(caller(request), parse(asked, default_limit=PAGE))
    return json({"images": [{**_attributes(image), "properties": _properties(image)} for image in page.images]})


async def show_head(request: Request) -> Response:
    app = app_of(request)
    image = await app.images.show(caller(request), request.path_params["image_id"], app.fast)
    response = Response(headers={"Content-Type": HTML})
    response.raw_headers += [(name.lower(), value) for name, value in _headers(image)]
    if image.checksum:
        response.headers["ETag"] = image.checksum
    return response


def _attributes(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "status": image.status.value,
        "owner": image.project_id,
        "size": image.size or 0,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "is_public": image.visibility is Visibility.PUBLIC,
        "deleted": False,
        "deleted_at": None,
        "created_at": _time(image.created_at),
        "updated_at": _time(image.updated_at),
    }


def _properties(image: Image) -> Mapping[str, str]:
    known = _attributes(image).keys() | NOT_OF_V1
    return {name: str(value) for name, value in image_view(image).items() if name not in known and value is not None}


def _headers(image: Image) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of headers: no character of either can end one."""
    for name, value in _attributes(image).items():
        if value is not None and name != "virtual_size":
            yield f"X-Image-Meta-{name.capitalize()}".encode(), _safe(str(value))
    left = MOST_HEADERS
    for name, value in _properties(image).items():
        header = f"X-Image-Meta-Property-{quote(name, safe='')}".encode(), _safe(value)
        left -= len(header[0]) + len(header[1])
        if left >= 0:
            yield header


def _safe(text: str) -> bytes:
    """UTF-8, as v1 wrote names; control characters, which no header may hold, are blanks."""
    return "".join(c if c.isprintable() else " " for c in text).strip().encode()


def _time(ms: int) -> str:
    """`2026-01-02T03:04:05.678000`"""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}000"


def _route(method: str, path: str, handler: Any, permission: str, summary: str, **more: Any) -> Route:
    return Route(
        method=method, path=path, handler=handler, family="imagev2", permission=permission, summary=summary, **more
    )


ROUTES: Final[list[Route]] = [
    _route(
        "GET",
        "/v1.1/images/detail",
        list_images,
        "ims:images:list",
        "List images as v1.1 told them",
        reads=(*PAGING, *(Parameter(name=name) for name in (*FILTERS, "changes-since", "sort_key", "sort_dir"))),
        gives=bodies.OLD_IMAGES,
    ),
    _route("HEAD", "/v1/images/{image_id}", show_head, "ims:images:get", "Show an image in headers, as v1 told it"),
    _route(
        "DELETE",
        "/v1.1/images/{image_id}",
        delete_image,
        "ims:images:delete",
        "Delete an image",
        status=204,
        takes=DELETION,
    ),
]
