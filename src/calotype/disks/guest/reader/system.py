"""Which operating system a file system holds, by the files that say so."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from calotype.disks.guest.reader.blocks import Unreadable, number
from calotype.disks.guest.reader.hive import Hive
from calotype.disks.guest.reader.tree import FileSystem, Kind, content, find, names_in

MOST_TEXT: Final = 16 * 1024  # of a file that names the system
LONGEST: Final = 200  # characters of what is told
MOST_DEPLOYMENTS: Final = 16

# The file that says it itself; in the last place on a partition that is mounted at /usr.
OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release", "/lib/os-release")
# The older files of one line: what it begins with -> the id that os-release would have.
RELEASES: Final = ("/etc/redhat-release", "/etc/oracle-release", "/etc/euleros-release", "/etc/system-release")
BEGINNINGS: Final = {
    "centos": "centos",
    "red hat": "rhel",
    "fedora": "fedora",
    "oracle": "ol",
    "euleros": "euleros",
    "openeuler": "openEuler",
    "rocky": "rocky",
    "almalinux": "almalinux",
    "scientific": "scientific",
}
# What is for every one of the machine's words: the first that is an ELF file says how wide they are.
PROGRAMS: Final = (
    "/bin/sh",
    "/sbin/init",
    "/usr/bin/env",
    "/bin/bash",
    "/bin/busybox",
    "/usr/lib/systemd/systemd",
    "/bin/ls",
)
ELF_MACHINES: Final = {
    3: "x86",
    62: "x86",
    40: "arm",
    183: "arm",
    243: "riscv",
    21: "ppc",
    22: "s390",
    258: "loongarch",
}
ELF_FREEBSD: Final = 9
PE_MACHINES: Final = {0x14C: ("x86", 32), 0x8664: ("x86", 64), 0x1C4: ("arm", 32), 0xAA64: ("arm", 64)}
BUILD_MACHINES: Final = {"x86": ("x86", 32), "amd64": ("x86", 64), "arm64": ("arm", 64)}
SYSTEM32: Final = "/Windows/System32"
CURRENT_VERSION: Final = "Microsoft\\Windows NT\\CurrentVersion"

_ASSIGNMENT: Final = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S*))\s*\Z""")
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+|\d+")


class System(NamedTuple):
    """The words are the system's own; empty where it has none."""

    family: str  # linux, windows, freebsd
    id: str  # of os-release; "windows"
    version_id: str  # of os-release; of Windows as 10.0.17763
    version: str  # of os-release, for people, with a service pack
    release: str  # the most exact number that was found: 7.9.2009 where version_id is 7
    name: str
    edition: str  # of Windows
    architecture: str
    bits: int  # 0: not known


def system_on(files: FileSystem) -> System | None:
    """What the file system is the root of (or, of a system without one, the part that says its name)."""
    if files.name == "ntfs":
        return _windows(files)
    if files.ignores_case:
        return None
    return _unix(files, "") or _deployed(files)


def starts_by_efi(files: FileSystem) -> bool:
    """Whether a partition for EFI has something to start: a folder below the one of that name."""
    folder = find(files, "/EFI")
    if folder is None or folder.kind is not Kind.FOLDER:
        return False
    return any(files.node(reference).kind is Kind.FOLDER for _, reference in files.entries(folder))


def _unix(files: FileSystem, root: str) -> System | None:
    architecture, bits, brand = _machine(files, root)
    freebsd = _text(files, f"{root}/bin/freebsd-version")
    if brand == ELF_FREEBSD or freebsd:
        found = re.search(r'USERLAND_VERSION="?(\d[\w.-]*)', freebsd)
        version = found[1][:LONGEST] if found else ""
        name = f"FreeBSD {version}".strip()
        return System("freebsd", "freebsd", version, version, _number(version), name, "", architecture, bits)
    told = _os_release(files, root) or _older(files, root)
    if told is None:
        known = architecture and find(files, f"{root}/etc/passwd") is not None
        return System("linux", "", "", "", "", "", "", architecture, bits) if known else None
    system_id, version_id, version, name = told
    release = _release(files, root, version_id, version)
    family = "freebsd" if system_id == "freebsd" else "linux"
    return System(family, system_id, version_id, version, release, name, "", architecture, bits)


def _deployed(files: FileSystem) -> System | None:
    """Of OSTree, where each version of the system has a root of its own below the real one."""
    for group in names_in(files, "/ostree/deploy", MOST_DEPLOYMENTS):
        for one in names_in(files, f"/ostree/deploy/{group}/deploy", MOST_DEPLOYMENTS):
            if not one.endswith(".origin"):
                found = _unix(files, f"/ostree/deploy/{group}/deploy/{one}")
                if found is not None:
                    return found
    return None


def _os_release(files: FileSystem, root: str) -> tuple[str, str, str, str] | None:
    for path in OS_RELEASE:
        text = _text(files, root + path)
        values = dict(_assignments(text))
        if values:
            name = values.get("PRETTY_NAME") or values.get("NAME", "")
            return values.get("ID", "linux"), values.get("VERSION_ID", ""), values.get("VERSION", ""), name
    return None


