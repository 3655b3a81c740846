"""JSON schemas of the metadata definitions, in the form that upstream's clients check documents with."""

from copy import deepcopy
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.metadefs.forms import LONGEST_NAME
from calotype.web.request import json
from calotype.web.route import Route

Schema = dict[str, Any]
TYPES: Final = ["array", "boolean", "integer", "number", "object", "string", None]


def _text(description: str | None = None, *, longest: int | None = LONGEST_NAME, **more: object) -> Schema:
    bound = {} if longest is None else {"maxLength": longest}
    told = {} if description is None else {"description": description}
    return {"type": "string", **told, **bound, **more}


def _time(description: str) -> Schema:
    return {"type": "string", "readOnly": True, "description": description, "format": "date-time"}


_LINK: Final[Schema] = {"readOnly": True, "type": "string"}
_STRINGS: Final[Schema] = {"$ref": "#/definitions/stringArray"}
_COUNT: Final[Schema] = {"$ref": "#/definitions/positiveInteger"}
_COUNT_OR_0: Final[Schema] = {"$ref": "#/definitions/positiveIntegerDefault0"}
_FLAG: Final[Schema] = {"type": "boolean"}

PROPERTY: Final[dict[str, Schema]] = {
    "name": _text(),
    "title": {"type": "string"},
    "description": {"type": "string"},
    "operators": {"type": "array", "items": {"type": "string"}},
    "type": {"type": "string", "enum": TYPES},
    "required": _STRINGS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _COUNT,
    "minLength": _COUNT_OR_0,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": _FLAG,
    "confidential": _FLAG,
    "default": {},
    "items": {"type": "object", "properties": {"type": {"type": "string", "enum": TYPES}, "enum": {"type": "array"}}},
    "maxItems": _COUNT,
    "minItems": _COUNT_OR_0,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": _FLAG,
}
DEFINITIONS: Final[dict[str, Schema]] = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
    "stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "property": {
        "type": "object",
        "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": PROPERTY},
    },
}
OBJECT: Final[dict[str, Schema]] = {
    "name": _text(),
    "description": {"type": "string"},
    "required": _STRINGS,
    "properties": {"$ref": "#/definitions/property"},
    "schema": _LINK,
    "self": _LINK,
    "created_at": _time("When the object was created"),
    "updated_at": _time("When the object was last replaced"),
}
TAG: Final[dict[str, Schema]] = {
    "name": _text(),
    "created_at": _time("When the tag was created"),
    "updated_at": _time("When the tag was last renamed"),
}
ASSOCIATION: Final[dict[str, Schema]] = {
    "name": _text("The resource type, by the name that orchestration has for it where it has one"),
    "prefix": _text(
        "What the names of the namespace's properties begin with on resources of this type, the separator included"
    ),
    "properties_target": _text("Which set of properties is meant, where resources of this type have several"),
    "created_at": _time("When the association was made"),
    "updated_at": _time("When the association was last changed"),
}
NAMESPACE: Final[dict[str, Schema]] = {
    "namespace": _text("The name, which no other namespace has"),
    "display_name": _text("What people call the namespace"),
    "description": _text("What the namespace is for", longest=500),
    "visibility": {"type": "string", "description": "Who can see the namespace", "enum": ["public", "private"]},
    "protected": {"type": "boolean", "description": "Whether the namespace is kept from being deleted"},
    "owner": _text("The project that the namespace belongs to", longest=255),
    "created_at": _time("When the namespace was created"),
    "updated_at": _time("When the namespace was last replaced"),
    "schema": _LINK,
    "self": _LINK,
    "resource_type_associations": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("name", "prefix", "properties_target")},
        },
    },
    "properties": {"$ref": "#/definitions/property"},
    "objects": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: OBJECT[name] for name in ("description", "required", "properties")}
            | {"name": {"type": "string"}},
        },
    },
    "tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
}


def _schema(name: str, properties: dict[str, Schema], required: list[str], *, defined: bool = True) -> Schema:
    told: Schema = {"name": name, "properties": properties, "additionalProperties": False, "required": required}
    return {**told, "definitions": DEFINITIONS} if defined else told


def _collection(name: str, item: Schema, *, by_name: bool = False) -> Schema:
    """Many of them: in an array, or under their names."""
    inner = deepcopy(item)
    definitions = inner.pop("definitions", None)
    if by_name:
        inner["required"].remove("name")
    held: Schema = {"type": "object", "additionalProperties": inner} if by_name else {"type": "array", "items": inner}
    told: Schema = {
        "name": name,
        "properties": {name: held, **{word: {"type": "string"} for word in ("first", "next", "schema")}},
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }
    return told if definitions is None else {**told, "definitions": definitions}


_namespace: Final = _schema("namespace", NAMESPACE, ["namespace"])
_resource_type: Final = _schema("resource_type_association", ASSOCIATION, ["name"], defined=False)
_property: Final = _schema("property", PROPERTY, ["type", "title", "name"])
_object: Final = _schema("object", OBJECT, ["name"])
_tag: Final = _schema("tag", TAG, ["name"], defined=False)

SCHEMAS: Final[dict[str, Schema]] = {
    "namespace": _namespace,
    "namespaces": _collection("namespaces", _namespace),
    "resource_type": _resource_type,
    "resource_types": _collection("resource_type_associations", _resource_type),
    "property": _property,
    "properties": _collection("properties", _property, by_name=True),
    "object": _object,
    "objects": _collection("objects", _object),
    "tag": _tag,
    "tags": _collection("tags", _tag),
}


def _route(name: str, schema: Schema) -> Route:
    async def show_schema(_request: Request) -> Response:
        return json(schema)

    return Route(
        method="GET",
        path=f"/v2/schemas/metadefs/{name}",
        handler=show_schema,
        family="imagev2",
        permission="",
        summary=f"Show the schema of {name} of metadata definitions",
        gives={"type": "object"},
    )


ROUTES: Final[list[Route]] = [_route(name, schema) for name, schema in SCHEMAS.items()]
