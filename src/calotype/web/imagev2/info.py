"""What a project uses of its quotas. Names and units are those of upstream's limits: clients print them."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.web.request import app_of, caller, json
from calotype.web.route import Route

MIB: Final = 1024 * 1024
UNLIMITED: Final = -1
_LIMITED: Final = {
    "type": "object",
    "properties": {"usage": {"type": "integer"}, "limit": {"type": "integer"}},
    "required": ["usage", "limit"],
}
NAMES: Final = ("image_size_total", "image_stage_total", "image_count_total", "image_count_uploading")
USAGE: Final = {
    "title": "Usage",
    "type": "object",
    "properties": {"usage": {"type": "object", "properties": dict.fromkeys(NAMES, _LIMITED), "required": [*NAMES]}},
    "required": ["usage"],
}


async def show_usage(request: Request) -> Response:
    """Sizes in MiB, rounded down as upstream does. Uploads at once have no limit of their own."""
    images = app_of(request).images
    used, limits = await images.usage(caller(request)), images.limits
    shown = (
        (used.stored_bytes // MIB, limits.stored_bytes_per_project // MIB),
        (used.staged_bytes // MIB, limits.staged_bytes_per_project // MIB),
        (used.images, limits.count_per_project),
        (await images.arriving(caller(request)), UNLIMITED),
    )
    pairs = zip(NAMES, shown, strict=True)
    return json({"usage": {name: {"usage": usage, "limit": limit} for name, (usage, limit) in pairs}})


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v2/info/usage",
        handler=show_usage,
        family="imagev2",
        permission="ims:quotas:get",
        summary="Show what the project uses of its quotas",
        gives=USAGE,
    ),
]
