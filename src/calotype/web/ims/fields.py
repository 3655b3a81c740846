"""The fields that IMS requests share: their rules, and the code of each that is broken. Contract: images-ims.md §1."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from calotype.buckets.address import parse_address
from calotype.buckets.model import ObjectAddress
from calotype.errors import (
    DescriptionTooLong,
    EmptyBucketName,
    EncryptedBms,
    InvalidArchitecture,
    InvalidDescription,
    InvalidEnterpriseProject,
    InvalidFirmware,
    InvalidImageType,
    InvalidName,
    InvalidObjectAddress,
    InvalidObjectKey,
    InvalidOsType,
    InvalidSize,
    InvalidTag,
    IsoImage,
    KeyDoesNotExist,
    MalformedBody,
    MissingName,
    NameTooLong,
    TooManyTags,
)
from calotype.images.attributes import IMAGE_ID as UUID
from calotype.images.ims_patch import NAME
from calotype.images.os_versions import find
from calotype.images.tagging import Tag, read
from calotype.jobs.kinds.source_digest import source_digest as read_digest

Body = Mapping[str, Any]

DESCRIPTION: Final = re.compile(r"[^\r\n<>]*")
TAG_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
TAG_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{0,43}")
LONGEST_GONE_KEY: Final = 127  # of a tag that is to go
LONGEST_GONE_VALUE: Final = 255
IMAGE_TYPES: Final = {
    "ECS": "FusionCompute",
    "FusionCompute": "FusionCompute",
    "BMS": "Ironic",
    "Ironic": "Ironic",
    "IsoImage": "IsoImage",
}
ISO_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
MOST_RAM_MB: Final = 2**31 - 1


def text(body: Body, field: str) -> str | None:
    """The string under `field`; None when it is absent, null or empty. Raises `MalformedBody` for another type."""
    value = body.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise MalformedBody(f"{field}: wants a string")
    if "\x00" in value:
        raise MalformedBody(f"{field}: must not hold NUL")
    return value


def flag(body: Body, field: str) -> bool:
    value = body.get(field)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedBody(f"{field}: wants true or false")
    return value


def source_digest(body: Body) -> str | None:
    """The digest that the file is expected to have; of Calotype, not of the contract. Raises `MalformedBody`."""
    value = text(body, "source_digest")
    return None if value is None else read_digest(value)


def name(body: Body) -> str:
    value = text(body, "name")
    if value is None:
        raise MissingName("name: wants the image's name")
    if len(value) > 128:
        raise NameTooLong("name: at most 128 characters")
    if not NAME.fullmatch(value):
        raise InvalidName("name: letters, digits, '-', '.', '_' and spaces, no space at either end")
    return value


def description(body: Body) -> str | None:
    value = text(body, "description")
    if value is None:
        return None
    if len(value) > 1024:
        raise DescriptionTooLong("description: at most 1024 characters")
    if not DESCRIPTION.fullmatch(value):
        raise InvalidDescription("description: no line breaks, no < and no >")
    return value


def number(body: Body, field: str, *, least: int, most: int, default: int | None) -> int | None:
    """A whole number; a string of digits too, since clients send them. Raises `InvalidSize`."""
    value = body.get(field)
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidSize(f"{field}: wants a whole number from {least} to {most}")
    return value


def memory(body: Body) -> tuple[int, int | None]:
    """min_ram and max_ram in MB."""
    low = number(body, "min_ram", least=0, most=MOST_RAM_MB, default=0) or 0
    high = number(body, "max_ram", least=0, most=MOST_RAM_MB, default=None)
    if high is not None and 0 < high < low:
        raise InvalidSize(f"max_ram ({high}) is smaller than min_ram ({low})")
    return low, high


def tags(body: Body, *, most: int) -> tuple[str, ...]:
    """`key=value` strings, of `tags` (`key.value`, `key=value`, `key`) or `image_tags` ({"key", "value"}), not both."""
    plain, given_pairs = body.get("tags") or [], body.get("image_tags") or []
    if plain and given_pairs:
        raise MalformedBody("tags and image_tags cannot be given together")
    found: dict[str, str] = {}
    for entry in _listed(plain, "tags"):
        if not isinstance(entry, str):
            raise MalformedBody("tags: wants strings")
        tag = read(entry)
        _add_tag(found, tag.key, tag.value)
    for entry in _listed(given_pairs, "image_tags"):
        _add_pair(found, entry, "image_tags")
    if len(found) > most:
        raise TooManyTags(f"an image has at most {most} tags")
    return tuple(f"{key}={value}" if value else key for key, value in found.items())


def pair(value: Any, field: str) -> Tag:
    """A tag as the object {"key", "value"}. Raises `MalformedBody`, `InvalidTag`."""
    found: dict[str, str] = {}
    _add_pair(found, value, field)
    return Tag(*found.popitem())


def pairs(value: Any, field: str, *, most: int) -> tuple[Tag, ...]:
    """Tags as objects, no key twice. Raises `MalformedBody`, `InvalidTag`, `TooManyTags`."""
    found: dict[str, str] = {}
    for entry in _filled(value, field):
        _add_pair(found, entry, field)
    if len(found) > most:
        raise TooManyTags(f"an image has at most {most} tags")
    return tuple(Tag(key, value) for key, value in found.items())


def keys(value: Any, field: str) -> tuple[str, ...]:
    """The keys of tags that are to go: of any characters, 1 to 127; a value beside one is not compared."""
    found: dict[str, None] = {}
    for entry in _filled(value, field):
        key, beside = _texts(entry, field)
        if not 1 <= len(key) <= LONGEST_GONE_KEY or len(beside) > LONGEST_GONE_VALUE:
            raise InvalidTag(f"{field}: a key has 1 to {LONGEST_GONE_KEY}, a value to {LONGEST_GONE_VALUE} characters")
        if key in found:
            raise InvalidTag(f"the tag key {key!r} is given twice")
        found[key] = None
    return tuple(found)


def written(value: Any, field: str) -> Tag:
    """A tag as the string `key=value`, `key.value` or `key`. Raises `MalformedBody`, `InvalidTag`."""
    if not isinstance(value, str):
        raise MalformedBody(f"{field}: wants a string")
    found: dict[str, str] = {}
    tag = read(value)
    _add_tag(found, tag.key, tag.value)
    return Tag(*found.popitem())


def _filled(value: Any, field: str) -> Sequence[Any]:
    if not _listed(value, field):
        raise MalformedBody(f"{field}: wants at least one")
    return _listed(value, field)


def _texts(value: Any, field: str) -> tuple[str, str]:
    """The key and the value of an object; the value may be left out."""
    if not isinstance(value, dict) or not isinstance(value.get("key"), str):
        raise MalformedBody(f'{field}: wants objects of the form {{"key": "…", "value": "…"}}')
    beside = value.get("value") or ""
    if not isinstance(beside, str):
        raise MalformedBody(f"{field}: a value is a string")
    return value["key"], beside


def _add_pair(found: dict[str, str], value: Any, field: str) -> None:
    _add_tag(found, *_texts(value, field))


def _listed(value: Any, field: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise MalformedBody(f"{field}: wants an array")
    return value


def _add_tag(found: dict[str, str], key: str, value: str) -> None:
    key, value = key.strip(), value.strip()
    if not TAG_KEY.fullmatch(key) or not TAG_VALUE.fullmatch(value):
        raise InvalidTag("a tag's key has 1 to 36 and its value 0 to 43 letters, digits, '_' or '-'")
    if key in found:
        raise InvalidTag(f"the tag key {key!r} is given twice")
    found[key] = value


def enterprise_project(body: Body) -> str | None:
    value = text(body, "enterprise_project_id")
    if value is None or value == "0":
        return None
    if not UUID.fullmatch(value):
        raise InvalidEnterpriseProject("enterprise_project_id: wants a UUID, or 0 for the default one")
    return value


def no_encryption(body: Body, environment: str) -> None:
    """This service has no keys of its own: any key id is unknown. `environment`: what the image is for; some could not
    be encrypted anyway."""
    if text(body, "cmk_id") is not None:
        if environment == "Ironic":
            raise EncryptedBms("cmk_id: images of bare-metal servers cannot be encrypted; leave it out")
        if environment == "IsoImage":
            raise IsoImage("cmk_id: ISO images cannot be encrypted; leave it out")
        raise KeyDoesNotExist("cmk_id: this service holds no encryption keys; leave it out")


def kind(body: Body) -> str:
    """`type` as the attribute `virtual_env_type`."""
    value = text(body, "type") or "ECS"
    if value not in IMAGE_TYPES:
        raise InvalidImageType(f"type: wants one of {', '.join(IMAGE_TYPES)}")
    return IMAGE_TYPES[value]


def os_properties(body: Body) -> tuple[str | None, dict[str, str]]:
    """`os_version` by its name in the table, from which its attributes follow; else those of `os_type` alone."""
    version, wanted = text(body, "os_version"), os_type(body)
    if version is not None:
        return find(version).os_version, {}
    return None, {"__os_type": wanted} if wanted else {}


def os_type(body: Body) -> str | None:
    wanted = text(body, "os_type")
    if wanted is not None and wanted not in ("Linux", "Windows", "Other"):
        raise InvalidOsType("os_type: wants Linux, Windows or Other")
    return wanted


def objects(body: Body, field: str) -> Sequence[Body]:
    """An array of objects; empty when it is absent, null or empty."""
    value = body.get(field)
    if value is None:
        return ()
    entries = _listed(value, field)
    if not all(isinstance(entry, dict) for entry in entries):
        raise MalformedBody(f"{field}: wants an array of objects")
    return entries


def address(body: Body, field: str) -> ObjectAddress:
    value = body.get(field)
    if value is None or value == "":
        raise InvalidObjectAddress(f"{field}: wants bucket:key")
    if not isinstance(value, str):
        raise MalformedBody(f"{field}: wants a string of the form bucket:key")
    if value.startswith(":"):
        raise EmptyBucketName(f"{field}: no bucket before the colon")
    return parse_address(value, ims=True)


def iso_name(file: ObjectAddress) -> None:
    """The name of an ISO file has letters, digits, '-' and '_' only. Raises `InvalidObjectKey`."""
    name = file.key.rpartition("/")[2].removesuffix(".iso").removesuffix(".ISO")
    if not ISO_NAME.fullmatch(name):
        raise InvalidObjectKey("the name of an ISO file wants letters, digits, '-' and '_', and the suffix .iso")


def boot_properties(body: Body) -> dict[str, str]:
    found: dict[str, str] = {}
    architecture = text(body, "architecture")
    if architecture is not None and architecture not in ("x86", "arm"):
        raise InvalidArchitecture("architecture: wants x86 or arm")
    firmware = text(body, "hw_firmware_type")
    if firmware is not None and firmware not in ("bios", "uefi"):
        raise InvalidFirmware("hw_firmware_type: wants bios or uefi")
    if architecture == "arm":
        found["__support_arm"], firmware = "true", "uefi"
    if firmware is not None:
        found["hw_firmware_type"] = firmware
    return found
