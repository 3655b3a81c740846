"""OVAs built by hand, so that a test can bend any field of the archive, the OVF or the manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from msgspec import Struct

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
USTAR: Final = b"ustar\x0000"
GNU: Final = b"ustar  \0"
ENVELOPE_1: Final = "http://schemas.dmtf.org/ovf/envelope/1"
ENVELOPE_2: Final = "http://schemas.dmtf.org/ovf/envelope/2"
CIM: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
UBUNTU: Final = '<OperatingSystemSection ovf:id="94" v:osType="ubuntu64Guest"><Info/></OperatingSystemSection>'


# --- the archive ------------------------------------------------------------------------------------------------------


def header(
    name: bytes | str,
    size: int,
    kind: bytes = b"0",
    *,
    magic: bytes = USTAR,
    size_field: bytes | None = None,
    prefix: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    name = name.encode() if isinstance(name, str) else name
    fields = [
        name.ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size if size_field is None else size_field,
        b"%011o\0" % 1_700_000_000,
        b" " * 8,
        kind,
        bytes(100),
        magic,
        bytes(80),
        prefix.ljust(155, b"\0"),
    ]
    made = b"".join(fields).ljust(BLOCK, b"\0")
    counted = sum(made) if checksum is None else checksum
    return made[:148] + b"%06o\0 " % counted + made[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes | str, data: bytes = b"", kind: bytes = b"0", **fields: Any) -> bytes:
    return header(name, len(data), kind, **fields) + padded(data)


def pax(records: Mapping[str, str] | bytes, kind: bytes = b"x") -> bytes:
    data = records if isinstance(records, bytes) else b"".join(record(*pair) for pair in records.items())
    return member("PaxHeaders/x", data, kind)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def gnu_name(name: bytes) -> bytes:
    return member("././@LongLink", name + b"\0", b"L", magic=GNU)


def base_256(size: int) -> bytes:
    return b"\x80" + size.to_bytes(11, "big")


def tar(*members: bytes, end: bytes = END) -> bytes:
    return b"".join(members) + end


# --- the OVF ----------------------------------------------------------------------------------------------------------


class Disk(Struct, kw_only=True):
    """A disk of the machine, and the file that it is in."""

    data: bytes
    name: str
    capacity: int
    unit: str = "byte"
    place: int = 0
    compression: str = ""


def disk(data: bytes, capacity: int, number: int = 0, **fields: Any) -> Disk:
    return Disk(data=data, name=fields.pop("name", f"disk{number}.vmdk"), capacity=capacity, place=number, **fields)


def file_element(disk: Disk, number: int, extra: str = "") -> str:
    compression = f" ovf:compression={quoteattr(disk.compression)}" if disk.compression else ""
    size = len(disk.data)
    return f'<File ovf:id="file{number}" ovf:href={quoteattr(disk.name)} ovf:size="{size}"{compression} {extra}/>'


def disk_element(disk: Disk, number: int, extra: str = "") -> str:
    return (
        f'<Disk ovf:diskId="vmdisk{number}" ovf:fileRef="file{number}" ovf:capacity="{disk.capacity}" '
        f'ovf:capacityAllocationUnits="{disk.unit}" '
        f'ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" {extra}/>'
    )


def controller(instance: int, address: int, kind: int = 6) -> str:
    return (
        f"<Item><r:Address>{address}</r:Address><r:InstanceID>{instance}</r:InstanceID>"
        f"<r:ResourceType>{kind}</r:ResourceType></Item>"
    )


def drive(number: int, *, parent: int = 3, place: int = 0, resource: str | None = None, extra: str = "") -> str:
    resource = f"ovf:/disk/vmdisk{number}" if resource is None else resource
    host = f"<r:HostResource>{resource}</r:HostResource>" if resource else ""
    return (
        f"<Item {extra}><r:AddressOnParent>{place}</r:AddressOnParent>{host}"
        f"<r:InstanceID>{number + 100}</r:InstanceID><r:Parent>{parent}</r:Parent>"
        f"<r:ResourceType>17</r:ResourceType></Item>"
    )


def ovf(
    disks: Sequence[Disk] = (),
    *,
    envelope: str = ENVELOPE_1,
    before: str = '<?xml version="1.0" encoding="UTF-8"?>',
    files: str | None = None,
    sections: str | None = None,
    hardware: str | None = None,
    os: str = UBUNTU,
    system: str = "",
    outside: str = "",
) -> bytes:
    """Each part can be given anew, as XML."""
    files = "".join(file_element(one, at) for at, one in enumerate(disks)) if files is None else files
    sections = "".join(disk_element(one, at) for at, one in enumerate(disks)) if sections is None else sections
    if hardware is None:
        hardware = controller(3, 0) + "".join(drive(at, place=one.place) for at, one in enumerate(disks))
    return f"""{before}
<Envelope xmlns="{envelope}" xmlns:ovf="{envelope}" xmlns:r="{CIM}CIM_ResourceAllocationSettingData"
 xmlns:s="{CIM}CIM_StorageAllocationSettingData.xsd" xmlns:v="http://www.vmware.com/schema/ovf"
 xmlns:b="http://www.virtualbox.org/ovf/machine">
<References>{files}</References>
<DiskSection><Info>its disks</Info>{sections}</DiskSection>
{outside}
<VirtualSystem ovf:id="web"><Info>a machine</Info><Name>web-golden</Name>{os}
<VirtualHardwareSection><Info>its hardware</Info>{hardware}</VirtualHardwareSection>{system}</VirtualSystem>
</Envelope>""".encode()


def manifest(files: Mapping[str, bytes], algorithm: str = "SHA256") -> bytes:
    lines = [f"{algorithm}({name})= {hashlib.new(algorithm, data).hexdigest()}\n" for name, data in files.items()]
    return "".join(lines).encode()


# --- the whole --------------------------------------------------------------------------------------------------------


def ova(
    disks: Sequence[Disk], *, described: bytes | None = None, algorithm: str = "SHA256", signed: bool = False
) -> bytes:
    """As vSphere writes one: the OVF, its manifest, a certificate if `signed`, the disks. No manifest without an
    `algorithm`."""
    text = ovf(disks) if described is None else described
    parts = [member("web.ovf", text)]
    if algorithm:
        parts.append(member("web.mf", manifest({"web.ovf": text, **{one.name: one.data for one in disks}}, algorithm)))
    if signed:
        parts.append(member("web.cert", b"-----BEGIN CERTIFICATE-----\n"))
    return tar(*parts, *(member(one.name, one.data) for one in disks))
