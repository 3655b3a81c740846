"""What the Image API takes and gives, as JSON Schemas and parameters for the published description. The attributes of
images and members are those of the schemas that the API itself shows."""

from collections.abc import Mapping
from typing import Any, Final

from calotype.images import attributes, patch, query
from calotype.images.model import MemberStatus, Visibility
from calotype.web.imagev2.schemas import SCHEMAS
from calotype.web.route import Media, Parameter

OCTETS: Final = Media(types=("application/octet-stream",))
_PROPERTY_NAME: Final = {"type": "string", "minLength": 1, "maxLength": attributes.LONGEST}


def _attributes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keywords that only upstream's clients know."""
    return {
        name: {keyword: value for keyword, value in described.items() if keyword != "is_base"}
        for name, described in schema["properties"].items()
    }


def shown(name: str, title: str, *, always: tuple[str, ...]) -> dict[str, Any]:
    """What is shown of one thing of the API, whose schema has the name `name`."""
    schema = SCHEMAS[name]
    told = {"title": title, "type": "object", "properties": _attributes(schema), "required": [*always]}
    if "additionalProperties" in schema:
        told["additionalProperties"] = schema["additionalProperties"]
    return told


def page(title: str, key: str, item: str) -> dict[str, Any]:
    """A page of items, whose component has the title `item`."""
    return {
        "title": title,
        "type": "object",
        "properties": {
            key: {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}},
            "schema": {"type": "string"},
            "first": {"type": "string"},
            "next": {"type": "string"},
        },
        "required": [key, "schema"],
    }


_ALWAYS: Final = (
    *("id", "name", "status", "visibility", "protected", "os_hidden", "checksum", "os_hash_algo", "os_hash_value"),
    *("owner", "size", "virtual_size", "container_format", "disk_format", "created_at", "updated_at", "tags"),
    *("min_ram", "min_disk", "self", "file", "schema"),
)
IMAGE: Final = shown("image", "Image", always=_ALWAYS)
IMAGES: Final = page("Images", "images", "Image")
MEMBER: Final = shown(
    "member", "Member", always=("member_id", "image_id", "status", "created_at", "updated_at", "schema")
)
MEMBERS: Final = page("Members", "members", "Member")
SCHEMA: Final = {"title": "Schema", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

NEW_IMAGE: Final[dict[str, Any]] = {
    "title": "NewImage",
    "type": "object",
    "properties": {
        **{
            name: described
            for name, described in IMAGE["properties"].items()
            if not described.get("readOnly") and name != "locations"
        },
        "min_disk": {"type": "integer", "minimum": 0, "maximum": attributes.LARGEST_INT},
        "min_ram": {"type": "integer", "minimum": 0, "maximum": attributes.LARGEST_INT},
    },
    "propertyNames": _PROPERTY_NAME,
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}

_VALUE: Final = {"type": ["string", "boolean", "integer", "array", "object", "null"]}  # objects are locations
_PATH: Final = {"type": "string", "pattern": "^/"}
_V2_1: Final = {
    "type": "array",
    "maxItems": patch.MOST_OPERATIONS,
    "items": {
        "type": "object",
        "properties": {"op": {"enum": [*patch.OPERATIONS]}, "path": _PATH, "value": _VALUE},
        "required": ["op", "path"],
    },
}
_V2_0: Final = {
    "type": "array",
    "maxItems": patch.MOST_OPERATIONS,
    "items": {
        "type": "object",
        "properties": {"value": _VALUE},
        "oneOf": [{"properties": {op: _PATH}, "required": [op]} for op in patch.OPERATIONS],
    },
}
PATCH: Final = Media(
    types=(patch.V2_1, patch.V2_0),
    form={"title": "ImagePatch", "anyOf": [_V2_1, _V2_0], "description": "The form that the media type names"},
)


def _parameter(name: str, summary: str = "", **schema: Any) -> Parameter:
    return Parameter(name=name, schema={"type": "string", **schema}, summary=summary)


PAGING: Final = (
    _parameter("limit", f"at most {query.MOST_PER_PAGE} are shown", type="integer", minimum=0, maximum=query.LARGEST),
    _parameter("marker", "the id of the last item of the page before"),
)
LISTING: Final = (
    *PAGING,
    _parameter("sort", f"KEY:DIRECTION,…; keys: {', '.join(query.SORT_KEYS)}"),
    _parameter("sort_key", enum=[*query.SORT_KEYS]),
    _parameter("sort_dir", enum=["asc", "desc"]),
    *(_parameter(name, "or in:VALUE,VALUE" if name in query.LISTS else "") for name in query.EXACT),
    *(_parameter(name, type="integer", minimum=0, maximum=query.LARGEST) for name in query.NUMBERS),
    *(_parameter(name, "gt:, gte:, lt:, lte:, eq: or neq:TIME") for name in query.TIMES),
    _parameter("visibility", enum=[*Visibility, "all"]),
    _parameter("member_status", enum=[*MemberStatus, "all"]),
    _parameter("os_hidden", type="boolean"),
    _parameter("protected", type="boolean"),
    _parameter("tag"),
)
DOWNLOADING: Final = tuple(Parameter(name=name, where="header") for name in ("Range", "If-Range", "If-None-Match"))
UPLOADING: Final = (
    Parameter(
        name="x-openstack-image-size",
        where="header",
        schema={"type": "integer", "minimum": 0},
        summary="how many bytes follow; an upload of another length is refused",
    ),
)
