"""Job routes of the IMS face. The status query is answered before the router (`query.py`); it stands here for the
route table, its wrong methods, and the published description."""

from starlette.requests import Request
from starlette.responses import Response

from calotype.jobs import view
from calotype.jobs.service import Jobs
from calotype.web.described import ImsJob
from calotype.web.ims import query
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route


async def show_status(request: Request) -> Response:
    job, form = await query.found(app_of(request).fast, request.path_params["job_id"])
    return json(form(Jobs.own(caller(request), job)))


async def show_progress(request: Request) -> Response:
    """`GET /v1/cloudimages/job/{job_id}`: the family's own progress call; the project is the token's."""
    job, form = await query.found(app_of(request).fast, request.path_params["job_id"])
    own = Jobs.own(caller(request), job)
    told = view.worker_step(own) if form is view.worker_step else view.progress(own)
    return json(told, headers={"Retry-After": "1"} if own.is_open else {})


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
        permission=query.ASKING,
        summary="How a job stands",
        reads=(
            Parameter(name="X-IMS-Revision", where="header", summary="2022-10: the older form"),
            Parameter(name="If-None-Match", where="header"),
        ),
        gives=ImsJob,
        also=(304,),
    ),
]
