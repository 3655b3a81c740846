"""What the IMS calls on images take and give, as JSON Schemas for the published description. Clients decode strictly:
every attribute that begins with two underscores is a string, `max_ram` too."""

from collections.abc import Mapping
from typing import Any, Final

_STRING: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TIME: Final = {"type": "string", "format": "date-time"}
IMAGE: Final[Mapping[str, Any]] = {
    "title": "ImsImage",
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "status": {"enum": ["queued", "saving", "uploading", "importing", "active", "deactivated", "killed"]},
        "visibility": {"enum": ["private", "public", "shared", "community"]},
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
        "tags": {"type": "array", "items": _STRING},
        "min_disk": _COUNT,
        "min_ram": _COUNT,
        "size": _COUNT,
        "virtual_size": {"type": ["integer", "null"]},
        "created_at": _TIME,
        "updated_at": _TIME,
        "active_at": _TIME,
        "__imagetype": {"enum": ["gold", "private", "shared"]},
        "__image_size": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "required": [
        *("id", "owner", "status", "visibility", "protected", "tags", "min_disk", "min_ram", "size", "virtual_size"),
        *("created_at", "updated_at", "self", "file", "schema"),
        *("__imagetype", "__isregistered", "__image_source_type", "__image_size"),
    ],
    "additionalProperties": _STRING,
}
IMAGES: Final[Mapping[str, Any]] = {
    "title": "ImsImages",
    "type": "object",
    "properties": {
        "images": {"type": "array", "items": {"$ref": "#/components/schemas/ImsImage"}},
        "page_info": {
            "type": "object",
            "properties": {"next_marker": _STRING},
            "required": ["next_marker"],
        },
    },
    "required": ["images"],
}
