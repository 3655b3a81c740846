"""What the catalogue of metadata definitions holds. Times are milliseconds since 1970, UTC."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NewType

from msgspec import Struct

NamespaceId = NewType("NamespaceId", int)

MOST_NAMESPACES: Final = 10_000
MOST_RESOURCE_TYPES: Final = 1000
MOST_DEFINITIONS: Final = 1000  # of a namespace: objects, properties and tags together
MOST_ASSOCIATIONS: Final = 100  # of a namespace
LONGEST_DOCUMENT: Final = 64 * 1024  # characters of JSON: one definition
LONGEST_DOCUMENTS: Final = 768 * 1024  # characters of JSON: all definitions of a namespace
MOST_PER_PAGE: Final = 1000


class Visibility(StrEnum):
    PUBLIC = "public"  # everyone
    PRIVATE = "private"  # the owning project


class Kind(StrEnum):
    """What a namespace holds under names; a name is unique among those of its kind."""

    OBJECT = "object"
    PROPERTY = "property"
    TAG = "tag"


class Namespace(Struct, frozen=True, kw_only=True):
    id: NamespaceId
    name: str  # unique; in paths
    display_name: str | None = None
    description: str | None = None
    visibility: Visibility = Visibility.PRIVATE
    protected: bool = False  # it and what is in it cannot be deleted
    owner: str  # a project
    created_at: int
    updated_at: int


class Definition(Struct, frozen=True, kw_only=True):
    """An object, a property or a tag. `document` is all that is shown of it besides its name and times:
    of a property its schema, of an object `description`, `required` and `properties`, of a tag nothing."""

    name: str
    document: Mapping[str, Any] = {}
    created_at: int
    updated_at: int


class ResourceType(Struct, frozen=True, kw_only=True):
    """A kind of thing that carries properties, such as an image or a flavor."""

    name: str
    created_at: int
    updated_at: int


class Association(Struct, frozen=True, kw_only=True):
    """A resource type that the definitions of a namespace apply to."""

    name: str  # of the resource type
    prefix: str | None = None  # what the names of properties begin with there
    properties_target: str | None = None  # which of several sets of properties of the resource is meant
    created_at: int
    updated_at: int


class NamespaceContent(Struct, frozen=True, kw_only=True):
    """A namespace with everything in it."""

    namespace: Namespace
    associations: tuple[Association, ...] = ()
    properties: tuple[Definition, ...] = ()
    objects: tuple[Definition, ...] = ()
    tags: tuple[Definition, ...] = ()


NamespaceSortKey = Literal[
    "namespace", "display_name", "visibility", "protected", "owner", "created_at", "updated_at", "id"
]
DefinitionSortKey = Literal["name", "created_at", "updated_at", "id"]


class NamespaceQuery(Struct, frozen=True, kw_only=True):
    """Which namespaces of those that the caller may see, in which order, how many."""

    visibility: Visibility | None = None
    protected: bool | None = None
    resource_types: tuple[str, ...] | None = None  # associated with one of these
    sort_key: NamespaceSortKey = "created_at"
    descending: bool = True
    marker: str | None = None  # the name of the last namespace of the page before
    limit: int = 25


class DefinitionQuery(Struct, frozen=True, kw_only=True):
    sort_key: DefinitionSortKey = "created_at"
    descending: bool = True
    marker: str | None = None  # the name of the last one of the page before
    limit: int = MOST_DEFINITIONS


class NamespacePage(Struct, frozen=True, kw_only=True):
    """Namespaces with their associations only."""

    namespaces: tuple[NamespaceContent, ...]
    next_marker: str | None = None  # None: nothing follows


class DefinitionPage(Struct, frozen=True, kw_only=True):
    definitions: tuple[Definition, ...]
    next_marker: str | None = None
