"""The table of operating systems: what `__os_version` says about platform, type and word width."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

from msgspec import Struct

from calotype.errors import UnknownOsVersion


class OsVersion(Struct, frozen=True, kw_only=True):
    os_version: str
    platform: str
    os_type: str  # Linux, Windows, Other
    os_bit: int  # 32 or 64
    architecture: str  # x86
    uefi: bool  # whether images of it can boot with UEFI


@cache
def table() -> Mapping[str, OsVersion]:
    """Every known OS version by its name. Aliases are not entries of their own: see `find`."""
    return {entry.os_version: entry for entry, _ in _entries()}


@cache
def _by_any_name() -> Mapping[str, OsVersion]:
    names: dict[str, OsVersion] = {}
    for entry, aliases in _entries():
        for name in (entry.os_version, *aliases):
            names.setdefault(_folded(name), entry)
    return names


def find(name: str) -> OsVersion:
    """Return the entry of an OS version or of an alias; case and blanks do not matter. Raises `UnknownOsVersion`."""
    entry = table().get(name) or _by_any_name().get(_folded(name))
    if entry is None:
        raise UnknownOsVersion(f"{name[:100]!r} is not a known OS version")
    return entry


def os_attributes(name: str) -> dict[str, str]:
    """Return the `__os…` and `__platform` attributes of an image of this OS version. Raises `UnknownOsVersion`."""
    entry = find(name)
    return {
        "__os_version": entry.os_version,
        "__os_type": entry.os_type,
        "__platform": entry.platform,
        "__os_bit": str(entry.os_bit),
    }


_FIELDS: Final = OsVersion.__struct_fields__


def _entries() -> list[tuple[OsVersion, list[str]]]:
    rows = json.loads(resources.files("calotype.images").joinpath("os_versions.json").read_text())
    return [(OsVersion(**{field: row[field] for field in _FIELDS}), row.get("aliases", [])) for row in rows]


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()
