"""Tags of an image, one by one."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.web.request import app_of, caller
from calotype.web.route import Route

PATH: Final = "/v2/images/{image_id}/tags/{tag:path}"


async def add_tag(request: Request) -> Response:
    await app_of(request).images.add_tag(caller(request), request.path_params["image_id"], request.path_params["tag"])
    return Response(status_code=204)


async def remove_tag(request: Request) -> Response:
    params = request.path_params
    await app_of(request).images.remove_tag(caller(request), params["image_id"], params["tag"])
    return Response(status_code=204)


def _route(method: str, handler: Any, summary: str) -> Route:
    return Route(
        method=method,
        path=PATH,
        handler=handler,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update"),
        summary=summary,
        status=204,
    )


ROUTES: Final[list[Route]] = [
    _route("PUT", add_tag, "Add a tag to an image"),
    _route("DELETE", remove_tag, "Remove a tag from an image"),
]
