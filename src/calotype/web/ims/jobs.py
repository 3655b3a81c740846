"""Job routes of the IMS face. The status query is answered before the router (`query.py`); it stands here for the
route table, its wrong methods, and the published description."""

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import JobNotFound
from calotype.jobs import sql, view
from calotype.jobs.service import Jobs
from calotype.web.described import ImsJob
from calotype.web.ims.query import JOB_ID
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route


async def show_status(request: Request) -> Response:
    job = await app_of(request).jobs.get(caller(request), _job_id(request))
    return json(view.current(job))


async def show_progress(request: Request) -> Response:
    """`GET /v1/cloudimages/job/{job_id}`: the family's own progress call; the project is the token's."""
    app = app_of(request)
    row = await app.fast.one(sql.QUERY, _job_id(request))
    job = Jobs.own(caller(request), None if row is None else sql.job_of(row))
    return json(view.progress(job), headers={"Retry-After": "1"} if job.is_open else {})


def _job_id(request: Request) -> str:
    job_id: str = request.path_params["job_id"]
    if not JOB_ID.fullmatch(job_id):
        raise JobNotFound
    return job_id


ROUTES = [
    Route(
        method="GET",
        path="/v1/cloudimages/job/{job_id}",
        handler=show_progress,
        family="ims",
        permission="ims:imageJobs:getPercentage",
        summary="How far a job is",
        gives=ImsJob,
    ),
    Route(
        method="GET",
        path="/v1/{project_id}/jobs/{job_id}",
        handler=show_status,
        family="ims",
        permission="ims:imageJobs:getPercentage",
        summary="How a job stands",
        reads=(
            Parameter(name="X-IMS-Revision", where="header", summary="2022-10: the older form"),
            Parameter(name="If-None-Match", where="header"),
        ),
        gives=ImsJob,
        also=(304,),
    ),
]
