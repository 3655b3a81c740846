"""Locations of an image: letting it point at a URL, which is a job, and listing where its bytes lie."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody
from calotype.images.placing import DIGEST_SIZES, is_digest
from calotype.jobs.kinds import locate
from calotype.web.imagev2.imports import request_id
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Route

PATH: Final = "/v2/images/{image_id}/locations"
NEW: Final = {
    "title": "NewLocation",
    "type": "object",
    "properties": {
        "url": {"type": "string", "maxLength": 2048},
        "validation_data": {
            "type": "object",
            "properties": {
                "os_hash_algo": {"enum": [*DIGEST_SIZES]},
                "os_hash_value": {"type": "string", "pattern": "^[0-9a-fA-F]+$"},
            },
            "required": ["os_hash_algo", "os_hash_value"],
            "additionalProperties": False,
        },
    },
    "required": ["url"],
    "additionalProperties": False,
}
LISTED: Final = {
    "title": "Locations",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"url": {"type": "string"}, "metadata": {"type": "object"}},
        "required": ["url", "metadata"],
    },
}


async def add_location(request: Request) -> Response:
    app = app_of(request)
    document = await body(request, dict[str, Any])
    url = document.get("url")
    if not isinstance(url, str) or not set(document) <= {"url", "validation_data"}:
        raise MalformedBody("a location is an object with a string url, and validation_data if wanted")
    await locate.submit(
        caller(request),
        request.path_params["image_id"],
        url,
        _claim(document.get("validation_data")),
        images=app.images,
        jobs=app.jobs,
        stores=app.blobs,
        fetcher=app.fetcher,
        request_id=request_id(request),
    )
    return Response(status_code=202)


def _claim(given: object) -> Mapping[str, str]:
    """Checked, empty where nothing is given. Raises `MalformedBody`."""
    if given is None or given == {}:
        return {}
    if not isinstance(given, dict) or set(given) != {"os_hash_algo", "os_hash_value"}:
        raise MalformedBody("validation_data: wants os_hash_algo and os_hash_value, both or none")
    algorithm, value = given["os_hash_algo"], given["os_hash_value"]
    if not isinstance(algorithm, str) or algorithm not in DIGEST_SIZES:
        raise MalformedBody(f"os_hash_algo: wants one of {', '.join(DIGEST_SIZES)}")
    if not isinstance(value, str) or not is_digest(value, algorithm):
        raise MalformedBody(f"os_hash_value: wants {2 * DIGEST_SIZES[algorithm]} hexadecimal digits for {algorithm}")
    return given


async def list_locations(request: Request) -> Response:
    return json(await app_of(request).locations.all(caller(request), request.path_params["image_id"]))


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path=PATH,
        handler=list_locations,
        family="imagev2",
        permission="imagev2:locations:get",
        summary="List where the bytes of an image lie",
        gives=LISTED,
    ),
    Route(
        method="POST",
        path=PATH,
        handler=add_location,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update", "imagev2:locations:add"),
        summary="Let an image point at a URL",
        takes=NEW,
        status=202,
    ),
]
