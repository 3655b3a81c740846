"""Updates of an image as IMS has them: fewer attributes than Image v2, stricter, values often as text.

Source: contract images-ims.md §9. What is not said here is as `patch` has it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.errors import (
    AttributeConflict,
    InvalidEnterpriseProject,
    InvalidName,
    InvalidSize,
    MalformedBody,
    MissingName,
    NameTooLong,
    PublicImage,
    ReadOnlyAttribute,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.images import attributes
from calotype.images.model import Image, ImageStatus, Operation, Visibility
from calotype.images.service import Images

# Letters, digits, - . _ and inner spaces; CJK letters too, as the newer pages have it.
NAME: Final = re.compile(r"[A-Za-z0-9._\-一-鿿](?:[A-Za-z0-9._ \-一-鿿]*[A-Za-z0-9._\-一-鿿])?")
LONGEST_NAME: Final = 128
BASE: Final = frozenset({"name", "min_ram", "min_disk", "protected"})
ENTERPRISE_PROJECT: Final = "enterprise_project_id"
# Attributes of the API that its owner does not change by this call, besides those that `attributes` knows.
FIXED: Final = attributes.BASE - BASE | {"virtual_env_type", "enterprise_project", "properties"}
SHUTDOWN_S: Final = range(60, 301)


async def update(images: Images, caller: Caller, image_id: str, operations: Sequence[Operation]) -> Image:
    """Do all the operations or none; return the image as it is then.

    Raises `ImageNotFound`, `PublicImage`, `NotImageOwner`, `WrongStatus` unless it is active, and what `normalised`
    and `patch.apply` raise.
    """
    wanted = normalised(operations)

    def work(c: Connection) -> Image:
        image = images.visible_in(c, caller, image_id)
        if image.visibility is Visibility.PUBLIC and not caller.is_admin:
            raise PublicImage("a public image is changed by admins only")
        images.own(caller, image)
        if image.status is not ImageStatus.ACTIVE:
            raise WrongStatus(now=image.status, wanted="only an active image can be updated")
        return images.patch_in(c, caller, image.id, wanted)

    return await images.db.write(work)


def moves_enterprise_project(operations: Sequence[Operation]) -> bool:
    return any(operation.name == ENTERPRISE_PROJECT for operation in operations)


def normalised(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """The operations with values of the types that attributes have. Raises the leaves of `Invalid`,
    `ReadOnlyAttribute` for what this call does not change."""
    return tuple(_normalised(operation) for operation in operations)


def _normalised(operation: Operation) -> Operation:
    name = operation.name
    if name in FIXED or name in attributes.READ_ONLY or name in attributes.SYSTEM or name.lower() != name:
        raise ReadOnlyAttribute(f"attribute {name[: attributes.LONGEST]!r} cannot be set by this call")
    if operation.op == "remove":
        if name in BASE:
            raise ReadOnlyAttribute(f"attribute {name!r} may not be removed")
        return replace(operation, value=None)
    if name in BASE:
        return replace(operation, value=_BASE_VALUES[name](operation.value))
    value = _text(name, operation.value)
    check = _CHECKS.get(name)
    if check is not None:
        check(value)
    if name == ENTERPRISE_PROJECT:  # every image is in one: the default one where nothing is said
        return replace(operation, op="add", value=value or "0")
    return replace(operation, value=value)


def _text(name: str, value: object) -> str:
    """A value as it is stored; null is the empty text. Raises `MalformedBody` for arrays and objects."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise MalformedBody(f"{name[: attributes.LONGEST]}: wants a text, a number or true or false")
    return str(value)


def _name(value: object) -> str:
    text = _text("name", value)
    if not text:
        raise MissingName("name: wants the image's name")
    if len(text) > LONGEST_NAME:
        raise NameTooLong(f"name: at most {LONGEST_NAME} characters")
    if not NAME.fullmatch(text):
        raise InvalidName("name: letters, digits, '-', '.', '_' and spaces, no space at either end")
    return text


def _number(name: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        text = _text(name, value)
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > attributes.LARGEST_INT:
            raise InvalidSize(f"{name}: wants a whole number from 0 to {attributes.LARGEST_INT}")
        return int(text)

    return read


def _protected(value: object) -> bool:
    text = _text("protected", value).lower()
    if text not in ("true", "false"):
        raise MalformedBody("protected: wants true or false")
    return text == "true"


def _enterprise_project(value: str) -> None:
    if value not in ("", "0") and not attributes.IMAGE_ID.fullmatch(value):
        raise InvalidEnterpriseProject("enterprise_project_id: wants a UUID, or 0 for the default one")


def _multiqueue(value: str) -> None:
    if value not in ("true", "false"):
        raise AttributeConflict("hw_vif_multiqueue_enabled: wants true or false")


def _shutdown(value: str) -> None:
    if not re.fullmatch(r"[0-9]{2,3}", value) or int(value) not in SHUTDOWN_S:
        raise AttributeConflict(f"os_shutdown_timeout: wants seconds from {SHUTDOWN_S.start} to {SHUTDOWN_S.stop - 1}")


_BASE_VALUES: Final[Mapping[str, Callable[[object], object]]] = {
    "name": _name,
    "min_ram": _number("min_ram"),
    "min_disk": _number("min_disk"),
    "protected": _protected,
}
_CHECKS: Final[Mapping[str, Callable[[str], None]]] = {
    ENTERPRISE_PROJECT: _enterprise_project,
    "hw_vif_multiqueue_enabled": _multiqueue,
    "os_shutdown_timeout": _shutdown,
}
