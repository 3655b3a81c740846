"""Tasks: jobs of all kinds, as the Image API shows them. An image's are its owner's to see, all are an admin's."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter, JobNotFound, MalformedBody
from calotype.images.attributes import DISK_FORMATS
from calotype.jobs.model import TASK_TYPES, JobId
from calotype.jobs.sql import ORDERS
from calotype.jobs.tasks import STATUSES, job_id, short, task_id, whole
from calotype.web.imagev2 import bodies
from calotype.web.imagev2.images import created_from
from calotype.web.imagev2.imports import request_id
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Parameter, Route

PAGE: Final = 25  # tasks, when a list does not say how many
MOST_PER_PAGE: Final = 1000
MOST_DIGITS: Final = 9
ALL: Final = "/v2/tasks"
IMPORT: Final = "import"  # the one type that can be asked for
INPUT: Final = ("import_from", "import_from_format", "image_properties")

TASK: Final = bodies.shown(
    "task", "Task", always=("id", "type", "status", "owner", "created_at", "updated_at", "self", "schema")
)
TASKS: Final = bodies.page("Tasks", "tasks", "Task")
NEW_TASK: Final = {
    "title": "NewTask",
    "type": "object",
    "properties": {
        "type": {"const": IMPORT},
        "input": {
            "type": "object",
            "properties": {
                "import_from": {"type": "string"},
                "import_from_format": {"enum": sorted(DISK_FORMATS)},
                "image_properties": {"type": "object"},
            },
            "required": [*INPUT],
        },
    },
    "required": ["type", "input"],
}
OF_IMAGE: Final = {
    "title": "TasksOfImage",
    "type": "object",
    "properties": {"tasks": {"type": "array", "items": {"$ref": "#/components/schemas/Task"}}},
    "required": ["tasks"],
}


async def list_tasks(request: Request) -> Response:
    query = request.query_params
    limit = _limit(query.get("limit"))
    statuses, types = _words(query, "status", STATUSES), _words(query, "type", TASK_TYPES)
    tasks = await app_of(request).jobs.tasks(
        statuses=[status.value for status, word in STATUSES.items() if word in statuses],
        kinds=[kind.value for kind, word in TASK_TYPES.items() if word in types],
        order=_one_of(query.get("sort_key", "created_at"), "sort_key", [*ORDERS]),
        ascending=_one_of(query.get("sort_dir", "desc"), "sort_dir", ["asc", "desc"]) == "asc",
        marker=_marker(query.get("marker")),
        limit=limit,
    )
    kept = [(name, value) for name, value in query.multi_items() if name != "marker"]
    document: dict[str, Any] = {
        "tasks": [short(job) for job in tasks],
        "first": _link(kept),
        "schema": "/v2/schemas/tasks",
    }
    if tasks and len(tasks) == limit:
        document["next"] = _link([*kept, ("marker", task_id(tasks[-1].id))])
    return json(document)


async def show_task(request: Request) -> Response:
    found = job_id(request.path_params["task_id"])
    if found is None:
        raise JobNotFound
    return json(whole(await app_of(request).jobs.task(found)))


async def tasks_of_image(request: Request) -> Response:
    """Of the image's own project, and to an admin, all; others see what they asked for themselves."""
    app, who = app_of(request), caller(request)
    image = await app.images.get(who, request.path_params["image_id"])
    everything = who.is_admin or image.project_id == who.project_id
    jobs = await app.jobs.of_image(image.id, None if everything else who.project_id)
    return json({"tasks": [whole(job) for job in jobs]})


async def create_task(request: Request) -> Response:
    app, who = app_of(request), caller(request)
    given = _task_input(await body(request, dict[str, Any]))
    url, properties = given["import_from"], given["image_properties"]
    if not isinstance(url, str) or given["import_from_format"] not in DISK_FORMATS:
        raise MalformedBody("input: wants a URL in import_from and a known format in import_from_format")
    if not isinstance(properties, dict):
        raise MalformedBody("input: wants an object in image_properties")
    spec = created_from(properties, app.settings.image, app.images.dialect, is_admin=who.is_admin)
    made = await app.imports.submit_task(who, spec, url=url, task_input=given, request_id=request_id(request))
    shown = whole(await app.jobs.task(made))
    return json(shown, status=201, headers={"Location": shown["self"]})


def _task_input(document: Mapping[str, Any]) -> Mapping[str, Any]:
    for field in ("type", "input"):
        if field not in document:
            raise MalformedBody(f"a task wants '{field}'")
    if document["type"] != IMPORT:
        raise MalformedBody(f"type: only {IMPORT!r} can be asked for")
    given = document["input"]
    if not isinstance(given, dict):
        raise MalformedBody("input: wants an object")
    for field in INPUT:
        if field not in given:
            raise MalformedBody(f"input: wants '{field}'")
    return {field: given[field] for field in INPUT}


def _words(query: Mapping[str, str], name: str, known: Mapping[Any, str]) -> tuple[str, ...]:
    if name not in query:
        return ()
    return (_one_of(query[name], name, sorted(set(known.values()))),)


def _one_of(text: str, name: str, allowed: list[str]) -> str:
    if text not in allowed:
        raise BadFilter(f"{name}: {text[:40]!r} is none of {', '.join(allowed)}")
    return text


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()) or len(text) > MOST_DIGITS:
        raise BadFilter("limit: wants a whole number, not below 0")
    return min(int(text), MOST_PER_PAGE)


def _marker(text: str | None) -> JobId | None:
    if text is None:
        return None
    found = job_id(text)
    if found is None:
        raise BadFilter("marker: wants the id of a task")
    return found


def _link(parameters: list[tuple[str, str]]) -> str:
    return f"{ALL}?{urlencode(parameters)}" if parameters else ALL


_LISTING: Final = (
    *bodies.PAGING,
    Parameter(name="type", schema={"type": "string", "enum": sorted(set(TASK_TYPES.values()))}),
    Parameter(name="status", schema={"type": "string", "enum": [*STATUSES.values()]}),
    Parameter(name="sort_key", schema={"type": "string", "enum": [*ORDERS]}),
    Parameter(name="sort_dir", schema={"type": "string", "enum": ["asc", "desc"]}),
)


def _route(method: str, path: str, handler: Any, permission: Any, summary: str, **more: Any) -> Route:
    return Route(
        method=method, path=path, handler=handler, family="imagev2", permission=permission, summary=summary, **more
    )


ADMINS: Final = "imagev2:tasks"
ROUTES: Final[list[Route]] = [
    _route("GET", ALL, list_tasks, ADMINS, "List tasks", reads=_LISTING, gives=TASKS),
    _route("POST", ALL, create_task, ADMINS, "Create a task", takes=NEW_TASK, gives=TASK, status=201),
    _route("GET", f"{ALL}/{{task_id}}", show_task, ADMINS, "Show a task", gives=TASK),
    _route(
        "GET",
        "/v2/images/{image_id}/tasks",
        tasks_of_image,
        "ims:images:get",
        "List the tasks of an image",
        gives=OF_IMAGE,
    ),
]
