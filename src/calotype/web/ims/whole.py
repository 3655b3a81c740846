"""Full-server images: `POST /v1/cloudimages/wholeimages/action`. Contract: images-ims.md §4."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody, MissingBackupId, MissingServerId, UnknownResource
from calotype.servers.model import BackupKind
from calotype.web.described import NewWholeImage
from calotype.web.ims import fields
from calotype.web.ims.accepting import accepted, route
from calotype.web.ims.creating import LONGEST_ID, draft
from calotype.web.request import app_of, body, caller

CREATE: Final = "ims:wholeImages:create"


async def create_whole_image(request: Request) -> Response:
    given = await body(request, dict[str, Any])
    whole = app_of(request).whole
    server_id, backup_id = _id(given, "instance_id"), _id(given, "backup_id")
    if server_id is not None and backup_id is not None:
        raise MalformedBody("instance_id, backup_id: give one of them, not both")
    spec = draft(request, given)
    if server_id is not None:
        return accepted(await whole.of_server(caller(request), server_id, _id(given, "vault_id"), spec))
    if backup_id is not None:
        return accepted(await whole.of_backup(caller(request), backup_id, _kind(given), spec))
    if "backup_id" in given:
        raise MissingBackupId("backup_id: wants the id of a backup")
    if "instance_id" in given:
        raise MissingServerId("instance_id: wants the id of a server")
    raise UnknownResource("give instance_id or backup_id: what the image is made from")


def _kind(given: fields.Body) -> BackupKind:
    text = fields.text(given, "whole_image_type") or BackupKind.CSBS.value
    if text not in BackupKind.__members__:
        raise MalformedBody(f"whole_image_type: wants one of {', '.join(BackupKind.__members__)}")
    return BackupKind(text)


def _id(given: fields.Body, field: str) -> str | None:
    """An id is what the source of servers says; it is looked up, never interpreted."""
    value = fields.text(given, field)
    if value is not None and (len(value) > LONGEST_ID or not value.isprintable()):
        raise MalformedBody(f"{field}: wants an id of at most {LONGEST_ID} characters")
    return value


ROUTES: Final = [
    route(
        "POST",
        "/v1/cloudimages/wholeimages/action",
        create_whole_image,
        CREATE,
        "Create an image of a server with all its disks, or of a backup of one",
        NewWholeImage,
    )
]
