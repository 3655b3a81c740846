"""How the calls that start jobs answer, and what their routes have in common."""

from typing import Any

from starlette.responses import Response

from calotype.jobs.model import JobId
from calotype.web.described import Accepted
from calotype.web.request import json
from calotype.web.route import Permission, Route


def accepted(job_id: JobId) -> Response:
    """200, not 202: a client of this API takes 202 for an error."""
    return json({"job_id": job_id})


def route(method: str, path: str, handler: Any, permission: Permission, summary: str, takes: Any) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="ims",
        permission=permission,
        summary=summary,
        takes=takes,
        gives=Accepted,
        also=(429,),
    )
