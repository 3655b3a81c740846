"""How an image is shown: one rendering for each API face, of the same attributes. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

from calotype.images.model import Image, Member, Visibility

SCHEMA: Final = "/v2/schemas/image"


def time_text(ms: int) -> str:
    """`2026-01-02T03:04:05Z`"""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_view(image: Image) -> dict[str, Any]:
    """The image as Image v2 shows it: base attributes always there, null without a value; properties beside them."""
    view: dict[str, Any] = {
        "id": image.id,
        "name": image.name,
        "status": image.status.value,
        "visibility": image.visibility.value,
        "protected": image.protected,
        "os_hidden": image.hidden,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": image.hash_algorithm,
        "os_hash_value": image.hash_value,
        "owner": image.project_id,
        "tags": list(image.tags),
        "created_at": time_text(image.created_at),
        "updated_at": time_text(image.updated_at),
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": SCHEMA,
        **image.properties,
        "__imagetype": image_type(image),
        "__isregistered": "true",
        "__image_source_type": "uds",
        "__image_size": str(image.size or 0),
    }
    if image.active_at is not None:
        view["active_at"] = time_text(image.active_at)
    return view


def ims_view(image: Image) -> dict[str, Any]:
    """The image as IMS shows it: what has no value is left out, except `virtual_size`; shared only with members."""
    view = {name: value for name, value in image_view(image).items() if value is not None or name == "virtual_size"}
    view["size"] = image.size or 0
    if image.visibility is Visibility.SHARED and not image.has_members:
        view["visibility"] = Visibility.PRIVATE.value
    return view


def image_type(image: Image) -> str:
    """`__imagetype`: gold is public; shared has members, whichever side looks at it."""
    if image.visibility is Visibility.PUBLIC:
        return "gold"
    return "shared" if image.visibility is Visibility.SHARED and image.has_members else "private"


def member_view(member: Member) -> dict[str, Any]:
    return {
        "image_id": member.image_id,
        "member_id": member.member_id,
        "status": member.status.value,
        "created_at": time_text(member.created_at),
        "updated_at": time_text(member.updated_at),
        "schema": "/v2/schemas/member",
    }
