"""How metadata definitions are shown. What has no value is left out, as upstream does. Pure."""

from typing import Any, NotRequired, TypedDict

from calotype.images.view import time_text
from calotype.metadefs.forms import PropertyForm
from calotype.metadefs.model import Association, Definition, Namespace, NamespaceContent, ResourceType
from calotype.web.imagev2.metadefs.entry import here


class ResourceTypeView(TypedDict):
    name: str
    created_at: str
    updated_at: str


class AssociationView(TypedDict):
    name: str
    prefix: NotRequired[str]
    properties_target: NotRequired[str]
    created_at: str
    updated_at: str


class ObjectView(TypedDict):
    name: str
    description: NotRequired[str]
    required: NotRequired[list[str]]
    properties: dict[str, PropertyForm]
    created_at: str
    updated_at: str
    self: str
    schema: str


class TagView(TypedDict):
    name: str
    created_at: str
    updated_at: str


class TagName(TypedDict):
    name: str


class NamespaceView(TypedDict):
    namespace: str
    display_name: NotRequired[str]
    description: NotRequired[str]
    visibility: str
    protected: bool
    owner: str
    created_at: str
    updated_at: str
    self: str
    schema: str
    resource_type_associations: NotRequired[list[AssociationView]]
    properties: NotRequired[dict[str, PropertyForm]]
    objects: NotRequired[list[ObjectView]]
    tags: NotRequired[list[TagName]]


class NamespacesView(TypedDict):
    namespaces: list[NamespaceView]
    first: str
    next: NotRequired[str]
    schema: str


class PropertiesView(TypedDict):
    properties: dict[str, PropertyForm]


class ObjectsView(TypedDict):
    objects: list[ObjectView]
    next: NotRequired[str]
    schema: str


class TagsView(TypedDict):
    tags: list[TagName]
    next: NotRequired[str]


class ResourceTypesView(TypedDict):
    resource_types: list[ResourceTypeView]


class AssociationsView(TypedDict):
    resource_type_associations: list[AssociationView]


Document = dict[str, Any]


def namespace_view(namespace: Namespace) -> Document:
    view: Document = {
        "namespace": namespace.name,
        "visibility": namespace.visibility.value,
        "protected": namespace.protected,
        "owner": namespace.owner,
        **_times(namespace),
        "self": here(namespace.name),
        "schema": "/v2/schemas/metadefs/namespace",
    }
    for field in ("display_name", "description"):
        value = getattr(namespace, field)
        if value is not None:
            view[field] = value
    return view


def content_view(content: NamespaceContent, *, resource_type: str | None = None) -> Document:
    """A namespace with all that is in it. With a resource type, the names of properties have the prefix that they have
    on resources of that type."""
    view = namespace_view(content.namespace)
    if content.associations:
        view["resource_type_associations"] = [association_view(each) for each in content.associations]
    prefix = next((each.prefix for each in content.associations if each.name == resource_type), None) or ""
    if content.properties:
        view["properties"] = {prefix + name: schema for name, schema in properties_view(content.properties).items()}
    if content.objects:
        view["objects"] = [_prefixed(object_view(content.namespace.name, each), prefix) for each in content.objects]
    if content.tags:
        view["tags"] = [{"name": each.name} for each in content.tags]
    return view


def _prefixed(view: Document, prefix: str) -> Document:
    view["properties"] = {prefix + name: schema for name, schema in view["properties"].items()}
    if "required" in view:
        view["required"] = [prefix + name for name in view["required"]]
    return view


def properties_view(properties: tuple[Definition, ...]) -> Document:
    return {each.name: each.document for each in properties}


def property_view(definition: Definition) -> Document:
    return {**definition.document, "name": definition.name}


def object_view(namespace: str, definition: Definition) -> Document:
    return {
        "name": definition.name,
        **definition.document,
        **_times(definition),
        "self": here(namespace, "objects", definition.name),
        "schema": "/v2/schemas/metadefs/object",
    }


def tag_view(definition: Definition) -> Document:
    return {"name": definition.name, **_times(definition)}


def association_view(association: Association) -> Document:
    view: Document = {"name": association.name, **_times(association)}
    for field in ("prefix", "properties_target"):
        value = getattr(association, field)
        if value is not None:
            view[field] = value
    return view


def resource_type_view(resource_type: ResourceType) -> Document:
    return {"name": resource_type.name, **_times(resource_type)}


def _times(dated: Namespace | Definition | Association | ResourceType) -> Document:
    return {"created_at": time_text(dated.created_at), "updated_at": time_text(dated.updated_at)}
