"""Members: the projects that an image is shared with."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody, MemberNotFound
from calotype.images.attributes import LONGEST
from calotype.images.model import MemberStatus
from calotype.images.view import member_view
from calotype.web.described import MemberAnswer, NewMember
from calotype.web.imagev2 import bodies
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Route

ALL: Final = "/v2/images/{image_id}/members"
ONE: Final = "/v2/images/{image_id}/members/{member_id}"


async def add_member(request: Request) -> Response:
    member_id = (await body(request, dict[str, Any])).get("member")
    if not isinstance(member_id, str) or not _is_id(member_id):
        raise MalformedBody("member: wants the id of a project")
    member = await app_of(request).images.add_member(caller(request), request.path_params["image_id"], member_id)
    return json(member_view(member))


async def list_members(request: Request) -> Response:
    members = await app_of(request).images.members(caller(request), request.path_params["image_id"])
    return json({"members": [member_view(member) for member in members], "schema": "/v2/schemas/members"})


async def show_member(request: Request) -> Response:
    member = await app_of(request).images.member(caller(request), *_named(request))
    return json(member_view(member))


async def update_member(request: Request) -> Response:
    given = (await body(request, dict[str, Any])).get("status")
    if given not in tuple(MemberStatus):
        raise MalformedBody(f"status: wants one of {', '.join(MemberStatus)}")
    images = app_of(request).images
    member = await images.answer_offer(caller(request), *_named(request), MemberStatus(given))
    return json(member_view(member))


async def remove_member(request: Request) -> Response:
    await app_of(request).images.remove_member(caller(request), *_named(request))
    return Response(status_code=204)


def _named(request: Request) -> tuple[str, str]:
    """The image and the project of the path. Raises `MemberNotFound` for what no project's id can be."""
    member_id = request.path_params["member_id"]
    if not _is_id(member_id):
        raise MemberNotFound(member_id[:LONGEST])
    return request.path_params["image_id"], member_id


def _is_id(text: str) -> bool:
    return 0 < len(text) <= LONGEST and text.isprintable()


def _route(
    method: str, path: str, handler: Any, permission: str, summary: str, status: int = 200, **told: Any
) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="imagev2",
        permission=("ims:images:get", permission),
        summary=summary,
        status=status,
        **told,
    )


ROUTES: Final[list[Route]] = [
    _route(
        "POST",
        ALL,
        add_member,
        "ims:images:share",
        "Share an image with a project",
        takes=NewMember,
        gives=bodies.MEMBER,
    ),
    _route("GET", ALL, list_members, "ims:images:get", "List the members of an image", gives=bodies.MEMBERS),
    _route("GET", ONE, show_member, "ims:images:get", "Show a member of an image", gives=bodies.MEMBER),
    _route(
        "PUT",
        ONE,
        update_member,
        "ims:images:share",
        "Accept or reject a shared image",
        takes=MemberAnswer,
        gives=bodies.MEMBER,
    ),
    _route("DELETE", ONE, remove_member, "ims:images:share", "Stop sharing an image with a project", 204),
]
