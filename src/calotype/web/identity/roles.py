"""/roles."""

from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.model import Role, RoleCreate
from calotype.web.described import OneRole, Roles
from calotype.web.identity.entry import ADMIN, LISTING, route
from calotype.web.identity.forms import listed, page, role_form, wanted
from calotype.web.request import app_of, body, json


class RoleCreateBody(Struct, frozen=True, kw_only=True):
    role: RoleCreate


async def list_roles(request: Request) -> Response:
    shown = page(request)
    found: list[Role] = []
    if "domain_id" not in request.query_params:  # no role belongs to a domain
        found = await app_of(request).identity.directory.roles(wanted(request), shown)
    return listed(request, "roles", found, role_form, shown)


async def create_role(request: Request) -> Response:
    new = (await body(request, RoleCreateBody)).role
    return _shown(request, await app_of(request).identity.directory.create_role(new), status=201)


async def show_role(request: Request) -> Response:
    return _shown(request, await app_of(request).identity.directory.role(request.path_params["role_id"]))


async def delete_role(request: Request) -> Response:
    await app_of(request).identity.directory.delete_role(request.path_params["role_id"])
    return Response(status_code=204)


def _shown(request: Request, role: Role, status: int = 200) -> Response:
    return json({"role": role_form(app_of(request).settings, role)}, status=status)


_ALL: Final = "/identity/v3/roles"
_ONE: Final = "/identity/v3/roles/{role_id}"
ROUTES: Final = [
    route(method="GET", path=_ALL, handler=list_roles, permission=ADMIN, reads=LISTING, gives=Roles, summary="Roles"),
    route(
        method="POST",
        path=_ALL,
        handler=create_role,
        permission=ADMIN,
        takes=RoleCreateBody,
        status=201,
        gives=OneRole,
        summary="Create a role",
    ),
    route(method="GET", path=_ONE, handler=show_role, permission=ADMIN, gives=OneRole, summary="A role"),
    route(method="DELETE", path=_ONE, handler=delete_role, permission=ADMIN, status=204, summary="Delete a role"),
]
