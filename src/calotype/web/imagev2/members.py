"""Members: the projects that an image is shared with."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody
from calotype.images.attributes import LONGEST
from calotype.images.model import MemberStatus
from calotype.images.view import member_view
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Route

ALL: Final = "/v2/images/{image_id}/members"
ONE: Final = "/v2/images/{image_id}/members/{member_id}"


async def add_member(request: Request) -> Response:
    member_id = (await body(request, dict[str, Any])).get("member")
    if not isinstance(member_id, str) or not 0 < len(member_id) <= LONGEST or not member_id.isprintable():
        raise MalformedBody("member: wants the id of a project")
    member = await app_of(request).images.add_member(caller(request), request.path_params["image_id"], member_id)
    return json(member_view(member))


async def list_members(request: Request) -> Response:
    members = await app_of(request).images.members(caller(request), request.path_params["image_id"])
    return json({"members": [member_view(member) for member in members], "schema": "/v2/schemas/members"})


async def show_member(request: Request) -> Response:
    params = request.path_params
    member = await app_of(request).images.member(caller(request), params["image_id"], params["member_id"])
    return json(member_view(member))


async def update_member(request: Request) -> Response:
    params = request.path_params
    given = (await body(request, dict[str, Any])).get("status")
    if given not in tuple(MemberStatus):
        raise MalformedBody(f"status: wants one of {', '.join(MemberStatus)}")
    images = app_of(request).images
    member = await images.answer_offer(caller(request), params["image_id"], params["member_id"], MemberStatus(given))
    return json(member_view(member))


async def remove_member(request: Request) -> Response:
    params = request.path_params
    await app_of(request).images.remove_member(caller(request), params["image_id"], params["member_id"])
    return Response(status_code=204)


def _route(method: str, path: str, handler: Any, permission: str, summary: str, status: int = 200) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="imagev2",
        permission=("ims:images:get", permission),
        summary=summary,
        status=status,
    )


ROUTES: Final[list[Route]] = [
    _route("POST", ALL, add_member, "ims:images:share", "Share an image with a project"),
    _route("GET", ALL, list_members, "ims:images:get", "List the members of an image"),
    _route("GET", ONE, show_member, "ims:images:get", "Show a member of an image"),
    _route("PUT", ONE, update_member, "ims:images:share", "Accept or reject a shared image"),
    _route("DELETE", ONE, remove_member, "ims:images:share", "Stop sharing an image with a project", 204),
]
