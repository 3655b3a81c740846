"""JSON schemas of what the API shows. Clients fetch them to know which attributes are part of an image itself."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.images.attributes import CONTAINER_FORMATS, DISK_FORMATS, LONGEST
from calotype.images.model import ImageStatus, MemberStatus, Visibility
from calotype.jobs.model import TASK_TYPES
from calotype.web.request import json
from calotype.web.route import Route

UUID: Final = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"


def _property(kind: str | list[str], description: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "description": description, **more}


def _shown(kind: str | list[str], description: str, **more: object) -> dict[str, Any]:
    return _property(kind, f"{description} (READ-ONLY)", readOnly=True, **more)


def _extra(description: str, **more: object) -> dict[str, Any]:
    return _property("string", description, is_base=False, **more)


IMAGE: Final[dict[str, Any]] = {
    "name": "image",
    "properties": {
        "id": _property("string", "An identifier for the image", pattern=UUID),
        "name": _property(["null", "string"], "Descriptive name for the image", maxLength=LONGEST),
        "status": _shown("string", "Status of the image", enum=[*ImageStatus]),
        "visibility": _property("string", "Scope of image accessibility", enum=[*Visibility]),
        "protected": _property("boolean", "If true, image will not be deletable."),
        "os_hidden": _property("boolean", "If true, image will not appear in default image list response."),
        "checksum": _shown(["null", "string"], "md5 hash of image contents.", maxLength=32),
        "os_hash_algo": _shown(["null", "string"], "Algorithm to calculate the os_hash_value", maxLength=64),
        "os_hash_value": _shown(
            ["null", "string"],
            "Hexdigest of the image contents using the algorithm specified by the os_hash_algo",
            maxLength=128,
        ),
        "owner": _property(["null", "string"], "Owner of the image", maxLength=LONGEST),
        "size": _shown(["null", "integer"], "Size of image file in bytes"),
        "virtual_size": _shown(["null", "integer"], "Virtual size of image in bytes"),
        "container_format": _property(
            ["null", "string"], "Format of the container", enum=[None, *sorted(CONTAINER_FORMATS)]
        ),
        "disk_format": _property(["null", "string"], "Format of the disk", enum=[None, *sorted(DISK_FORMATS)]),
        "created_at": _shown("string", "Date and time of image registration"),
        "updated_at": _shown("string", "Date and time of the last image modification"),
        "tags": _property(
            "array", "List of strings related to the image", items={"type": "string", "maxLength": LONGEST}
        ),
        "min_ram": _property("integer", "Amount of ram (in MB) required to boot image."),
        "min_disk": _property("integer", "Amount of disk space (in GB) required to boot image."),
        "self": _shown("string", "An image self url"),
        "file": _shown("string", "An image file url"),
        "schema": _shown("string", "An image schema url"),
        "stores": _shown("string", "Ids of the stores that hold the image data, with commas between them"),
        "direct_url": _shown("string", "URL to access the image file kept in external store"),
        "locations": _property(
            "array",
            "A set of URLs to access the image file kept in external store. Never shown, never taken.",
            items={
                "type": "object",
                "properties": {"url": {"type": "string", "maxLength": LONGEST}, "metadata": {"type": "object"}},
                "required": ["url", "metadata"],
            },
        ),
        "kernel_id": _property(
            ["null", "string"],
            "ID of image stored in Glance that should be used as the kernel when booting an AMI-style image.",
            pattern=UUID,
            is_base=False,
        ),
        "ramdisk_id": _property(
            ["null", "string"],
            "ID of image stored in Glance that should be used as the ramdisk when booting an AMI-style image.",
            pattern=UUID,
            is_base=False,
        ),
        "instance_uuid": _extra("Metadata which can be used to record which instance this image is associated with."),
        "architecture": _extra("Operating system architecture"),
        "os_distro": _extra("Common name of operating system distribution"),
        "os_version": _extra("Operating system version as specified by the distributor"),
    },
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

MEMBER: Final[dict[str, Any]] = {
    "name": "member",
    "properties": {
        "member_id": _property("string", "An identifier for the image member (tenantId)"),
        "image_id": _property("string", "An identifier for the image", pattern=UUID),
        "status": _property("string", "The status of this image member", enum=[*MemberStatus]),
        "created_at": _property("string", "Date and time of image member creation"),
        "updated_at": _property("string", "Date and time of last modification of image member"),
        "schema": {"readOnly": True, "type": "string"},
    },
}


TASK: Final[dict[str, Any]] = {
    "name": "task",
    "properties": {
        "id": _property("string", "An identifier for the task", pattern=UUID),
        "type": _property("string", "What the task does", enum=sorted(set(TASK_TYPES.values()))),
        "status": _property("string", "How it stands", enum=["pending", "processing", "success", "failure"]),
        "input": _property(["null", "object"], "What was asked for"),
        "result": _property(["null", "object"], "What came of it"),
        "owner": _property("string", "The project that the task is of"),
        "message": _property("string", "Why it failed, and what to do; else empty"),
        "image_id": _property("string", "The image that it is about"),
        "request_id": _property("string", "The request that asked for it"),
        "user_id": _property("string", "The user who asked for it"),
        "expires_at": _property(["null", "string"], "When its record may be removed"),
        "created_at": _property("string", "When it was asked for"),
        "updated_at": _property("string", "When it ended; before that, when it was asked for"),
        "self": {"readOnly": True, "type": "string"},
        "schema": {"readOnly": True, "type": "string"},
    },
}


def _collection(name: str, item: dict[str, Any], *, paged: bool) -> dict[str, Any]:
    links = [{"rel": "describedby", "href": "{schema}"}]
    properties: dict[str, Any] = {name: {"type": "array", "items": item}, "schema": {"type": "string"}}
    if paged:
        properties |= {"first": {"type": "string"}, "next": {"type": "string"}}
        links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, *links]
    return {"name": name, "properties": properties, "links": links}


def _without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**item, "properties": {name: told for name, told in item["properties"].items() if name not in names}}


SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "image": IMAGE,
    "images": _collection("images", IMAGE, paged=True),
    "member": MEMBER,
    "members": _collection("members", MEMBER, paged=False),
    "task": TASK,
    "tasks": _collection("tasks", _without(TASK, "input", "result", "message"), paged=True),
}


def _route(name: str, schema: dict[str, Any]) -> Route:
    async def show_schema(_request: Request) -> Response:
        return json(schema)

    return Route(
        method="GET",
        path=f"/v2/schemas/{name}",
        handler=show_schema,
        family="imagev2",
        permission="",
        summary=f"Show the schema of {name}",
        gives={"type": "object"},
    )


ROUTES: Final[list[Route]] = [_route(name, schema) for name, schema in SCHEMAS.items()]
