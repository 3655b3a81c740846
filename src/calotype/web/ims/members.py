"""Sharing as IMS has it: in batches, which are jobs; and who an image is shared with."""

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.backups import rules
from calotype.errors import BadFilter, MalformedBody, NotSupported, UnknownProject, WrongProject
from calotype.images import sharing
from calotype.images.model import Member, MemberStatus
from calotype.images.view import member_view
from calotype.jobs.kinds import members as jobs_of_members
from calotype.servers.opening import project_of
from calotype.web.ims import accepting, bodies, fields
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Parameter, Route

MOST_IMAGES: Final = 100  # in one batch
MOST_PROJECTS: Final = 1000
PAGE: Final = 500  # members, when a list does not say how many
MOST_PAGE: Final = 1000
ANSWERS: Final = (MemberStatus.ACCEPTED, MemberStatus.REJECTED)


async def add_members(request: Request) -> Response:
    image_ids, projects = await _asked(request)
    app = app_of(request)
    for project_id in projects:
        if not await app.identity.project_exists(project_id):
            raise UnknownProject(f"no project {project_id[:64]}")
    job_id = await jobs_of_members.submit_add(caller(request), image_ids, projects, images=app.images, jobs=app.jobs)
    return json({"job_id": job_id})


async def remove_members(request: Request) -> Response:
    image_ids, projects = await _asked(request)
    app = app_of(request)
    job_id = await jobs_of_members.submit_remove(caller(request), image_ids, projects, images=app.images, jobs=app.jobs)
    return json({"job_id": job_id})


async def answer_offers(request: Request) -> Response:
    """`vault_id`: where the disks of a full-server image are to go. It must be a vault for servers that can be used; an
    accepted image lies where it lay, so that nothing goes there."""
    given = await body(request, dict[str, Any])
    image_ids = _ids(given, "images", most=MOST_IMAGES)
    if not image_ids:
        raise MalformedBody("images: wants at least one id")
    status = fields.text(given, "status")
    if status not in ANSWERS:
        raise MalformedBody(f"status: wants one of {', '.join(ANSWERS)}")
    project_id = fields.text(given, "project_id")
    if project_id is None:
        raise MalformedBody("project_id: wants the id of the project that was offered the images")
    vault_id = fields.text(given, "vault_id")
    if project_id != caller(request).project_id:
        raise WrongProject("project_id is not that of the token: a project answers for itself")
    app = app_of(request)
    if vault_id is not None:
        vault = await asyncio.to_thread(app.servers.vault, await project_of(app.db, project_id), vault_id)
        if vault is not None:
            rules.open_for_servers(vault)
    job_id = await jobs_of_members.submit_answer(
        caller(request), image_ids, MemberStatus(status), images=app.images, jobs=app.jobs
    )
    return json({"job_id": job_id})


async def _asked(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    given = await body(request, dict[str, Any])
    image_ids, projects = _ids(given, "images", most=MOST_IMAGES), _ids(given, "projects", most=MOST_PROJECTS)
    if not image_ids:
        raise MalformedBody("images: wants at least one id")
    for kind in ("domains", "organizations"):
        if _ids(given, kind, most=MOST_PROJECTS):
            raise NotSupported(f"{kind}: images are shared with projects; give projects")
    if not projects:
        raise MalformedBody("projects: wants at least one id")
    return image_ids, projects


def _ids(given: fields.Body, field: str, *, most: int) -> tuple[str, ...]:
    """The ids under `field`, each once; none when it is absent. Raises `MalformedBody`."""
    value = given.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(value) > most:
        raise MalformedBody(f"{field}: wants an array of ids, at most {most}")
    if any("\x00" in one for one in value):
        raise MalformedBody(f"{field}: must not hold NUL")
    return tuple(dict.fromkeys(one.lower() for one in value))


# --- who an image is shared with --------------------------------------------------------------------------------------


async def list_members(request: Request) -> Response:
    query = request.query_params
    limit = query.get("limit", str(PAGE))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MOST_PAGE):
        raise BadFilter(f"limit: wants a whole number from 1 to {MOST_PAGE}")
    everyone = await sharing.members(app_of(request).images, caller(request), request.path_params["image_id"])
    after = _after(everyone, query.get("marker"))
    page = after[: int(limit)]
    info: dict[str, Any] = {"current_count": len(page)}
    if len(after) > len(page):
        info["next_marker"] = page[-1].member_id
    return json({"members": [_view(one) for one in page], "schema": "/v2/schemas/members", "page_info": info})


def _after(everyone: tuple[Member, ...], marker: str | None) -> tuple[Member, ...]:
    if marker is None:
        return everyone
    places = [place for place, member in enumerate(everyone) if member.member_id == marker]
    if not places:
        raise BadFilter("marker: wants the id of a member")
    return everyone[places[0] + 1 :]


async def show_member(request: Request) -> Response:
    params = request.path_params
    return json(_view(await app_of(request).images.member(caller(request), params["image_id"], params["member_id"])))


def _view(member: Member) -> dict[str, Any]:
    return {**member_view(member), "member_type": "project"}


BATCH: Final = "/v1/cloudimages/members"
ALL: Final = "/v1/{project_id}/cloudimages/{image_id}/members"
SHARE: Final = "ims:images:share"


def _batch(method: str, handler: Any, summary: str, takes: Any) -> Route:
    return accepting.route(method, BATCH, handler, SHARE, summary, takes, also=())


ROUTES: Final[list[Route]] = [
    _batch("POST", add_members, "Share images with projects", bodies.BATCH_MEMBERS),
    _batch("DELETE", remove_members, "Stop sharing images with projects", bodies.BATCH_MEMBERS),
    _batch("PUT", answer_offers, "Accept or reject shared images", bodies.BATCH_ANSWER),
    Route(
        method="GET",
        path=ALL,
        handler=list_members,
        family="ims",
        permission=("ims:images:get", SHARE),
        summary="List the projects that an image is shared with",
        reads=(
            Parameter(name="limit", schema={"type": "integer", "minimum": 1, "maximum": MOST_PAGE}),
            Parameter(name="marker", summary="the id of the last member of the page before"),
        ),
        gives=bodies.MEMBERS,
    ),
    Route(
        method="GET",
        path=f"{ALL}/{{member_id}}",
        handler=show_member,
        family="ims",
        permission=("ims:images:get", SHARE),
        summary="Show a project that an image is shared with",
        gives=bodies.MEMBER,
    ),
]
