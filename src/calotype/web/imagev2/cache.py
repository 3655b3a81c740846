"""The cache of the node that is asked: what it holds and waits for, adding to it, and taking from it. For admins."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.cache.sql import Entry
from calotype.errors import Invalid
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

TARGET: Final = "x-image-cache-clear-target"
TARGETS: Final = ("", "cache", "queue")
STATE: Final = {
    "title": "CacheState",
    "type": "object",
    "properties": {
        "cached_images": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "image_id": {"type": "string"},
                    "hits": {"type": "integer"},
                    "size": {"type": "integer"},
                    "checksum": {"type": ["string", "null"]},
                    "last_accessed": {"type": "number"},
                    "last_modified": {"type": "number"},
                },
                "required": ["image_id", "hits", "size"],
            },
        },
        "queued_images": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["cached_images", "queued_images"],
}
PRUNED: Final = {
    "title": "CachePruned",
    "type": "object",
    "properties": {"total_files_pruned": {"type": "integer"}, "total_bytes_pruned": {"type": "integer"}},
    "required": ["total_files_pruned", "total_bytes_pruned"],
}


async def show_state(request: Request) -> Response:
    entries = await app_of(request).cache.entries()
    return json(
        {
            "cached_images": [_view(entry) for entry in entries if entry.cached],
            "queued_images": [entry.image_id for entry in entries if not entry.cached],
        }
    )


def _view(entry: Entry) -> dict[str, Any]:
    """Times in seconds since 1970, as upstream tells them."""
    cached_at = entry.cached_at or entry.queued_at
    return {
        "image_id": entry.image_id,
        "hits": entry.hits,
        "size": entry.size,
        "checksum": entry.checksum,
        "last_accessed": (entry.read_at or cached_at) / 1000,
        "last_modified": cached_at / 1000,
    }


async def add_image(request: Request) -> Response:
    await app_of(request).cache.add(caller(request), request.path_params["image_id"])
    return Response(status_code=202)


async def remove_image(request: Request) -> Response:
    await app_of(request).cache.remove(caller(request), request.path_params["image_id"])
    return Response(status_code=204)


async def clear(request: Request) -> Response:
    target = request.headers.get(TARGET, "").lower()
    if target not in TARGETS:
        raise Invalid(f"{TARGET}: wants cache or queue, or nothing for both")
    await app_of(request).cache.clear(cached=target != "queue", queued=target != "cache")
    return Response(status_code=204)


async def list_nodes(request: Request) -> Response:
    return json(await app_of(request).cache.nodes(caller(request), request.path_params["image_id"]))


async def clean(request: Request) -> Response:
    await app_of(request).cache.clean()
    return Response(status_code=200)


async def prune(request: Request) -> Response:
    pruned = await app_of(request).cache.prune()
    return json({"total_files_pruned": pruned.files, "total_bytes_pruned": pruned.size})


def _route(method: str, path: str, handler: Any, summary: str, status: int = 200, **told: Any) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="imagev2",
        permission="imagev2:cache",
        summary=summary,
        status=status,
        **told,
    )


ROUTES: Final[list[Route]] = [
    _route("GET", "/v2/cache", show_state, "Show what the node's cache holds", gives=STATE),
    _route(
        "DELETE",
        "/v2/cache",
        clear,
        "Clear the node's cache",
        204,
        reads=(Parameter(name=TARGET, where="header", schema={"enum": [*TARGETS]}),),
    ),
    _route("POST", "/v2/cache/clean", clean, "Take back what does not belong in the node's cache"),
    _route("POST", "/v2/cache/prune", prune, "Make the node's cache fit its size", gives=PRUNED),
    _route("PUT", "/v2/cache/{image_id}", add_image, "Have the node cache an image", 202),
    _route("DELETE", "/v2/cache/{image_id}", remove_image, "Remove an image from the node's cache", 204),
    _route(
        "GET",
        "/v2/cache/nodes/{image_id}",
        list_nodes,
        "List the nodes that have an image in their cache",
        gives={"type": "array", "items": {"type": "string"}},
    ),
]
