"""The documents that arrive: what a namespace and what is in it may be created or replaced with. Pure.

The form is that of the Image API v2, and of the files that operators keep definitions in. Fields that the service sets
are allowed where a document that was shown is sent back as a part of another; they count for nothing there.
Null is the same as leaving a field out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from calotype.errors import MalformedBody, ReadOnlyAttribute
from calotype.metadefs.model import LONGEST_DOCUMENT, MOST_ASSOCIATIONS, MOST_DEFINITIONS, Visibility

T = TypeVar("T")
LONGEST_NAME: Final = 80
# No control characters; no `.` or `..`, which clients take out of paths. `$` alone would allow a line break at the end.
NAME: Final = r"^(?!\.{1,2}$)[^\x00-\x1f\x7f]+(?!\n)$"
NAMESPACE_NAME: Final = r"^(?!\.{1,2}$)[^\x00-\x1f\x7f/]+(?!\n)$"  # other names follow it in paths
TEXT: Final = r"^[^\x00]*$"
READ_ONLY: Final = ("self", "schema", "created_at", "updated_at")

Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=NAME)]
NamespaceName = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=NAMESPACE_NAME)]
Label = Annotated[str, Meta(max_length=LONGEST_NAME, pattern=TEXT)]
Summary = Annotated[str, Meta(max_length=500, pattern=TEXT)]
Owner = Annotated[str, Meta(min_length=1, max_length=255, pattern=NAME)]
Text = Annotated[str, Meta(max_length=16384, pattern=TEXT)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Type = Literal["array", "boolean", "integer", "number", "object", "string"]
Scalar = str | int | float | bool | None


class Items(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the items of an array are."""

    type: Type
    enum: list[Scalar] | None = None


class PropertyForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A property: a JSON Schema of one value, and what people call it."""

    name: Name | None = None
    title: Annotated[str, Meta(max_length=255, pattern=TEXT)]
    type: Type
    description: Text | None = None
    operators: list[Label] | None = None  # how a scheduler may compare: <in>, <or>, >= …
    required: list[Name] | None = None
    readonly: bool | None = None
    confidential: bool | None = None
    default: Any = None
    enum: list[Scalar] | None = None
    pattern: Text | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: Count | None = None
    max_length: Count | None = None
    items: Items | None = None
    min_items: Count | None = None
    max_items: Count | None = None
    unique_items: bool | None = None
    additional_items: bool | None = None


class NamedPropertyForm(PropertyForm, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    name: Name


Properties = Annotated[dict[Name, PropertyForm], Meta(max_length=MOST_DEFINITIONS)]


class ObjectForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Properties that belong together."""

    name: Name
    description: Text | None = None
    required: Annotated[list[Name], Meta(max_length=MOST_DEFINITIONS)] | None = None
    properties: Properties | None = None


class TagForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name


class AssociationForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    prefix: Label | None = None
    properties_target: Label | None = None


class PartObject(ObjectForm, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"itself": "self"}):
    itself: Any = None
    schema: Any = None
    created_at: Any = None
    updated_at: Any = None


class PartTag(TagForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    created_at: Any = None
    updated_at: Any = None


class PartAssociation(AssociationForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    created_at: Any = None
    updated_at: Any = None


class TagsForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tags: Annotated[list[PartTag], Meta(max_length=MOST_DEFINITIONS)]


class NamespaceForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    namespace: NamespaceName
    display_name: Label | None = None
    description: Summary | None = None
    visibility: Visibility | None = None  # None: private
    protected: bool | None = None  # None: false
    owner: Owner | None = None  # None: the caller's project
    resource_type_associations: Annotated[list[PartAssociation], Meta(max_length=MOST_ASSOCIATIONS)] | None = None
    properties: Properties | None = None
    objects: Annotated[list[PartObject], Meta(max_length=MOST_DEFINITIONS)] | None = None
    tags: Annotated[list[PartTag], Meta(max_length=MOST_DEFINITIONS)] | None = None


def read(document: Mapping[str, Any], kind: type[T]) -> T:
    """The decoded JSON document as `kind`. Raises `ReadOnlyAttribute`, `MalformedBody`."""
    for field in READ_ONLY:
        if field in document:
            raise ReadOnlyAttribute(f"attribute {field!r} is read-only")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise MalformedBody(f"the body is not as documented: {error}") from error


def is_name(text: str) -> bool:
    """Whether anything in a namespace can have this name."""
    return len(text) <= LONGEST_NAME and re.search(NAME, text) is not None


def property_document(form: PropertyForm) -> dict[str, Any]:
    """The schema of a property as it is kept, without its name. Raises `MalformedBody`."""
    document: dict[str, Any] = msgspec.to_builtins(form)
    document.pop("name", None)
    if form.items is not None and form.items.enum is None:
        document["items"] = {"type": form.items.type}
    for field, values in (("required", form.required), ("operators", form.operators)):
        _each_once(field, values)
    return _fitting({field: value for field, value in document.items() if value is not None})


def object_document(form: ObjectForm) -> dict[str, Any]:
    """An object as it is kept, without its name. Raises `MalformedBody`."""
    _each_once("required", form.required)
    document: dict[str, Any] = {} if form.description is None else {"description": form.description}
    if form.required is not None:
        document["required"] = form.required
    document["properties"] = properties_document(form.properties)
    return _fitting(document)


def properties_document(forms: Mapping[str, PropertyForm] | None) -> dict[str, Any]:
    return {name: property_document(form) for name, form in (forms or {}).items()}


def encoded(document: Mapping[str, Any]) -> str:
    return msgspec.json.encode(document).decode()


def _each_once(field: str, values: Sequence[str] | None) -> None:
    if values is not None and len(set(values)) != len(values):
        raise MalformedBody(f"{field}: each at most once")


def _fitting(document: dict[str, Any]) -> dict[str, Any]:
    if len(encoded(document)) > LONGEST_DOCUMENT:
        raise MalformedBody(f"a definition has at most {LONGEST_DOCUMENT} characters of JSON")
    return document
