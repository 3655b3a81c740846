"""The job query, `GET /v1/{project_id}/jobs/{job_id}`: a small ASGI branch before the router.

Polled every second by every client of every job, so it does as little as can be: the token's signature, or that of the
request, is checked from memory, one row is read by its key on the raw driver, and the answer is written in one piece.
It makes no log line.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request

from calotype.db.fast import FastReads
from calotype.errors import CalotypeError, JobNotFound, Unauthenticated, WrongProject
from calotype.identity.permissions import OneOf, require_one
from calotype.jobs import sql, view
from calotype.jobs.model import Job
from calotype.settings import Settings
from calotype.web import problems, signed

PATH: Final = re.compile(r"/v1/([^/]+)/jobs/([^/]+)", re.ASCII)
JOB_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
# Who has any right to read may ask how a job stands.
ASKING: Final = OneOf(("ims:imageJobs:getPercentage", "ims:images:list", "ims:images:get"))
OLD: Final = "2022-10"
Message = MutableMapping[str, Any]


async def found(fast: FastReads, job_id: str) -> tuple[Job | None, Callable[[Job], dict[str, Any]]]:
    """The job of that id, or of whose worker's part it is the id; and the form in which it is told."""
    if not JOB_ID.fullmatch(job_id):
        return None, view.current
    row = await fast.one(sql.QUERY, job_id)
    if row is not None:
        return sql.job_of(row), view.current
    row = await fast.one(sql.QUERY, view.worker_step_id(job_id))
    job = None if row is None else sql.job_of(row)
    return (job, view.worker_step) if job is not None and view.has_worker_step(job) else (None, view.current)


class JobQuery:
    def __init__(self, inner: Any, settings: Settings) -> None:
        self.inner = inner
        self.old_by_default = settings.ims.revision == OLD
        self.encoder = msgspec.json.Encoder()

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            match = PATH.fullmatch(scope["path"])
            if match is not None and match[1] != "cloudimages":
                scope["state"]["hot"] = True
                try:
                    await self._answer(scope, receive, match[1], match[2], send)
                except CalotypeError as error:
                    response = problems.answer("ims", error, Request(scope))
                    await response(scope, receive, send)
                except ClientDisconnect:
                    return
                except Exception as error:  # noqa: BLE001 - the edge: a bug, told without detail
                    response = problems.bug("ims", error, Request(scope))
                    await response(scope, receive, send)
                return
        await self.inner(scope, receive, send)

    async def _answer(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        project_id: str,
        job_id: str,
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        token = revision = known = None
        for name, value in scope["headers"]:
            if name == b"x-auth-token":
                token = value
            elif name == b"x-ims-revision":
                revision = value
            elif name == b"if-none-match":
                known = value
        app = self.inner.state.calotype
        if token:
            caller = app.identity.authenticate(token.decode("latin-1"))
        elif signed.by_key(scope):
            scope["app"] = self.inner
            caller, _ = await signed.admitted(Request(scope, receive), path_project=project_id)
        else:
            raise Unauthenticated("no token: send one in X-Auth-Token")
        if caller.project_id is None:
            raise Unauthenticated("this call wants a token that is scoped to a project")
        if project_id != caller.project_id:
            raise WrongProject("the project in the path is not that of the token")
        require_one(caller, ASKING.actions)
        job, form = await found(app.fast, job_id)
        if job is None or job.project_id != project_id:
            raise JobNotFound
        old = revision == b"2022-10" or (revision is None and self.old_by_default)
        etag = b'"%s-%d%s"' % (job_id.encode(), job.version, b"-o" if old else b"")
        headers = [(b"etag", etag)]
        if job.is_open:
            headers.append((b"retry-after", b"1"))
        if known is not None and etag in known:
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        body = self.encoder.encode(view.of_2022_10(job) if old else form(job))
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
