"""`/calotype/v1/servers`, `/volumes`: what images can be made from, as the source of servers tells it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter
from calotype.servers.model import Project, Server, Volume
from calotype.servers.opening import project_of
from calotype.servers.source import ServerSource
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route

READ: Final = "ims:images:list"
DEFAULT_LIMIT: Final = 100
MOST_LIMIT: Final = 1000  # a larger one is taken for this


class VolumeView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    size: int  # bytes
    size_gb: int  # rounded up
    status: str
    server_id: str | None
    slot: int | None  # 0: the system disk
    cmk_id: str | None
    dedicated: bool
    shareable: bool
    missing: bool  # there is no data


class ServerView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    status: str
    kind: str
    os_version: str | None
    image_id: str | None
    firmware: str
    architecture: str
    task: str | None
    being_backed_up: bool
    frozen: bool
    reclaimed: bool
    vault_id: str | None
    older_backups: bool
    volumes: list[VolumeView]  # by slot


class ServersView(Struct, frozen=True, kw_only=True):
    servers: list[ServerView]
    next_marker: str | None


class VolumesView(Struct, frozen=True, kw_only=True):
    volumes: list[VolumeView]
    next_marker: str | None


S = TypeVar("S", Server, Volume)
T = TypeVar("T")


async def list_servers(request: Request) -> Response:
    found, marker = await _page(request, lambda source, project: source.servers(project))
    return json(ServersView(servers=[_server(server) for server in found], next_marker=marker))


async def show_server(request: Request) -> Response:
    server_id = request.path_params["server_id"]
    return json(_server(await asked(request, lambda source, project: source.server(project, server_id))))


async def list_volumes(request: Request) -> Response:
    found, marker = await _page(request, lambda source, project: source.volumes(project))
    return json(VolumesView(volumes=[volume_view(volume) for volume in found], next_marker=marker))


async def _page(
    request: Request, listed: Callable[[ServerSource, Project], Sequence[S]]
) -> tuple[Sequence[S], str | None]:
    """Those after the marker, in the order of their ids; and the id of the last one where there are more."""
    limit = limit_of(request.query_params.get("limit"))
    marker = request.query_params.get("marker", "")
    found = sorted((one for one in await asked(request, listed) if one.id > marker), key=lambda one: one.id)
    return found[:limit], found[limit - 1].id if len(found) > limit else None


async def asked(request: Request, ask: Callable[[ServerSource, Project], T]) -> T:
    app = app_of(request)
    project = await project_of(app.db, caller(request).project_id or "")
    return await asyncio.to_thread(ask, app.servers, project)


def _server(server: Server) -> ServerView:
    return ServerView(
        id=server.id,
        name=server.name,
        status=server.status,
        kind=server.kind,
        os_version=server.os_version,
        image_id=server.image_id,
        firmware=server.firmware,
        architecture=server.architecture,
        task=server.task,
        being_backed_up=server.being_backed_up,
        frozen=server.frozen,
        reclaimed=server.reclaimed,
        vault_id=server.vault_id,
        older_backups=server.older_backups,
        volumes=[volume_view(volume) for volume in server.volumes],
    )


def volume_view(volume: Volume) -> VolumeView:
    return VolumeView(
        id=volume.id,
        name=volume.name,
        size=volume.size,
        size_gb=volume.size_gb,
        status=volume.status,
        server_id=volume.server_id,
        slot=volume.slot,
        cmk_id=volume.cmk_id,
        dedicated=volume.dedicated,
        shareable=volume.shareable,
        missing=volume.missing,
    )


def limit_of(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not text.strip("0"):
        raise BadFilter(f"limit: wants a whole number above 0, not {text[:40]!r}")
    return MOST_LIMIT if len(text) > 9 else min(int(text), MOST_LIMIT)


PAGE: Final = (Parameter(name="limit", schema={"type": "integer", "minimum": 1}), Parameter(name="marker"))

ROUTES: Final = [
    Route(
        method="GET",
        path="/calotype/v1/servers",
        handler=list_servers,
        family="native",
        permission=READ,
        summary="List the servers that images can be made from, in the order of their ids",
        reads=PAGE,
        gives=ServersView,
        also=(503,),
    ),
    Route(
        method="GET",
        path="/calotype/v1/servers/{server_id}",
        handler=show_server,
        family="native",
        permission=READ,
        summary="Show a server and its disks",
        gives=ServerView,
        also=(404, 503),
    ),
    Route(
        method="GET",
        path="/calotype/v1/volumes",
        handler=list_volumes,
        family="native",
        permission=READ,
        summary="List disks, of servers and of none, in the order of their ids",
        reads=PAGE,
        gives=VolumesView,
        also=(503,),
    ),
]
