"""Which attributes an image has, who may set them, and what a value may be. Pure.

Three kinds: *base* attributes are columns of their own, *system* attributes the service alone sets, everything else is
a property: a string under a name, that the owner sets.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from calotype.errors import (
    AttributeConflict,
    DescriptionTooLong,
    Invalid,
    InvalidDescription,
    InvalidFirmware,
    InvalidName,
    InvalidSize,
    InvalidTag,
    MalformedBody,
    NameTooLong,
    ReadOnlyAttribute,
    TooManyTags,
)
from calotype.identity.model import ProjectId
from calotype.images.model import Visibility

LONGEST: Final = 255  # characters of a name, a tag or the name of a property
LONGEST_VALUE: Final = 65535  # characters of the value of a property
LARGEST_INT: Final = 2**31 - 1
GIB: Final = 2**30

DISK_FORMATS: Final = frozenset(
    {"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "gpt", "ploop", "zvhd", "zvhd2"}
)
CONTAINER_FORMATS: Final = frozenset({"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"})
VIRTUAL_ENV_TYPES: Final = frozenset({"FusionCompute", "Ironic", "DataImage", "IsoImage"})

# Set with the image's other columns; a patch may change them, never remove them.
BASE: Final = frozenset(
    {
        "name",
        "visibility",
        "protected",
        "os_hidden",
        "container_format",
        "disk_format",
        "min_disk",
        "min_ram",
        "tags",
    }
)
READ_ONLY: Final = frozenset(
    {
        "id",
        "owner",
        "status",
        "size",
        "virtual_size",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "created_at",
        "updated_at",
        "active_at",
        "self",
        "file",
        "schema",
        "direct_url",
        "stores",
        # upstream's reserved words
        "location",
        "locations",
        "deleted",
        "deleted_at",
    }
)
RESERVED_PREFIXES: Final = ("os_glance_", "_sys_")
# What an owner may set of the names that begin with two underscores; all others are the service's or an admin's.
OWNERS: Final = frozenset(
    {
        "__description",
        "__is_config_init",
        "__support_xen",
        "__support_largememory",
        "__support_diskintensive",
        "__support_highperformance",
        "__support_xen_gpu_type",
        "__support_kvm_gpu_type",
        "__support_xen_hana",
        "__support_kvm_infiniband",
        "__support_fc_inject",
        "__support_amd",
        "__support_kvm_hi1822_hisriov",
        "__support_kvm_hi1822_hivirtionet",
    }
)
SYSTEM: Final = frozenset(
    {
        "__os_version",
        "__os_type",
        "__platform",
        "__os_bit",
        "__support_arm",
        "__os_feature_list",
        "__support_agent_list",
        "__imagetype",
        "__isregistered",
        "__image_source_type",
        "__root_origin",
        "__data_origin",
        "__originalimagename",
        "__whole_image",
        "__backup_id",
        "__sequence_num",
        "__image_location",
        "__lazyloading",
        "__image_size",
        "__system__cmkid",
        "__support_kvm",
        "__support_kvm_hi1822_hiovs",
        "__support_kvm_nvme_spdk",
    }
)
IMAGE_ID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NUL: Final = re.compile(r"[\x00\ud800-\udfff]")


def name(value: object) -> str | None:
    """An image's name as Image v2 has it: at most 255 characters, or null. IMS is stricter."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise MalformedBody("name: wants a string")
    if len(value) > LONGEST:
        raise NameTooLong(f"name: at most {LONGEST} characters")
    if _CONTROL.search(value):
        raise InvalidName("name: control characters are not allowed")
    return value


def project_id(attribute: str, value: object) -> ProjectId:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        raise MalformedBody(f"{attribute}: wants the id of a project")
    return ProjectId(value)


