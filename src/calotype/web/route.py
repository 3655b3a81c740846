"""One entry of the route table: what answers a path, who may call it, and in which API's form errors are told.

`bound` turns an entry into a Starlette route: it names the caller, checks the project in the path and the permission,
calls, and turns what goes wrong into the API's form. Nothing else does any of this.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from calotype.errors import CalotypeError, Unauthenticated, WrongProject
from calotype.identity.model import Caller
from calotype.identity.permissions import OneOf, require, require_one
from calotype.web import problems, signed
from calotype.web.request import app_of

Family = Literal["ims", "imagev2", "identity", "native"]
Handler = Callable[[Request], Awaitable[Response]]
Permission = str | tuple[str, ...] | OneOf | None
PROJECT: Final = re.compile(r"[0-9a-f]{32}")


class Parameter(Struct, frozen=True, kw_only=True):
    """One that a route reads from the query or the headers; those of the path are in the path."""

    name: str
    where: Literal["query", "header"] = "query"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    summary: str = ""


class Media(Struct, frozen=True, kw_only=True):
    """A body that is not simply JSON. `form`: a type or a JSON Schema; None where it is bytes."""

    types: tuple[str, ...] = ("application/json",)
    form: Any = None
    required: bool = True


class Route(Struct, frozen=True, kw_only=True):
    """`permission`: an action or several, all needed; `OneOf` several; "" any token; None nothing, not even a token.

    What is taken and given is told by a type that msgspec knows, a JSON Schema or a `Media`; None: there is no body.
    It is for the published description (`openapi.py`): handlers check what arrives themselves.
    """

    method: str
    path: str  # Starlette's form: /v2/images/{image_id}
    handler: Handler
    family: Family
    permission: Permission
    summary: str = ""
    reads: tuple[Parameter, ...] = ()
    takes: Any = None
    gives: Any = None
    status: int = 200  # of success
    also: tuple[int, ...] = ()  # statuses besides it and those that every route of its kind has
    needs_project: bool = True  # only for a token that is scoped to a project

    @property
    def streams(self) -> bool:
        """Whether the body is bytes of any length, which the handler works on while they come."""
        return isinstance(self.takes, Media) and self.takes.form is None


def bound(routes: Sequence[Route]) -> list[StarletteRoute]:
    """Starlette routes, one a path, so that a wrong method on a known path is a 405 in the API's form."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = paths.setdefault(route.path, {})
        if route.method in methods:
            raise ValueError(f"{route.method} {route.path} is in the route table twice")
        methods[route.method] = route
    return [StarletteRoute(path, _endpoint(methods), methods=None) for path, methods in paths.items()]


class _Endpoint:
    """The ASGI application of one path. A class, so that Starlette hands every method through."""

    def __init__(self, methods: dict[str, Route]) -> None:
        self.methods = methods
        self.family: Family = next(iter(methods.values())).family

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        route = self.methods.get(request.method)
        if route is None:
            response = problems.method_not_allowed(self.family, sorted(self.methods), request)
        else:
            response = await _answer(route, request)
        await response(scope, receive, send)


def _endpoint(methods: dict[str, Route]) -> Any:
    return _Endpoint(methods)


async def _answer(route: Route, request: Request) -> Response:
    try:
        if route.permission is not None:
            request = await _admitted(route, request)
        response = await route.handler(request)
        await signed.settled(request)
    except CalotypeError as error:
        return problems.answer(route.family, await signed.told(request, error), request)
    except ClientDisconnect:
        return Response(status_code=499)  # no one reads it; the number is for the log
    except Exception as error:  # noqa: BLE001 - the edge: whatever was not foreseen is a bug, told without detail
        return problems.bug(route.family, error, request)
    return response


async def _admitted(route: Route, request: Request) -> Request:
    """The request as its handler is to have it, with the caller in its state."""
    in_path = request.path_params.get("project_id") if route.family in ("ims", "native") else None
    if not request.headers.get("x-auth-token") and signed.by_key(request.scope):
        who, request = await signed.admitted(request, path_project=in_path, streams=route.streams)
    else:
        who = authenticated(request)
    request.state.caller = who
    if route.needs_project and who.project_id is None:
        raise Unauthenticated("this call wants a token that is scoped to a project")
    if in_path is not None and in_path != who.project_id:
        raise WrongProject("the project in the path is not that of the token")
    if isinstance(route.permission, OneOf):
        require_one(who, route.permission.actions)
    elif route.permission:
        require(who, *([route.permission] if isinstance(route.permission, str) else route.permission))
    return request


def authenticated(request: Request) -> Caller:
    token = request.headers.get("x-auth-token")
    if not token:
        raise Unauthenticated("no token: send one in X-Auth-Token")
    return app_of(request).identity.authenticate(token)
