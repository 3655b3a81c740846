"""`/calotype/v1/jobs`: list, show, wait, cancel."""

from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.db.engine import now_ms
from calotype.errors import BadFilter
from calotype.jobs import view
from calotype.jobs.model import JobType
from calotype.web.described import CancelJob, NativeJob, NativeJobs
from calotype.web.request import app_of, caller, json
from calotype.web.request import body as body_of
from calotype.web.route import Media, Parameter, Route

MOST_WAIT_S: Final = 60.0
DEFAULT_LIMIT: Final = 25
STATES: Final = frozenset({*view.STATUSES})


async def list_jobs(request: Request) -> Response:
    query = request.query_params
    states = _listed(query.get("state"), STATES, "state")
    kinds = _listed(query.get("type"), {kind.value for kind in JobType}, "type")
    limit = _number(query.get("limit"), "limit", DEFAULT_LIMIT)
    jobs = await app_of(request).jobs.list(
        caller(request),
        statuses=[view.STATUSES[state].value for state in states],
        kinds=kinds,
        image_id=query.get("image_id"),
        marker=query.get("marker"),
        limit=int(limit),
    )
    full = len(jobs) == int(limit) and jobs
    now = now_ms()
    return json({"jobs": [view.native(job, now=now) for job in jobs], "next_marker": jobs[-1].id if full else None})


async def show_job(request: Request) -> Response:
    """`?wait=30`: answer when the job has ended, at the latest after so many seconds (60 at most)."""
    jobs = app_of(request).jobs
    job_id = request.path_params["job_id"]
    wait = min(MOST_WAIT_S, _number((request.query_params.get("wait") or "").removesuffix("s") or None, "wait", 0))
    if wait:
        await jobs.wait(caller(request), job_id, wait)
    job, steps = await jobs.show(caller(request), job_id)
    headers = {"Retry-After": "1"} if job.is_open else {}
    return json(view.native(job, steps, now=now_ms()), headers=headers)


async def cancel_job(request: Request) -> Response:
    reason = ""
    if request.headers.get("content-length", "0") != "0":
        given: Any = (await body_of(request, dict[str, Any])).get("reason", "")
        reason = str(given)[:200]
    jobs = app_of(request).jobs
    job = await jobs.cancel(caller(request), request.path_params["job_id"], reason)
    return json(view.native(job, now=now_ms()), status=HTTPStatus.ACCEPTED)


def _listed(text: str | None, allowed: set[str] | frozenset[str], name: str) -> list[str]:
    values = [value for value in (text or "").split(",") if value]
    for value in values:
        if value not in allowed:
            raise BadFilter(f"{name}: {value!r} is none of {', '.join(sorted(allowed))}")
    return values


def _number(text: str | None, name: str, default: float) -> float:
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit():
        raise BadFilter(f"{name}: wants a whole number, not {text[:40]!r}")
    return max(1, min(int(text[:12]), 1000)) if name == "limit" else float(text[:12])


ROUTES = [
    Route(
        method="GET",
        path="/calotype/v1/jobs",
        handler=list_jobs,
        family="native",
        permission="calotype:jobs:get",
        summary="The project's jobs, newest first",
        reads=(
            Parameter(name="state", summary=f"of {', '.join(sorted(STATES))}; several with commas"),
            Parameter(name="type", summary=f"of {', '.join(JobType)}; several with commas"),
            Parameter(name="image_id"),
            Parameter(name="marker"),
            Parameter(name="limit", schema={"type": "integer", "minimum": 0}),
        ),
        gives=NativeJobs,
        also=(404,),  # the marker
    ),
    # Before the path without the verb, which would match it as well.
    Route(
        method="POST",
        path="/calotype/v1/jobs/{job_id}:cancel",
        handler=cancel_job,
        family="native",
        permission="calotype:jobs:cancel",
        summary="End an open job",
        takes=Media(form=CancelJob, required=False),
        gives=NativeJob,
        status=202,
    ),
    Route(
        method="GET",
        path="/calotype/v1/jobs/{job_id}",
        handler=show_job,
        family="native",
        permission="calotype:jobs:get",
        summary="One job with its steps; ?wait=SECONDS waits for its end",
        reads=(Parameter(name="wait", schema={"type": "integer", "minimum": 0}),),
        gives=NativeJob,
    ),
]
