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
_TAG: Final = {"type": "object", "properties": {"key": _STRING, "value": _STRING}, "required": ["key"]}
_SHOWN_TAG: Final = {**_TAG, "required": ["key", "value"]}
PUT_TAG: Final[Mapping[str, Any]] = {
    "title": "PutTag",
    "type": "object",
    "properties": {
        "image_id": {"type": "string", "format": "uuid"},
        "tag": {"type": "string", "description": "key=value, key.value or key"},
        "image_tag": _TAG,
    },
    "required": ["image_id"],
}
ADD_TAG: Final[Mapping[str, Any]] = {
    "title": "AddTag",
    "type": "object",
    "properties": {"tag": _TAG},
    "required": ["tag"],
}
TAG_ACTION: Final[Mapping[str, Any]] = {
    "title": "TagAction",
    "type": "object",
    "properties": {
        "action": {"enum": ["create", "delete"]},
        "tags": {"type": "array", "minItems": 1, "items": _TAG},
    },
    "required": ["action", "tags"],
}
GONE_TAGS: Final[Mapping[str, Any]] = {
    "title": "GoneTags",
    "type": "object",
    "properties": {"tags": {"type": "array", "minItems": 1, "items": _TAG}},
    "required": ["tags"],
}
TAGS: Final[Mapping[str, Any]] = {
    "title": "ImsTags",
    "type": "object",
    "properties": {"tags": {"type": "array", "items": _SHOWN_TAG}},
    "required": ["tags"],
}
TAG_TEXTS: Final[Mapping[str, Any]] = {
    "title": "TagTexts",
    "type": "object",
    "properties": {"tags": {"type": "array", "items": _STRING}},
    "required": ["tags"],
}
_KEY_VALUES: Final = {
    "type": "object",
    "properties": {"key": _STRING, "values": {"type": "array", "items": _STRING}},
    "required": ["key"],
}
_KEYS: Final = {"type": "array", "maxItems": 10, "items": _KEY_VALUES}
ALL_TAGS: Final[Mapping[str, Any]] = {
    "title": "ProjectTags",
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {**_KEY_VALUES, "required": ["key", "values"]}}},
    "required": ["tags"],
}
TAG_QUERY: Final[Mapping[str, Any]] = {
    "title": "TagQuery",
    "type": "object",
    "properties": {
        "action": {"enum": ["filter", "count"]},
        "tags": _KEYS,
        "tags_any": _KEYS,
        "not_tags": _KEYS,
        "not_tags_any": _KEYS,
        "without_any_tag": {"type": "boolean"},
        "limit": {"type": ["string", "integer"]},
        "offset": {"type": ["string", "integer"]},
        "matches": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"key": {"enum": ["resource_name", "resource_id"]}, "value": _STRING},
                "required": ["key", "value"],
            },
        },
    },
    "required": ["action"],
}
FOUND: Final[Mapping[str, Any]] = {
    "title": "FoundByTags",
    "type": "object",
    "properties": {
        "total_count": _COUNT,
        "resources": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "resource_id": {"type": "string", "format": "uuid"},
                    "resource_name": _STRING,
                    "resource_detail": {"type": "object"},
                    "tags": {"type": "array", "items": _SHOWN_TAG},
                },
                "required": ["resource_id", "resource_name", "resource_detail", "tags"],
            },
        },
    },
    "required": ["total_count"],
}
_IDS: Final = {"type": "array", "items": _STRING}
BATCH_MEMBERS: Final[Mapping[str, Any]] = {
    "title": "BatchMembers",
    "type": "object",
    "properties": {"images": _IDS, "projects": _IDS},
    "required": ["images", "projects"],
}
BATCH_ANSWER: Final[Mapping[str, Any]] = {
    "title": "BatchAnswer",
    "type": "object",
    "properties": {
        "images": _IDS,
        "project_id": _STRING,
        "status": {"enum": ["accepted", "rejected"]},
        "vault_id": _STRING,
    },
    "required": ["images", "project_id", "status"],
}
MEMBER: Final[Mapping[str, Any]] = {
    "title": "ImsMember",
    "type": "object",
    "properties": {
        "image_id": {"type": "string", "format": "uuid"},
        "member_id": _STRING,
        "member_type": {"const": "project"},
        "status": {"enum": ["pending", "accepted", "rejected"]},
        "created_at": _TIME,
        "updated_at": _TIME,
        "schema": _STRING,
    },
    "required": ["image_id", "member_id", "member_type", "status", "created_at", "updated_at", "schema"],
}
MEMBERS: Final[Mapping[str, Any]] = {
    "title": "ImsMembers",
    "type": "object",
    "properties": {
        "members": {"type": "array", "items": {"$ref": "#/components/schemas/ImsMember"}},
        "schema": _STRING,
        "page_info": {
            "type": "object",
            "properties": {"next_marker": _STRING, "current_count": _COUNT},
            "required": ["current_count"],
        },
    },
    "required": ["members", "schema", "page_info"],
}
QUOTA: Final[Mapping[str, Any]] = {
    "title": "ImsQuota",
    "type": "object",
    "properties": {
        "quotas": {
            "type": "object",
            "properties": {
                "resources": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "type": {"enum": ["image", "image_shared", "image_member"]},
                            "used": _COUNT,
                            "quota": _COUNT,
                            "min": _COUNT,
                            "max": _COUNT,
                        },
                        "required": ["type", "used", "quota", "min", "max"],
                    },
                }
            },
            "required": ["resources"],
        }
    },
    "required": ["quotas"],
}
OS_VERSIONS: Final[Mapping[str, Any]] = {
    "title": "OsVersions",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "platform": _STRING,
            "version_list": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "platform": _STRING,
                        "os_version_key": _STRING,
                        "os_version": _STRING,
                        "os_bit": {"enum": [32, 64]},
                        "os_type": {"enum": ["Linux", "Windows", "Other"]},
                    },
                    "required": ["platform", "os_version_key", "os_version", "os_bit", "os_type"],
                },
            },
        },
        "required": ["platform", "version_list"],
    },
}
OLD_IMAGES: Final[Mapping[str, Any]] = {
    "title": "ImagesV11",
    "type": "object",
    "properties": {
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "name": {"type": ["string", "null"]},
                    "is_public": {"type": "boolean"},
                    "protected": {"type": "boolean"},
                    "deleted": {"const": False},
                    "deleted_at": {"type": "null"},
                    "size": _COUNT,
                    "virtual_size": {"type": ["integer", "null"]},
                    "min_disk": _COUNT,
                    "min_ram": _COUNT,
                    "properties": {"type": "object", "additionalProperties": _STRING},
                },
                "required": ["id", "status", "owner", "is_public", "deleted", "properties"],
            },
        }
    },
    "required": ["images"],
}
