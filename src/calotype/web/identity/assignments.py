"""Roles of users on projects and domains."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter, IdentityNotFound
from calotype.identity.model import Assignment, Target, TargetKind
from calotype.settings import Settings
from calotype.web.described import RoleAssignments, Roles
from calotype.web.identity.entry import ADMIN, parameters, route
from calotype.web.identity.forms import FALSE, all_of, role_form, url_of
from calotype.web.request import app_of

# Filters for what there is none of here: groups, the system scope, inherited roles.
_NONE_OF: Final = frozenset({"group.id", "scope.system", "scope.OS-INHERIT:inherited_to"})


async def list_roles_on(request: Request) -> Response:
    user_id, target = request.path_params["user_id"], _target(request)
    found = await app_of(request).identity.directory.roles_on(user_id, target)
    return all_of(request, "roles", [role_form(app_of(request).settings, role) for role in found])


async def assign(request: Request) -> Response:
    directory = app_of(request).identity.directory
    await directory.assign(request.path_params["user_id"], request.path_params["role_id"], _target(request))
    return Response(status_code=204)


async def check(request: Request) -> Response:
    user_id, role_id = request.path_params["user_id"], request.path_params["role_id"]
    found = await app_of(request).identity.directory.roles_on(user_id, _target(request))
    if role_id not in {role.id for role in found}:
        raise IdentityNotFound(f"Could not find role assignment with role: {role_id}.")
    return Response(status_code=204)


async def unassign(request: Request) -> Response:
    directory = app_of(request).identity.directory
    await directory.unassign(request.path_params["user_id"], request.path_params["role_id"], _target(request))
    return Response(status_code=204)


async def list_assignments(request: Request) -> Response:
    query = request.query_params
    project_id, domain_id = query.get("scope.project.id"), query.get("scope.domain.id")
    if project_id is not None and domain_id is not None:
        raise BadFilter("scope.project.id and scope.domain.id exclude each other")
    found: list[Assignment] = []
    if not _NONE_OF & {*query}:
        target = Target(TargetKind.PROJECT, project_id) if project_id is not None else None
        target = Target(TargetKind.DOMAIN, domain_id) if domain_id is not None else target
        found = await app_of(request).identity.directory.assignments(
            user_id=query.get("user.id"), role_id=query.get("role.id"), target=target
        )
    with_names = query.get("include_names", "false").lower() not in FALSE
    settings = app_of(request).settings
    return all_of(request, "role_assignments", [_form(settings, item, with_names=with_names) for item in found])


def _form(settings: Settings, assignment: Assignment, *, with_names: bool) -> dict[str, Any]:
    user, role, target = assignment.user, assignment.role, assignment.target
    link = url_of(settings, f"{target.kind}s", target.id, "users", user.id, "roles", role.id)
    form: dict[str, dict[str, Any]] = {
        "role": {"id": role.id},
        "user": {"id": user.id},
        "scope": {target.kind.value: {"id": target.id}},
        "links": {"assignment": link},
    }
    if with_names:
        form["role"]["name"] = role.name
        form["user"] |= {"name": user.name, "domain": {"id": user.domain_id, "name": assignment.user_domain}}
        named: dict[str, Any] = {"id": target.id, "name": assignment.target_name}
        if assignment.target_domain is not None:
            named["domain"] = {"id": assignment.target_domain.id, "name": assignment.target_domain.name}
        form["scope"] = {target.kind.value: named}
    return form


def _target(request: Request) -> Target:
    if "project_id" in request.path_params:
        return Target(TargetKind.PROJECT, request.path_params["project_id"])
    return Target(TargetKind.DOMAIN, request.path_params["domain_id"])


def _on(path: str, where: str) -> list[Any]:
    """The four routes of one kind of target."""
    one = f"{path}/{{role_id}}"
    return [
        route(
            method="GET",
            path=path,
            handler=list_roles_on,
            permission=ADMIN,
            gives=Roles,
            summary=f"A user's roles on a {where}",
        ),
        route(
            method="PUT", path=one, handler=assign, permission=ADMIN, status=204, summary=f"Give a role on a {where}"
        ),
        route(method="HEAD", path=one, handler=check, permission=ADMIN, status=204, summary="Whether it is given"),
        route(
            method="DELETE",
            path=one,
            handler=unassign,
            permission=ADMIN,
            status=204,
            summary="Take a role back",
        ),
    ]


FILTERS: Final = parameters(
    "user.id", "role.id", "scope.project.id", "scope.domain.id", "include_names", *sorted(_NONE_OF)
)
ROUTES: Final = [
    *_on("/identity/v3/projects/{project_id}/users/{user_id}/roles", "project"),
    *_on("/identity/v3/domains/{domain_id}/users/{user_id}/roles", "domain"),
    route(
        method="GET",
        path="/identity/v3/role_assignments",
        handler=list_assignments,
        permission=ADMIN,
        reads=FILTERS,
        gives=RoleAssignments,
        summary="Who has which role on what",
    ),
]
