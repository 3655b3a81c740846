"""Actions on an image: its bytes are withheld, or given out again."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.web.request import app_of, caller
from calotype.web.route import Route


async def deactivate(request: Request) -> Response:
    await app_of(request).images.deactivate(caller(request), request.path_params["image_id"])
    return Response(status_code=204)


async def reactivate(request: Request) -> Response:
    await app_of(request).images.reactivate(caller(request), request.path_params["image_id"])
    return Response(status_code=204)


def _route(action: str, handler: Any, summary: str) -> Route:
    return Route(
        method="POST",
        path=f"/v2/images/{{image_id}}/actions/{action}",
        handler=handler,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update"),
        summary=summary,
        status=204,
    )


ROUTES: Final[list[Route]] = [
    _route("deactivate", deactivate, "Deactivate an image"),
    _route("reactivate", reactivate, "Reactivate an image"),
]
