"""How many images a project may have, and has."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.images import quota
from calotype.web.ims import bodies
from calotype.web.request import app_of, caller, json
from calotype.web.route import Route

MOST: Final = 1000  # that the API says a quota can be


async def show_quota(request: Request) -> Response:
    """`image` counts every image of the project, also those that are being made; `image_shared` those of them that are
    shared; `image_member` the projects that the most shared one is shared with."""
    app, project_id = app_of(request), caller(request).project_id or ""
    limits = app.settings.image
    used, shared = await app.db.read(lambda c: (quota.usage(c, project_id), quota.shared(c, project_id)))
    resources = [
        _resource("image", used.images, limits.count_per_project),
        _resource("image_shared", shared.images, limits.count_per_project),
        _resource("image_member", shared.members, limits.members),
    ]
    return json({"quotas": {"resources": resources}})


def _resource(kind: str, used: int, limit: int) -> dict[str, Any]:
    return {"type": kind, "used": used, "quota": limit, "min": 1, "max": max(MOST, limit)}


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v1/cloudimages/quota",
        handler=show_quota,
        family="ims",
        permission="ims:quotas:get",
        summary="Show how many images there are and may be",
        gives=bodies.QUOTA,
    ),
]
