"""What the hypervisor's description of a domain says: libvirt's domain XML, of its disks above all; and of a backup.

The operator writes it, but names in it may be a tenant's. It is read without a document type, so without entities, and
to a bounded depth. Source: libvirt, "Domain XML format".
"""

import re
from collections.abc import Iterator
from typing import Final
from uuid import UUID
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from msgspec import Struct

NAMESPACE: Final = "https://calotype.dev/xmlns/1"
MOST_DEPTH: Final = 256  # of elements; a chain of disk images is nested
MOST_LAYERS: Final = 64  # of a chain of disk images
MOST_DISKS: Final = 512
AGENT: Final = "org.qemu.guest_agent.0"

_TARGET: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SOURCES: Final = {"file": "file", "block": "dev"}  # type -> the attribute that has the path
_ARM: Final = ("aarch64", "arm")


class Unreadable(Exception):
    """The description makes no sense."""


class Layer(Struct, frozen=True, kw_only=True):
    """A file or block device that holds a disk, or the part of it that is not in the layers above."""

    path: str | None  # None: of a kind that this host cannot open
    format: str


class Disk(Struct, frozen=True, kw_only=True):
    target: str  # what the guest calls it, about: vda, sdb …; of one domain no two are the same
    layers: tuple[Layer, ...]  # the one that is written to first
    complete: bool  # `layers` are all, whatever the last one's header says; else the description is silent about more
    boot: int | None  # its place in the order that the firmware tries devices in
    secret: str | None  # that it is encrypted with
    shareable: bool
    mirrored: bool  # a copy or a commit is under way

    @property
    def readable(self) -> bool:
        return all(layer.path is not None for layer in self.layers)


class Domain(Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    project: str | None  # name or id
    image_id: str | None
    os_version: str | None
    firmware: str
    architecture: str
    agent: bool  # a guest agent has opened its channel
    disks: tuple[Disk, ...]  # the system disk first


def parse(text: str) -> Domain:
    """Raises `Unreadable`."""
    root = _tree(text)
    if root.tag != "domain":
        raise Unreadable("not the description of a domain")
    try:
        domain_id = UUID(root.findtext("uuid", "").strip())
    except ValueError as error:
        raise Unreadable("a domain without a UUID") from error
    mark = root.find(f"metadata/{{{NAMESPACE}}}server")
    marked = {} if mark is None else mark.attrib
    machine = root.find("os/type")
    return Domain(
        id=domain_id,
        name=root.findtext("name", ""),
        project=marked.get("project") or None,
        image_id=marked.get("image") or None,
        os_version=marked.get("os_version") or None,
        firmware=_firmware(root.find("os")),
        architecture="arm" if machine is not None and machine.get("arch", "").startswith(_ARM) else "x86",
        agent=any(_is_agent(channel) for channel in root.iterfind("devices/channel/target")),
        disks=_in_order(list(_disks(root))),
    )


def backup_targets(text: str) -> tuple[str, ...]:
    """The files that the backup of this description is written to. Raises `Unreadable`."""
    return tuple(target.get("file", "") for target in _tree(text).iterfind("disks/disk/target"))


def _tree(text: str) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="\n")
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise Unreadable(f"elements more than {MOST_DEPTH} deep")
        builder.start(_named(tag), attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_named(tag))

    def refuse(*_: object) -> None:
        raise Unreadable("a description with a document type")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
        return builder.close()
    except (expat.ExpatError, UnicodeEncodeError) as error:  # the second for what was no UTF-8
        raise Unreadable("not XML") from error


def _named(tag: str) -> str:
    space, separator, name = tag.rpartition("\n")
    return f"{{{space}}}{name}" if separator else name


def _firmware(os: Element | None) -> str:
    if os is None:
        return "bios"
    loader = os.find("loader")
    pflash = loader is not None and loader.get("type") == "pflash"
    return "uefi" if os.get("firmware") == "efi" or pflash else "bios"


def _is_agent(target: Element) -> bool:
    return target.get("name") == AGENT and target.get("state") == "connected"


def _disks(root: Element) -> Iterator[Disk]:
    found = [disk for disk in root.iterfind("devices/disk") if disk.get("device", "disk") in ("disk", "lun")]
    if len(found) > MOST_DISKS:
        raise Unreadable(f"more than {MOST_DISKS} disks")
    for disk in found:
        target, boot = disk.find("target"), disk.find("boot")
        name = "" if target is None else target.get("dev", "")
        if not _TARGET.fullmatch(name):
            raise Unreadable("a disk without a target")
        layers, complete = _layers(disk, lun=disk.get("device") == "lun")
        yield Disk(
            target=name,
            layers=layers,
            complete=complete,
            boot=None if boot is None else _number(boot.get("order", "")),
            secret=_secret(disk),
            shareable=disk.find("shareable") is not None,
            mirrored=disk.find("mirror") is not None,
        )


def _layers(disk: Element, *, lun: bool) -> tuple[tuple[Layer, ...], bool]:
    """Each layer, and whether the chain is told to its end: by an empty `<backingStore/>`, or by a raw layer, which
    cannot stand on another one."""
    driver = disk.find("driver")
    format_ = "raw" if driver is None else driver.get("type", "raw")
    layers = [Layer(path=None if lun else _path(disk), format=format_)]
    element: Element | None = disk
    while element is not None:
        below = element.find("backingStore")
        if below is None:
            return tuple(layers), layers[-1].format == "raw"
        if below.find("source") is None and below.find("format") is None:
            return tuple(layers), True
        if len(layers) == MOST_LAYERS:
            raise Unreadable(f"a disk of more than {MOST_LAYERS} layers")
        kind = below.find("format")
        layers.append(Layer(path=_path(below), format="raw" if kind is None else kind.get("type", "raw")))
        element = below
    return tuple(layers), True


def _path(element: Element) -> str | None:
    source, attribute = element.find("source"), _SOURCES.get(element.get("type", "file"))
    if source is None or attribute is None or source.find("slices") is not None:
        return None
    path = source.get(attribute, "")
    return path if path.startswith("/") and "\0" not in path else None


def _secret(disk: Element) -> str | None:
    """Of any layer, at the place that libvirt has had for it since 4.5, or at the one before."""
    for encryption in disk.iter("encryption"):
        secret = encryption.find("secret")
        return "unknown" if secret is None else secret.get("uuid") or secret.get("usage") or "unknown"
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _in_order(disks: list[Disk]) -> tuple[Disk, ...]:
    """The disk that the firmware tries first is the system disk, else the first one; the others stay as they are."""
    tried = [disk for disk in disks if disk.boot is not None]
    first = min(tried, key=lambda disk: disk.boot or 0) if tried else None
    return tuple(disks) if first is None else (first, *(disk for disk in disks if disk is not first))
