"""The ASGI application of an API process: the hot job query first, then the router over the one route table."""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from calotype import compose, logs
from calotype.images.dialect import DIALECTS, Dialect
from calotype.lifeline import die_with_parent
from calotype.settings import Settings, load
from calotype.web import openapi, problems
from calotype.web.health import ROUTES as HEALTH
from calotype.web.identity import ROUTES as IDENTITY
from calotype.web.imagev2 import ROUTES as IMAGEV2
from calotype.web.ims import BY_PROJECT as IMS_BY_PROJECT
from calotype.web.ims import ROUTES as IMS
from calotype.web.ims.query import JobQuery
from calotype.web.native import ROUTES as NATIVE
from calotype.web.route import Route, bound
from calotype.web.unread import Unread

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def offered(dialect: Dialect) -> tuple[Route, ...]:
    """The route table. Literal segments win over parameters: its order is the order of matching."""
    image = [route for route in IMAGEV2 if dialect.offers(route.path)]
    return openapi.published((*HEALTH, *IDENTITY, *NATIVE, *IMS, *image, *IMS_BY_PROJECT))


ROUTES: Final = offered(DIALECTS["upstream"])  # of the default dialect, which has all of the Image API
FAMILY_OF_PREFIX: Final = (
    ("/identity", "identity"),
    ("/v3", "identity"),
    ("/calotype", "native"),
    ("/health", "native"),
    ("/v1", "ims"),
    ("/v2/cloudimages", "ims"),
)


def application() -> Any:
    """What the server starts in each process. Reads the settings that the command line left in the environment."""
    die_with_parent()
    settings = load()
    logs.configure(settings)
    return build(settings)


def build(settings: Settings) -> Any:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with compose.api(settings) as parts:
            app.state.calotype = parts
            yield

    router = Starlette(
        routes=bound(offered(DIALECTS[settings.imagev2.dialect])),
        lifespan=lifespan,
        exception_handlers={404: _no_such_path},
    )
    router.router.redirect_slashes = False
    return Edge(Unread(JobQuery(router, settings)), quiet=("/health/live", "/health/ready"))


async def _no_such_path(request: Request, _error: Exception) -> Response:
    path = request.url.path
    family = next((family for prefix, family in FAMILY_OF_PREFIX if path.startswith(prefix)), "imagev2")
    return problems.plain(family, HTTPStatus.NOT_FOUND, "no such resource")


class Edge:
    """What every request passes first: a request id, one summary line in the log, and paths with `//` at the joint,
    which clients make when they append to a root URL that ends in a slash."""

    def __init__(self, inner: Any, quiet: tuple[str, ...] = ()) -> None:
        self.inner = inner
        self.quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        if scope["path"].startswith("//"):
            scope["path"] = "/" + scope["path"].lstrip("/")
        request_id = uuid.uuid4()
        scope.setdefault("state", {})["request_id"] = request_id.hex
        ids = (
            (b"x-request-id", request_id.hex.encode()),
            (b"x-openstack-request-id", f"req-{request_id}".encode()),
        )
        status = 0
        began = time.perf_counter()

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *ids]
            await send(message)

        try:
            await self.inner(scope, receive, sending)
        finally:
            if scope["path"] not in self.quiet and not scope["state"].get("hot"):
                caller = scope["state"].get("caller")
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((time.perf_counter() - began) * 1000, 1),
                    request_id=request_id.hex,
                    project_id=getattr(caller, "project_id", None),
                )
