"""What an OVF says of a virtual machine: which of the files beside it are its disks, and in which order it sees them.

An OVF comes from a stranger: nothing in it chooses a file outside its archive, and whatever could be read in two ways
is refused. Elements are known by their namespaces, never by prefixes.
Source: DMTF DSP0243, Open Virtualization Format, versions 1.1 and 2.1; DMTF DSP0004, "Programmatic Units".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from calotype.disks.formats.tar import shown
from calotype.disks.formats.xml import Element, parse
from calotype.disks.ovf_os import os_version
from calotype.errors import OvaRefused

MOST_BYTES: Final = 1024 * 1024  # of the document
ENVELOPES: Final = ("http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/2")
CIM: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
ALLOCATIONS: Final = frozenset(
    f"{CIM}CIM_{name}AllocationSettingData{end}" for name in ("Resource", "Storage") for end in ("", ".xsd")
)
VMWARE: Final = "http://www.vmware.com/schema/ovf"
VIRTUALBOX: Final = "http://www.virtualbox.org/ovf/machine"
HARD_DISKS: Final = frozenset({"17", "31"})  # ResourceType: disk drive, logical disk
CONTROLLERS: Final = frozenset({"5", "6", "7", "8", "20"})  # IDE, parallel SCSI, FC, iSCSI, other storage (SATA, NVMe)
MOST_CAPACITY: Final = 2**63 - 1
OLD_UNITS: Final = {"gigabytes": 2**30, "megabytes": 2**20, "kilobytes": 2**10, "bytes": 1}

_UNIT: Final = re.compile(r"byte(?:\s*\*\s*([0-9]{1,6})(?:\s*\^\s*([0-9]{1,2}))?)?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_SMALL: Final = re.compile(r"[0-9]{1,6}")
_DISK: Final = re.compile(r"(?:ovf:)?/disk/(.+)")


class OvfFile(Struct, frozen=True, kw_only=True):
    """A file of the package."""

    name: str
    size: int | None = None  # bytes, packed
    packed: bool = False  # gzip


class OvfDisk(Struct, frozen=True, kw_only=True):
    """A disk of the machine. `capacity`: the bytes that its guest sees, as far as the OVF tells."""

    id: str
    file: OvfFile
    capacity: int


class Machine(Struct, frozen=True, kw_only=True):
    os_version: str | None  # of the IMS API, where it is certain
    disks: tuple[OvfDisk, ...]  # the first is the one that it boots from
    files: tuple[OvfFile, ...]


class _Item(Struct, frozen=True, kw_only=True):
    """A piece of hardware, as its elements say."""

    values: Mapping[str, str]
    position: int  # in the document

    def number(self, name: str, otherwise: int = 0) -> int:
        value = self.values.get(name, "")
        return int(value) if _SMALL.fullmatch(value) else otherwise


def read(data: bytes) -> Machine:
    """The one machine that a document describes. Raises `OvaRefused` with the reason why it is none that is taken."""
    if len(data) > MOST_BYTES:
        raise OvaRefused(f"the OVF has {len(data)} bytes; at most {MOST_BYTES} are allowed")
    envelope = parse(data)
    namespace, name = envelope.name
    if name != "Envelope" or namespace not in ENVELOPES:
        raise OvaRefused("the OVF is of no known version: its root is not an Envelope of OVF 1 or 2")
    return _Reader(envelope, namespace).machine()


class _Reader:
    def __init__(self, envelope: Element, namespace: str) -> None:
        self.envelope = envelope
        self.namespace = namespace

    def machine(self) -> Machine:
        if self._all(self.envelope, "VirtualSystemCollection"):
            raise OvaRefused("the OVF describes a collection of machines; export each as an OVA of its own")
        system = self._only(self.envelope, "VirtualSystem")
        files = self._files()
        disks = self._disks(files)
        return Machine(
            os_version=self._os_version(system),
            disks=tuple(self._attached(system, disks, files)),
            files=tuple(files.values()),
        )

    # --- the package --------------------------------------------------------------------------------------------------

    def _files(self) -> dict[str, OvfFile]:
        """By their ids."""
        found: dict[str, OvfFile] = {}
        names = set()
        for element in self._within("References", "File"):
            file_id, file = self._must(element, "id"), self._file(element)
            if file_id in found or file.name in names:
                raise OvaRefused(f"the OVF names the file {shown(file.name)}, or its id, twice")
            found[file_id] = file
            names.add(file.name)
        return found

    def _file(self, element: Element) -> OvfFile:
        name = self._must(element, "href")
        if name in (".", "..") or not name.isprintable() or any(character in name for character in "/\\:"):
            raise OvaRefused(f"the OVF refers to {shown(name)}, which is no file of the archive beside it")
        if self._attribute(element, "chunkSize"):
            raise OvaRefused(
                f"the OVF has the file {shown(name)} in several chunks, which is not taken; export it whole"
            )
        compression = self._attribute(element, "compression").casefold()
        if compression not in ("", "identity", "gzip"):
            raise OvaRefused(f"the OVF has the file {shown(name)} packed in another way than gzip; export it unpacked")
        size = self._attribute(element, "size")
        if size and not _NUMBER.fullmatch(size):
            raise OvaRefused(f"the OVF gives a size of the file {shown(name)} that is no number")
        return OvfFile(name=name, size=int(size) if size else None, packed=compression == "gzip")

    def _disks(self, files: Mapping[str, OvfFile]) -> dict[str, Element]:
        """The elements of the disks that are there, by their ids."""
        found: dict[str, Element] = {}
        used = set()
        for element in self._within("DiskSection", "Disk"):
            disk_id, file_id = self._must(element, "diskId"), self._attribute(element, "fileRef")
            if disk_id in found or (file_id and file_id in used):
                raise OvaRefused(f"the OVF names the disk {shown(disk_id)}, or its file, twice")
            if file_id and file_id not in files:
                raise OvaRefused(f"the disk {shown(disk_id)} of the OVF lies in a file that it does not list")
            found[disk_id] = element
            used.add(file_id)
        return found

    def _disk(self, disk_id: str, element: Element, files: Mapping[str, OvfFile]) -> OvfDisk:
        if self._attribute(element, "parentRef"):
            raise OvaRefused(f"the disk {shown(disk_id)} of the OVF builds upon another; export it without snapshots")
        file_id = self._attribute(element, "fileRef")
        if not file_id:
            raise OvaRefused(f"the disk {shown(disk_id)} of the OVF is empty: no file holds its bytes; leave it out")
        return OvfDisk(id=disk_id, file=files[file_id], capacity=self._capacity(disk_id, element))

    def _capacity(self, disk_id: str, element: Element) -> int:
        number = self._attribute(element, "capacity")
        unit = _unit(self._attribute(element, "capacityAllocationUnits") or "byte")
        capacity = int(number) * unit if _NUMBER.fullmatch(number) and unit else 0
        if not 0 < capacity <= MOST_CAPACITY:
            raise OvaRefused(f"the capacity of the disk {shown(disk_id)} of the OVF is missing or makes no sense")
        return capacity

    # --- the machine --------------------------------------------------------------------------------------------------

    def _attached(
        self, system: Element, disks: Mapping[str, Element], files: Mapping[str, OvfFile]
    ) -> Iterator[OvfDisk]:
        """In the order of controllers, then of the places at each."""
        items = self._hardware(system)
        controllers = {
            item.values.get("InstanceID", ""): item for item in items if item.values["ResourceType"] in CONTROLLERS
        }
        drives = [item for item in items if item.values["ResourceType"] in HARD_DISKS]
        if not drives:
            raise OvaRefused("the machine of the OVF has no disk")
        seen = set()
        for item in sorted(drives, key=lambda item: _place(item, controllers)):
            disk_id = _disk_of(item)
            if disk_id not in disks:
                raise OvaRefused(f"the machine of the OVF has a disk {shown(disk_id)} that the OVF does not describe")
            if disk_id in seen:
                raise OvaRefused(f"the machine of the OVF has the disk {shown(disk_id)} twice")
            seen.add(disk_id)
            yield self._disk(disk_id, disks[disk_id], files)

    def _hardware(self, system: Element) -> Sequence[_Item]:
        section = self._only(system, "VirtualHardwareSection")
        configuration = self._configuration()
        chosen: dict[str, _Item] = {}
        for position, element in enumerate(section.children):
            if element.name[0] != self.namespace or element.name[1] not in ("Item", "StorageItem"):
                continue
            configurations = self._attribute(element, "configuration").split()
            if self._attribute(element, "bound") or (configurations and configuration not in configurations):
                continue
            item = _Item(values=_values(element), position=position)
            key = item.values.get("InstanceID") or f"at {position}"
            if key in chosen and not configurations:
                raise OvaRefused(f"the OVF has two pieces of hardware of the InstanceID {shown(key)}")
            chosen[key] = item
        return [item for item in chosen.values() if "ResourceType" in item.values]

    def _configuration(self) -> str:
        """The one that is taken when nobody chooses: the one marked so, else the first."""
        offered = self._within("DeploymentOptionSection", "Configuration")
        marked = [one for one in offered if self._attribute(one, "default") in ("true", "1")]
        return next((self._attribute(one, "id") for one in (*marked, *offered)), "")

    def _os_version(self, system: Element) -> str | None:
        for section in self._all(system, "OperatingSystemSection"):
            vmware = section.attributes.get((VMWARE, "osType"), "")
            virtualbox = next((one.text for one in section.all(VIRTUALBOX, "OSType")), "")
            return os_version(self._attribute(section, "id"), vmware, virtualbox)
        return None

    # --- elements -----------------------------------------------------------------------------------------------------

    def _all(self, element: Element, name: str) -> list[Element]:
        return element.all(self.namespace, name)

    def _within(self, section: str, name: str) -> list[Element]:
        return [one for found in self._all(self.envelope, section) for one in self._all(found, name)]

    def _only(self, element: Element, name: str) -> Element:
        found = self._all(element, name)
        if len(found) != 1:
            raise OvaRefused(f"the OVF has {len(found) or 'no'} {name}; exactly one is taken")
        return found[0]

    def _attribute(self, element: Element, name: str) -> str:
        return element.attributes.get((self.namespace, name), "").strip()

    def _must(self, element: Element, name: str) -> str:
        value = self._attribute(element, name)
        if not value:
            raise OvaRefused(f"a {element.name[1]} of the OVF has no {name}")
        return value


def _values(element: Element) -> dict[str, str]:
    """What an item says, the first of each. `HostResource` and the like have their attributes elsewhere."""
    values: dict[str, str] = {}
    for child in element.children:
        if child.name[0] in ALLOCATIONS:
            values.setdefault(child.name[1], child.text)
    return values


def _place(item: _Item, controllers: Mapping[str, _Item]) -> tuple[int, int, int, int]:
    """Where the machine sees a disk: a lower one before a higher one."""
    controller = controllers.get(item.values.get("Parent", ""))
    at = (controller.number("Address"), controller.position) if controller else (0, item.position)
    return *at, item.number("AddressOnParent"), item.position


def _disk_of(item: _Item) -> str:
    resource = item.values.get("HostResource", "")
    if not resource:
        raise OvaRefused("the machine of the OVF has an empty disk, that no file holds the bytes of; leave it out")
    found = _DISK.fullmatch(resource)
    if found is None:
        raise OvaRefused(f"the machine of the OVF has the disk {shown(resource)}; ovf:/disk/ID is what is taken")
    return found[1]


def _unit(text: str) -> int:
    """Bytes of a programmatic unit such as `byte * 2^30`; 0 for none."""
    if text.casefold() in OLD_UNITS:
        return OLD_UNITS[text.casefold()]
    found = _UNIT.fullmatch(text)
    if found is None:
        return 0
    base, exponent = int(found[1] or 1), int(found[2] or 1)
    return base**exponent if base**exponent <= MOST_CAPACITY else 0
