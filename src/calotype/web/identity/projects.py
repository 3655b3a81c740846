"""/projects."""

from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.model import DomainId, Project, ProjectChange, ProjectCreate
from calotype.web.described import OneProject, Projects
from calotype.web.identity.entry import ADMIN, ANY_TOKEN, LISTING, parameters, route
from calotype.web.identity.forms import FALSE, listed, page, project_form, wanted
from calotype.web.request import app_of, body, caller, json


class ProjectCreateBody(Struct, frozen=True, kw_only=True):
    project: ProjectCreate


class ProjectChangeBody(Struct, frozen=True, kw_only=True):
    project: ProjectChange


async def list_projects(request: Request) -> Response:
    shown = page(request)
    query = request.query_params
    found: list[Project] = []
    # No project is a domain, and the parent of each is its domain.
    if query.get("is_domain", "false").lower() in FALSE and query.get("parent_id") in (None, query.get("domain_id")):
        found = await app_of(request).identity.directory.projects(caller(request), wanted(request), shown)
    return listed(request, "projects", found, project_form, shown)


async def create_project(request: Request) -> Response:
    new = (await body(request, ProjectCreateBody)).project
    home = DomainId(caller(request).domain_id or caller(request).user_domain_id)
    return _shown(request, await app_of(request).identity.directory.create_project(new, home), status=201)


async def show_project(request: Request) -> Response:
    directory = app_of(request).identity.directory
    return _shown(request, await directory.project(caller(request), request.path_params["project_id"]))


async def change_project(request: Request) -> Response:
    change = (await body(request, ProjectChangeBody)).project
    directory = app_of(request).identity.directory
    return _shown(request, await directory.change_project(request.path_params["project_id"], change))


async def delete_project(request: Request) -> Response:
    await app_of(request).identity.directory.delete_project(request.path_params["project_id"])
    return Response(status_code=204)


def _shown(request: Request, project: Project, status: int = 200) -> Response:
    return json({"project": project_form(app_of(request).settings, project)}, status=status)


_ALL: Final = "/identity/v3/projects"
_ONE: Final = "/identity/v3/projects/{project_id}"
PARENTS: Final = parameters("is_domain", "parent_id")
ROUTES: Final = [
    route(
        method="GET",
        path=_ALL,
        handler=list_projects,
        permission=ANY_TOKEN,
        reads=(*LISTING, *PARENTS),
        gives=Projects,
        summary="Projects: all for an admin, else the caller's own",
    ),
    route(
        method="POST",
        path=_ALL,
        handler=create_project,
        permission=ADMIN,
        takes=ProjectCreateBody,
        also=(404,),  # the domain
        status=201,
        gives=OneProject,
        summary="Create a project",
    ),
    route(method="GET", path=_ONE, handler=show_project, permission=ANY_TOKEN, gives=OneProject, summary="A project"),
    route(
        method="PATCH",
        path=_ONE,
        handler=change_project,
        permission=ADMIN,
        takes=ProjectChangeBody,
        gives=OneProject,
        summary="Change a project",
    ),
    route(method="DELETE", path=_ONE, handler=delete_project, permission=ADMIN, status=204, summary="Delete a project"),
]
