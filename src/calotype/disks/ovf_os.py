"""The operating system that an OVF names, as an OS version of the IMS API: only where the one says the other for sure.

An OVF seldom tells more than a family and a word width, so most become "Other Linux(64 bit)" and the like.
Source: the OSType of CIM_OperatingSystem (DMTF); the guest ids of vSphere; the OS types of VirtualBox.
"""

import re
from collections.abc import Mapping
from typing import Final

LINUX_64, LINUX_32 = "Other Linux(64 bit)", "Other Linux(32 bit)"
WINDOWS_64, WINDOWS_32 = "Other Windows(64 bit)", "Other Windows(32 bit)"
WINDOWS_10: Final = "Windows 10 64bit"

CIM: Final[Mapping[int, str]] = {
    **dict.fromkeys((80, 83, 85, 90, 92, 94, 96, 98, 100, 101, 107, 109), LINUX_64),
    **dict.fromkeys((79, 82, 84, 89, 91, 93, 95, 97, 99, 106, 108), LINUX_32),
    **dict.fromkeys((70, 71, 74, 77, 103, 112, 114, 115, 116, 118), WINDOWS_64),
    120: WINDOWS_10,
}
EXACT: Final[Mapping[str, str]] = {
    "windows9_64guest": WINDOWS_10,  # what vSphere calls Windows 10
    "windows10_64": WINDOWS_10,
    "otherguest64": "Other(64 bit)",
    "other_64": "Other(64 bit)",
    "otherguest": "Other(32 bit)",
}
LINUX: Final = re.compile(
    r"(alma|amazon|arch|asianux|centos|coreos|debian|fedora|gentoo|linux|mandr|opensuse|oracle|other\dx?|other\d*xlinux|"
    r"otherlinux|redhat|rhel|rocky|sles|suse|turbolinux|ubuntu|vmwarephoton).*"
)
WORD_WIDTH: Final = re.compile(r".*?(?P<arm>_arm)?_?(?P<wide>64)?(guest)?")


def os_version(cim_id: str, *types: str) -> str | None:
    """`cim_id` is the `ovf:id` of an OperatingSystemSection, `types` what the vendors call it there, each "" if absent.
    None: it does not say for sure."""
    for name in types:
        found = _of_type(name.casefold())
        if found is not None:
            return found
    return CIM.get(int(cim_id)) if re.fullmatch(r"[0-9]{1,4}", cim_id) else None


def _of_type(name: str) -> str | None:
    if name in EXACT:
        return EXACT[name]
    width = WORD_WIDTH.fullmatch(name)
    if not name or width is None or width["arm"]:
        return None
    if name.startswith("win"):
        return WINDOWS_64 if width["wide"] else WINDOWS_32
    if LINUX.fullmatch(name):
        return LINUX_64 if width["wide"] else LINUX_32
    return None