def boolean(attribute: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise MalformedBody(f"{attribute}: wants true or false")
    return value


def megabytes(attribute: str, value: object) -> int:
    """`min_disk` (GB) or `min_ram` (MB): a number, not negative; 0 sets no limit."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_INT:
        raise InvalidSize(f"{attribute}: wants a whole number from 0 to {LARGEST_INT}")
    return value


def one_of(attribute: str, value: object, allowed: frozenset[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in allowed:
        raise MalformedBody(f"{attribute}: wants one of {', '.join(sorted(allowed))}")
    return value


def visibility(value: object) -> Visibility:
    try:
        return Visibility(value)  # type: ignore[arg-type]  # whatever it is: it is one of the words or not
    except ValueError:
        raise MalformedBody(f"visibility: wants one of {', '.join(Visibility)}") from None


def tag(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST or _CONTROL.search(value):
        raise InvalidTag(f"a tag wants 1 to {LONGEST} characters, none of them a control character")
    return value


def tags(values: object, *, most: int) -> tuple[str, ...]:
    """A set of tags in the order given, each once."""
    if not isinstance(values, list | tuple):
        raise MalformedBody("tags: wants an array of strings")
    kept = tuple(dict.fromkeys(tag(value) for value in values))
    if len(kept) > most:
        raise TooManyTags(f"an image has at most {most} tags; this would be {len(kept)}")
    return kept


def may_set(attribute: str, *, is_admin: bool) -> None:
    """Pass for a property that the caller may set. Raises `ReadOnlyAttribute`, `MalformedBody`."""
    if not attribute or len(attribute) > LONGEST or _CONTROL.search(attribute):
        raise MalformedBody(f"the name of an attribute wants 1 to {LONGEST} characters, none a control character")
    if attribute in READ_ONLY or attribute in SYSTEM or attribute.startswith(RESERVED_PREFIXES):
        raise ReadOnlyAttribute(f"attribute {attribute!r} is read-only")
    if attribute.startswith("__") and attribute not in OWNERS and not is_admin:
        raise ReadOnlyAttribute(f"attribute {attribute!r} is reserved: names beginning with __ are the service's")


def property_value(attribute: str, value: object) -> str:
    """The value of a property as it is stored. Numbers and booleans become text: clients send them.

    Raises a leaf of `Invalid` that says what is allowed.
    """
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise MalformedBody(f"{attribute[:LONGEST]}: the value of a property is a string")
    if len(value) > LONGEST_VALUE or _NUL.search(value):
        raise MalformedBody(f"{attribute}: at most {LONGEST_VALUE} characters, none of them NUL")
    check = _CHECKS.get(attribute)
    if check is not None:
        check(value)
    return value


def properties_count(properties: Mapping[str, str], *, most: int) -> None:
    """Pass while the properties that the owner set are not too many."""
    own = sum(1 for name in properties if name not in SYSTEM and not name.startswith(RESERVED_PREFIXES))
    if own > most:
        raise Invalid(f"an image has at most {most} properties; this would be {own}")


def combination(properties: Mapping[str, str], min_ram: int) -> None:
    """Pass unless attributes exclude each other. Raises `AttributeConflict`, `InvalidSize`."""
    hypervisors = [flag for flag in ("__support_xen", "__support_kvm") if properties.get(flag) == "true"]
    for attribute in ("__support_xen_gpu_type", "__support_kvm_gpu_type", "__support_xen_hana"):
        if attribute in properties and hypervisors:
            raise AttributeConflict(f"{attribute} excludes {hypervisors[0]}")
    if "__support_kvm_infiniband" in properties and "__support_xen" in hypervisors:
        raise AttributeConflict("__support_kvm_infiniband excludes __support_xen")
    most = int(properties.get("max_ram") or 0)
    if 0 < most < min_ram:
        raise InvalidSize(f"max_ram ({most}) is smaller than min_ram ({min_ram})")


def min_disk_holds(min_disk: int, virtual_size: int | None) -> None:
    """Pass when a disk of `min_disk` GB holds the image, or when either is not said. Raises `InvalidSize`."""
    if 0 < min_disk * GIB < (virtual_size or 0):
        needed = -(-(virtual_size or 0) // GIB)
        raise InvalidSize(f"min_disk ({min_disk} GB) is smaller than the virtual disk, which needs {needed} GB")


def _description(value: str) -> None:
    if len(value) > 1024:
        raise DescriptionTooLong("__description: at most 1024 characters")
    if re.search(r"[\r\n<>]", value):
        raise InvalidDescription("__description: no line breaks, no < and no >")


def _firmware(value: str) -> None:
    if value not in ("bios", "uefi"):
        raise InvalidFirmware("hw_firmware_type: wants bios or uefi")


def _max_ram(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > LARGEST_INT:
        raise InvalidSize(f"max_ram: wants a whole number of MB from 0 to {LARGEST_INT}")


def _part(attribute: str) -> Callable[[str], None]:
    """Of an AMI: the image that is its kernel or its RAM disk. Upstream's schema has it as an id."""

    def check(value: str) -> None:
        if not IMAGE_ID.fullmatch(value):
            raise MalformedBody(f"{attribute}: wants the id of an image, a UUID")

    return check


def _words(attribute: str, allowed: Sequence[str]) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in allowed:
            raise AttributeConflict(f"{attribute}: wants one of {', '.join(sorted(allowed))}")

    return check


_CHECKS: Final[Mapping[str, Callable[[str], None]]] = {
    "__description": _description,
    "hw_firmware_type": _firmware,
    "max_ram": _max_ram,
    "kernel_id": _part("kernel_id"),
    "ramdisk_id": _part("ramdisk_id"),
    "virtual_env_type": _words("virtual_env_type", sorted(VIRTUAL_ENV_TYPES)),
    "__is_config_init": _words("__is_config_init", ("true", "false")),
    "__support_amd": _words("__support_amd", ("true", "false")),
    **{
        flag: _words(flag, ("true",))
        for flag in (
            "__support_xen",
            "__support_largememory",
            "__support_diskintensive",
            "__support_highperformance",
            "__support_xen_hana",
            "__support_kvm_infiniband",
            "__support_kvm_hi1822_hisriov",
            "__support_kvm_hi1822_hivirtionet",
        )
    },
    "__support_xen_gpu_type": _words("__support_xen_gpu_type", ("M60_vGPU",)),
    "__support_kvm_gpu_type": _words("__support_kvm_gpu_type", ("M60", "V100_vGPU", "P2V_V100", "P100", "V100")),
}
