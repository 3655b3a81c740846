"""What the table of OS versions calls a system that was found on a disk."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from calotype.disks.guest.model import Guest
from calotype.errors import UnknownOsVersion
from calotype.images.os_versions import find, os_attributes, table

WINDOWS_11: Final = 22000  # the first build of it; its registry still says Windows 10
MOST_FIGURES: Final = 6  # of each number of a version

_WIDTH: Final = re.compile(r"(32|64) ?bit")
_FIGURES: Final = re.compile(r"\d+")
_TABLE_VERSION: Final = re.compile(r"(\d+(?:\.\d+)*)(?: SP(\d+))?")
_SERVICE_PACK: Final = re.compile(r"\bSP(\d+)")
_WINDOWS_NOISE: Final = re.compile(r"\(R\)|®|™|\(TM\)|Microsoft|Evaluation|Edition|, ", re.IGNORECASE)
_WINDOWS_WEB: Final = re.compile(r"Windows Web Server (2008(?: R2)?)")


class Line(Struct, frozen=True, kw_only=True):
    """A distribution in the table."""

    platform: str
    series: int = 1  # how many numbers of a version must be the same: 22.04 for Ubuntu, 12 for Debian


LINES: Final[Mapping[str, Line]] = {
    "ubuntu": Line(platform="Ubuntu", series=2),
    "debian": Line(platform="Debian"),
    "centos": Line(platform="CentOS"),
    "centos-stream": Line(platform="CentOS Stream"),
    "rhel": Line(platform="RedHat"),
    "rocky": Line(platform="Rocky Linux"),
    "ol": Line(platform="Oracle Linux"),
    "fedora": Line(platform="Fedora"),
    "sles": Line(platform="SUSE"),
    "sles_sap": Line(platform="SUSE"),
    "opensuse": Line(platform="OpenSUSE"),
    "opensuse-leap": Line(platform="OpenSUSE"),
    "euleros": Line(platform="EulerOS"),
    "openeuler": Line(platform="openEuler", series=2),
    "coreos": Line(platform="CoreOS"),
    "freebsd": Line(platform="FreeBSD"),
}


def attributes_of(guest: Guest, present: Mapping[str, str]) -> dict[str, str]:
    """What an image with this system is told to have; what boots it only where nobody has said it."""
    found = os_attributes(os_version_of(guest))
    arm = guest.architecture == "arm"
    if arm:
        found["__support_arm"] = "true"
    if "hw_firmware_type" not in present and (arm or guest.firmware == "uefi"):
        found["hw_firmware_type"] = "uefi"
    return found


def os_version_of(guest: Guest) -> str:
    """The name in the table. Of a release that is not in it: the one before it in its series, else the one after.

    A system of which the table has no such series is an "Other Linux", an "Other Windows" or an "Other". The table
    does not tell architectures apart, nor does this: an Ubuntu for ARM is that Ubuntu.
    """
    bits = guest.bits or 64
    if guest.family == "windows":
        return _windows(guest, bits) or f"Other Windows({bits} bit)"
    other = f"Other Linux({bits} bit)" if guest.family == "linux" else f"Other({bits} bit)"
    return _in_line(guest, bits) or other


def _in_line(guest: Guest, bits: int) -> str | None:
    name = guest.id.casefold()
    if name == "centos" and "stream" in guest.name.casefold():
        name = "centos-stream"
    line = LINES.get(name)
    wanted = _numbers_of(guest)
    if line is None or len(wanted) < line.series:
        return None
    releases = {
        version: entry.os_version
        for entry in table().values()
        if entry.platform == line.platform and entry.os_bit == bits
        if (version := _numbers_in(entry.os_version))[: line.series] == wanted[: line.series]
    }
    if not releases:
        return None
    before = [version for version in releases if version <= _filled(wanted)]
    return releases[max(before) if before else min(releases)]


def _numbers_of(guest: Guest) -> tuple[int, ...]:
    numbers = _numbers(guest.release or guest.version_id)
    service_pack = _SERVICE_PACK.search(guest.version)
    if service_pack is None or guest.id.casefold() in ("sles", "sles_sap"):  # there it is in the number already
        return numbers
    level = _numbers(service_pack[1])
    return (*numbers[:1], *level) if guest.id.casefold() == "euleros" else (*numbers[:2], *level)


def _numbers_in(os_version: str) -> tuple[int, ...]:
    match = _TABLE_VERSION.search(_WIDTH.sub("", os_version))
    return _filled(_numbers(".".join(part for part in match.groups() if part)) if match else ())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(figures[:MOST_FIGURES]) for figures in _FIGURES.findall(text))


def _filled(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """To three numbers, so that 12 is 12.0.0."""
    return (*numbers, 0, 0, 0)[:3]


def _windows(guest: Guest, bits: int) -> str | None:
    name = " ".join(_WINDOWS_NOISE.sub(" ", guest.name).split())
    name = _WINDOWS_WEB.sub(r"Windows Server \1 WEB", name)
    if name.startswith("Windows 10") and "Server" not in name:
        if (_numbers(guest.release) or (0,))[0] >= WINDOWS_11:
            return None
        name = "Windows 10"
    try:
        return find(f"{name} {bits}bit").os_version
    except UnknownOsVersion:
        return None
