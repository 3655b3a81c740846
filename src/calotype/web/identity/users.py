"""/users."""

from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.model import DomainId, NewPassword, User, UserChange, UserCreate
from calotype.identity.permissions import require
from calotype.web.described import OneUser, Projects, Users
from calotype.web.identity.entry import ADMIN, ANY_TOKEN, LISTING, route
from calotype.web.identity.forms import listed, page, project_form, user_form, wanted
from calotype.web.request import app_of, body, caller, json


class UserCreateBody(Struct, frozen=True, kw_only=True):
    user: UserCreate


class UserChangeBody(Struct, frozen=True, kw_only=True):
    user: UserChange


class PasswordChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    original_password: str
    password: NewPassword

    def __repr__(self) -> str:
        return "PasswordChange()"


class PasswordChangeBody(Struct, frozen=True, kw_only=True):
    user: PasswordChange


async def list_users(request: Request) -> Response:
    shown = page(request)
    found = await app_of(request).identity.directory.users(wanted(request), shown)
    return listed(request, "users", found, user_form, shown)


async def create_user(request: Request) -> Response:
    new = (await body(request, UserCreateBody)).user
    home = DomainId(caller(request).domain_id or caller(request).user_domain_id)
    return _shown(request, await app_of(request).identity.directory.create_user(new, home), status=201)


async def show_user(request: Request) -> Response:
    directory = app_of(request).identity.directory
    return _shown(request, await directory.user(caller(request), request.path_params["user_id"]))


async def change_user(request: Request) -> Response:
    change = (await body(request, UserChangeBody)).user
    directory = app_of(request).identity.directory
    return _shown(request, await directory.change_user(request.path_params["user_id"], change))


async def delete_user(request: Request) -> Response:
    await app_of(request).identity.directory.delete_user(request.path_params["user_id"])
    return Response(status_code=204)


async def change_password(request: Request) -> Response:
    change = (await body(request, PasswordChangeBody)).user
    await app_of(request).identity.directory.change_own_password(
        caller(request), request.path_params["user_id"], change.original_password, change.password
    )
    return Response(status_code=204)


async def list_projects_of_user(request: Request) -> Response:
    who, user_id, shown = caller(request), request.path_params["user_id"], page(request)
    if user_id != who.user_id:
        require(who, ADMIN)
    found = await app_of(request).identity.directory.projects_of(user_id, wanted(request), shown)
    return listed(request, "projects", found, project_form, shown)


def _shown(request: Request, user: User, status: int = 200) -> Response:
    return json({"user": user_form(app_of(request).settings, user)}, status=status)


_ALL: Final = "/identity/v3/users"
_ONE: Final = "/identity/v3/users/{user_id}"
ROUTES: Final = [
    route(method="GET", path=_ALL, handler=list_users, permission=ADMIN, reads=LISTING, gives=Users, summary="Users"),
    route(
        method="POST",
        path=_ALL,
        handler=create_user,
        permission=ADMIN,
        takes=UserCreateBody,
        also=(404,),  # the domain
        status=201,
        gives=OneUser,
        summary="Create a user",
    ),
    route(method="GET", path=_ONE, handler=show_user, permission=ANY_TOKEN, gives=OneUser, summary="A user"),
    route(
        method="PATCH",
        path=_ONE,
        handler=change_user,
        permission=ADMIN,
        takes=UserChangeBody,
        gives=OneUser,
        summary="Change a user",
    ),
    route(method="DELETE", path=_ONE, handler=delete_user, permission=ADMIN, status=204, summary="Delete a user"),
    route(
        method="POST",
        path=f"{_ONE}/password",
        handler=change_password,
        permission=ANY_TOKEN,
        takes=PasswordChangeBody,
        status=204,
        summary="Change one's own password",
    ),
    route(
        method="GET",
        path=f"{_ONE}/projects",
        handler=list_projects_of_user,
        permission=ANY_TOKEN,
        reads=LISTING,
        gives=Projects,
        summary="Projects that a user has a role on",
    ),
]