def _older(files: FileSystem, root: str) -> tuple[str, str, str, str] | None:
    """Of systems from before os-release."""
    for path in RELEASES:
        line = _line(_text(files, root + path))
        for beginning, system_id in BEGINNINGS.items():
            if line.casefold().startswith(beginning):
                version = _number(line.partition(" release ")[2])
                return system_id, version, line.partition(" release ")[2], line
    suse = _text(files, f"{root}/etc/SuSE-release")
    if suse:
        values = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in suse.splitlines())}
        version, level = _number(values.get("VERSION", "")), _number(values.get("PATCHLEVEL", ""))
        full = f"{version}.{level}" if level not in ("", "0") else version
        return ("opensuse" if suse.startswith("openSUSE") else "sles"), full, full, _line(suse)
    for path, system_id in (("/etc/alpine-release", "alpine"), ("/etc/debian_version", "debian")):
        line = _line(_text(files, root + path))
        if line:
            return system_id, _number(line), line, f"{system_id.capitalize()} {line}"
    return None


def _release(files: FileSystem, root: str, version_id: str, version: str) -> str:
    """The longest of the numbers that begin with the version: 12.5, where os-release says 12."""
    candidates = [_number(version)]
    for path in (*RELEASES, "/etc/debian_version", "/etc/alpine-release"):
        line = _line(_text(files, root + path))
        candidates.append(_number(line.partition(" release ")[2] or line))
    best = version_id
    for candidate in candidates:
        if candidate.startswith(f"{version_id}.") and len(candidate) > len(best):
            best = candidate
    return best


def _machine(files: FileSystem, root: str) -> tuple[str, int, int]:
    """The architecture, the width of its words, and for which system a program says it was made."""
    for path in PROGRAMS:
        try:
            header = content(files, root + path, 64)
        except Unreadable:
            continue
        if header is None or len(header) < 20 or header[:4] != b"\x7fELF":
            continue
        order = ">H" if header[5] == 2 else "<H"
        architecture = ELF_MACHINES.get(number(order, header, 18), "other")
        return architecture, 64 if header[4] == 2 else 32, header[7]
    return "", 0, 0


def _windows(files: FileSystem) -> System | None:
    try:
        kernel = find(files, f"{SYSTEM32}/ntoskrnl.exe")
        registry = find(files, f"{SYSTEM32}/config/SOFTWARE")
    except Unreadable:
        return None
    if registry is None or registry.kind is not Kind.FILE:
        return None
    values: dict[str, str | int] = {}
    try:
        values = Hive(lambda at, length: files.read(registry, at, length), registry.size).values(CURRENT_VERSION)
    except Unreadable:
        if kernel is None:
            return None
    if kernel is None and not values:
        return None
    words = {name.casefold(): str(value)[:LONGEST] for name, value in values.items()}
    build = words.get("currentbuildnumber") or words.get("currentbuild", "")
    major, minor = words.get("currentmajorversionnumber"), words.get("currentminorversionnumber")
    version = f"{major}.{minor}" if major and minor else words.get("currentversion", "")
    architecture, bits = _pe_machine(files) or _built_for(words.get("buildlabex", words.get("buildlab", "")))
    name = words.get("productname", "")
    number_ = f"{version}.{build}".strip(".")
    service_pack = words.get("csdversion", "")
    edition = words.get("editionid", "")
    return System("windows", "windows", number_, service_pack, build, name, edition, architecture, bits)


def _pe_machine(files: FileSystem) -> tuple[str, int] | None:
    try:
        start = content(files, f"{SYSTEM32}/ntoskrnl.exe", 4096)
        if start and start[:2] == b"MZ":
            at = number("<I", start, 60)
            if start[at : at + 4] == b"PE\0\0":
                return PE_MACHINES.get(number("<H", start, at + 4))
    except Unreadable:
        pass  # packed, as a whole Windows may be; the registry says it, too
    return None


def _built_for(label: str) -> tuple[str, int]:
    """As in 17763.1.amd64fre.rs5_release.180914-1434."""
    for word, machine in BUILD_MACHINES.items():
        if f".{word}fre." in label:
            return machine
    return "", 0


def _text(files: FileSystem, path: str) -> str:
    """A small file; empty if it is not there or cannot be read."""
    try:
        data = content(files, path, MOST_TEXT)
    except Unreadable:
        return ""
    return (data or b"").decode(errors="replace")


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _ASSIGNMENT.match(line)
        if match:
            name, double, single, plain = match.groups()
            value = re.sub(r"\\(.)", r"\1", double) if double is not None else single if single is not None else plain
            yield name, value[:LONGEST]


def _line(text: str) -> str:
    return text.lstrip().partition("\n")[0].strip()[:LONGEST]


def _number(text: str) -> str:
    found = _VERSION.search(text)
    return found[0][:LONGEST] if found else ""
