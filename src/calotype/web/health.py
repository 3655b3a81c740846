"""Whether the process lives, and whether it can serve."""

from http import HTTPStatus

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from calotype import VERSION
from calotype.db.engine import CURRENT_REVISION, now_ms
from calotype.db.schema import REVISION
from calotype.errors import CalotypeError, Unavailable
from calotype.jobs import sql
from calotype.web.described import Alive, Ready
from calotype.web.request import app_of, json
from calotype.web.route import Route


async def live(_request: Request) -> Response:
    return json({"status": "ok", "version": VERSION})


async def ready(request: Request) -> Response:
    """200 when the database answers with the schema that this code wants; workers are told, not required, since an
    API node is useful without one: jobs are accepted and wait."""
    app = app_of(request)

    def work(c: Connection) -> int:
        if c.execute(CURRENT_REVISION).scalar_one_or_none() != REVISION:
            raise Unavailable("the database has another schema than this code wants: run calotype migrate")
        since = now_ms() - int(app.settings.jobs.dead_after_s * 1000)
        return int(c.execute(sql.COUNT_LIVE, {"since": since}).scalar_one())

    try:
        workers = await app.db.read(work)
    except CalotypeError as error:
        body = {"status": "unavailable", "reason": error.message}
        return json(body, status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "5"})
    return json({"status": "ok", "version": VERSION, "schema": REVISION, "workers": workers})


ROUTES = [
    Route(
        method="GET",
        path="/health/live",
        handler=live,
        family="native",
        permission=None,
        summary="Is it alive?",
        gives=Alive,
    ),
    Route(
        method="GET",
        path="/health/ready",
        handler=ready,
        family="native",
        permission=None,
        summary="Can it serve?",
        gives=Ready,
    ),
]
