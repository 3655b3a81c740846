"""Patches of an image: the two forms they arrive in, and what they make of an image. Pure.

Only attributes are addressed, never parts of one: a path has one segment. `~0` and `~1` stand for `~` and `/`.
Source: RFC 6902, and the Image API v2 reference, "Update image" (media types v2.1 and v2.0).
"""

import re
from collections.abc import Sequence
from typing import Any, Final, cast

from msgspec.structs import replace

from calotype.errors import Forbidden, MalformedBody, MissingAttribute, ReadOnlyAttribute
from calotype.images import attributes
from calotype.images.model import Image, ImageStatus, Operation, Visibility

V2_1: Final = "application/openstack-images-v2.1-json-patch"
V2_0: Final = "application/openstack-images-v2.0-json-patch"
OPERATIONS: Final = ("add", "replace", "remove")
MOST_OPERATIONS: Final = 1000


def parse(document: object, *, media_type: str = V2_1) -> tuple[Operation, ...]:
    """Return the operations of a decoded patch document. Raises `MalformedBody`, `ReadOnlyAttribute`."""
    if not isinstance(document, list):
        raise MalformedBody("a patch is an array of operations")
    if len(document) > MOST_OPERATIONS:
        raise MalformedBody(f"a patch has at most {MOST_OPERATIONS} operations")
    return tuple(_operation(element, media_type) for element in document)


def apply(
    image: Image,
    operations: Sequence[Operation],
    *,
    is_admin: bool,
    may_publish: bool,
    most_tags: int,
    most_properties: int,
) -> Image:
    """Return the image as all operations make it, in order; or raise, and none has an effect.

    Raises `ReadOnlyAttribute`, `MissingAttribute` when one to replace or remove is not there, `Forbidden` for what the
    caller may not make public, and the leaves of `Invalid`.
    """
    for operation in operations:
        if operation.name == "owner" and is_admin:
            image = _handed_over(image, operation)
        elif operation.name in attributes.BASE:
            image = _base(image, operation, may_publish=may_publish, most_tags=most_tags)
        else:
            image = _property(image, operation, is_admin=is_admin)
    attributes.properties_count(image.properties, most=most_properties)
    attributes.combination(image.properties, image.min_ram)
    if any(operation.name == "min_disk" for operation in operations):
        attributes.min_disk_holds(image.min_disk, image.virtual_size)
    return image


def _operation(element: object, media_type: str) -> Operation:
    if not isinstance(element, dict):
        raise MalformedBody("an operation of a patch is an object")
    element = cast(dict[str, Any], element)
    op: Any
    if media_type == V2_0:
        named = [op for op in OPERATIONS if op in element]
        if len(named) != 1:
            raise MalformedBody('an operation wants exactly one member named "add", "replace" or "remove"')
        op, path = named[0], element[named[0]]
    else:
        op, path = element.get("op"), element.get("path")
        if op not in OPERATIONS:
            raise MalformedBody(f"op: wants one of {', '.join(OPERATIONS)}")
    if op != "remove" and "value" not in element:
        raise MalformedBody(f'an operation "{op}" wants a member named "value"')
    name, position = _attribute(path)
    return Operation(op=op, name=name, value=None if op == "remove" else element["value"], position=position)


def _attribute(path: object) -> tuple[str, str | None]:
    """The one segment of a JSON pointer; of `locations`, which have elements, also what follows it."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise MalformedBody("path: wants a string that begins with /")
    if re.search(r"~(?![01])", path):
        raise MalformedBody("path: ~ stands only before 0 or 1")
    segments = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    if segments[0] == "locations":
        return segments[0], "/".join(segments[1:]) if len(segments) > 1 else None
    if len(segments) != 1 or not segments[0].strip():
        raise MalformedBody("path: wants one attribute, as in /name")
    return segments[0], None


def _base(image: Image, operation: Operation, *, may_publish: bool, most_tags: int) -> Image:
    attribute, value = operation.name, operation.value
    if operation.op == "remove":
        raise ReadOnlyAttribute(f"attribute {attribute!r} may not be removed")
    match attribute:
        case "name":
            return replace(image, name=attributes.name(value))
        case "visibility":
            wanted = attributes.visibility(value)
            if wanted is Visibility.PUBLIC and image.visibility is not Visibility.PUBLIC and not may_publish:
                raise Forbidden("your roles on this project do not allow ims:images:publish")
            return replace(image, visibility=wanted)
        case "protected":
            return replace(image, protected=attributes.boolean(attribute, value))
        case "os_hidden":
            return replace(image, hidden=attributes.boolean(attribute, value))
        case "min_disk":
            return replace(image, min_disk=attributes.megabytes(attribute, value))
        case "min_ram":
            return replace(image, min_ram=attributes.megabytes(attribute, value))
        case "tags":
            return replace(image, tags=attributes.tags(value, most=most_tags))
        case "disk_format":
            chosen = attributes.one_of(attribute, value, attributes.DISK_FORMATS)
            _only_queued(image, attribute, changes=chosen != image.disk_format)
            return replace(image, disk_format=chosen)
        case _:
            chosen = attributes.one_of(attribute, value, attributes.CONTAINER_FORMATS)
            _only_queued(image, attribute, changes=chosen != image.container_format)
            return replace(image, container_format=chosen)


def _handed_over(image: Image, operation: Operation) -> Image:
    if operation.op == "remove":
        raise ReadOnlyAttribute("attribute 'owner' may not be removed")
    return replace(image, project_id=attributes.project_id("owner", operation.value))


def _only_queued(image: Image, attribute: str, *, changes: bool) -> None:
    if changes and image.status is not ImageStatus.QUEUED:
        raise ReadOnlyAttribute(f"attribute {attribute!r} can be changed only while the image is queued")


def _property(image: Image, operation: Operation, *, is_admin: bool) -> Image:
    attribute = operation.name
    attributes.may_set(attribute, is_admin=is_admin)
    if operation.op != "add" and attribute not in image.properties:
        raise MissingAttribute(f"the image has no attribute {attribute!r}")
    kept = {other: value for other, value in image.properties.items() if other != attribute}
    if operation.op == "remove":
        if attribute == "virtual_env_type":
            raise ReadOnlyAttribute("attribute 'virtual_env_type' may not be removed")
        return replace(image, properties=kept)
    value = attributes.property_value(attribute, operation.value)
    return replace(image, properties={**kept, attribute: value})
