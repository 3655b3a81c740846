"""`/calotype/v1/backups`: the backups that the service keeps, and those that the source of servers has."""

from typing import Final, Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from calotype.backups.model import KeptBackup, KeptDisk
from calotype.blobs.download import stream
from calotype.errors import BackupNotFound, BadFilter, Forbidden
from calotype.jobs.view import iso_ms
from calotype.servers.model import Backup, Server
from calotype.web import octets
from calotype.web.native.servers import PAGE, READ, VolumeView, asked, limit_of, volume_view
from calotype.web.request import app_of, caller, json
from calotype.web.route import Media, Parameter, Route

Origin = Literal["service", "source"]
MOST_DIGITS: Final = 4  # of a slot


class BackedUpView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    kind: str
    os_version: str | None
    image_id: str | None
    firmware: str
    architecture: str
    volumes: list[VolumeView]


class BackupDiskView(Struct, frozen=True, kw_only=True):
    slot: int  # 0: the system disk
    volume_id: str
    name: str
    size: int  # bytes stored
    virtual_size: int  # bytes that the guest saw
    disk_format: str
    checksum: str  # md5
    os_hash_algo: str
    os_hash_value: str


class BackupView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    kind: str
    status: str
    origin: Origin  # service: kept here; source: the source of servers has it, and the service only reads it
    accessible: bool
    shared: bool
    created_at: str | None
    has_os: bool
    server: BackedUpView  # as it was
    vault_id: str | None
    image_id: str | None  # the image that is made from it
    size: int | None  # bytes stored; null: not kept here
    disks: list[BackupDiskView]  # by slot; none where it is not kept here


class BackupsView(Struct, frozen=True, kw_only=True):
    backups: list[BackupView]
    next_marker: str | None


async def list_backups(request: Request) -> Response:
    """Of an id that both have, the one that is kept here."""
    query = request.query_params
    limit, marker, origin = limit_of(query.get("limit")), query.get("marker", ""), query.get("origin", "")
    if origin not in ("", "service", "source"):
        raise BadFilter("origin: wants service or source")
    found: dict[str, KeptBackup | Backup] = {}
    if origin != "service":
        for backup in await asked(request, lambda source, project: source.backups(project)):
            if backup.id > marker:
                found[backup.id] = backup
    if origin != "source":
        for kept in await app_of(request).backups.page(caller(request), after=marker, limit=limit + 1):
            found[kept.id] = kept
    ids = sorted(found)
    views = [_view(found[backup_id]) for backup_id in ids[:limit]]
    return json(BackupsView(backups=views, next_marker=ids[limit - 1] if len(ids) > limit else None))


async def show_backup(request: Request) -> Response:
    backup_id = request.path_params["backup_id"]
    kept = await app_of(request).backups.find(caller(request), backup_id)
    if kept is not None:
        return json(_view(kept))
    return json(_view(await asked(request, lambda source, project: source.backup(project, backup_id))))


async def delete_backup(request: Request) -> Response:
    app, backup_id = app_of(request), request.path_params["backup_id"]
    try:
        await app.backups.delete(caller(request), backup_id)
    except BackupNotFound:
        await asked(request, lambda source, project: source.backup(project, backup_id))
        raise Forbidden("the backup is the source's of the servers, which the service only reads") from None
    return Response(status_code=204)


async def download_disk(request: Request) -> Response:
    slot = request.path_params["slot"]
    if not (slot.isascii() and slot.isdigit()) or len(slot) > MOST_DIGITS:
        raise BackupNotFound(f"a backup has no disk {slot[:40]!r}")
    disk, reader = await app_of(request).backups.open(caller(request), request.path_params["backup_id"], int(slot))
    try:
        part = octets.asked(request, size=reader.size, md5=disk.blob.digests.md5)
        if part.status == 304 or request.method == "HEAD":
            reader.close()
            return Response(status_code=part.status, headers=dict(part.headers), media_type=part.media_type)
    except BaseException:
        reader.close()
        raise
    return StreamingResponse(stream(reader, part.first, part.length), part.status, part.headers, part.media_type)


def _view(backup: KeptBackup | Backup) -> BackupView:
    if isinstance(backup, KeptBackup):
        return BackupView(
            id=backup.id,
            name=backup.name,
            kind=backup.kind,
            status=backup.state,
            origin="service",
            accessible=True,
            shared=backup.shared,
            created_at=iso_ms(backup.created_at),
            has_os=True,
            server=_backed_up(backup.server),
            vault_id=backup.vault_id,
            image_id=backup.image_id,
            size=backup.size,
            disks=[_disk(disk) for disk in backup.disks],
        )
    return BackupView(
        id=backup.id,
        name=backup.name,
        kind=backup.kind,
        status=backup.status,
        origin="source",
        accessible=backup.accessible,
        shared=backup.shared,
        created_at=iso_ms(backup.created_at),
        has_os=backup.has_os,
        server=_backed_up(backup.server),
        vault_id=None,
        image_id=None,
        size=None,
        disks=[],
    )


def _backed_up(server: Server) -> BackedUpView:
    return BackedUpView(
        id=server.id,
        name=server.name,
        kind=server.kind,
        os_version=server.os_version,
        image_id=server.image_id,
        firmware=server.firmware,
        architecture=server.architecture,
        volumes=[volume_view(volume) for volume in server.volumes],
    )


def _disk(disk: KeptDisk) -> BackupDiskView:
    digests = disk.blob.digests
    return BackupDiskView(
        slot=disk.slot,
        volume_id=disk.volume_id,
        name=disk.name,
        size=disk.size,
        virtual_size=disk.virtual_size,
        disk_format=disk.disk_format,
        checksum=digests.md5,
        os_hash_algo=digests.hash_algorithm,
        os_hash_value=digests.hash_value,
    )


SHOW: Final = "ims:images:get"
BACKUP: Final = "/calotype/v1/backups/{backup_id}"
FILE: Final = BACKUP + "/disks/{slot}/file"
READING: Final = tuple(Parameter(name=name, where="header") for name in ("Range", "If-Range", "If-None-Match"))

ROUTES: Final = [
    Route(
        method="GET",
        path="/calotype/v1/backups",
        handler=list_backups,
        family="native",
        permission=READ,
        summary="List backups of servers, in the order of their ids",
        reads=(*PAGE, Parameter(name="origin", schema={"enum": ["service", "source"]})),
        gives=BackupsView,
        also=(503,),
    ),
    Route(
        method="GET",
        path=BACKUP,
        handler=show_backup,
        family="native",
        permission=READ,
        summary="Show a backup and its disks",
        gives=BackupView,
        also=(404, 503),
    ),
    Route(
        method="DELETE",
        path=BACKUP,
        handler=delete_backup,
        family="native",
        permission="ims:images:delete",
        summary="Delete a backup that the service keeps and no image is made from",
        status=204,
        also=(404, 503),
    ),
    Route(
        method="GET",
        path=FILE,
        handler=download_disk,
        family="native",
        permission=SHOW,
        summary="Download a disk of a backup",
        reads=READING,
        gives=Media(types=(octets.OCTETS,)),
        also=(206, 304, 416),
    ),
    Route(
        method="HEAD",
        path=FILE,
        handler=download_disk,
        family="native",
        permission=SHOW,
        summary="Show the size and digest of a disk of a backup",
        reads=READING,
        also=(206, 304, 416),
    ),
]
