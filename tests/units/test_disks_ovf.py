"""What an OVF says, and all that it must not."""

from collections.abc import Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks import ovf_os
from calotype.disks.ovf import OvfDisk, OvfFile, read
from calotype.errors import OvaRefused
from calotype.images import os_versions
from tests.disks import ova as build
from tests.disks.ova import controller, disk, disk_element, drive, file_element, ovf

DISK: Final = disk(b"x" * 100, 8 * 2**30)
OTHER: Final = disk(b"y" * 200, 2**30, 1)
STORAGE: Final = (
    "<StorageItem><s:AddressOnParent>0</s:AddressOnParent><s:HostResource>/disk/vmdisk0</s:HostResource>"
    "<s:InstanceID>9</s:InstanceID><s:Parent>3</s:Parent><s:ResourceType>17</s:ResourceType></StorageItem>"
)


def names(text: bytes) -> list[str]:
    return [one.file.name for one in read(text).disks]


@pytest.mark.parametrize("envelope", [build.ENVELOPE_1, build.ENVELOPE_2], ids=["1", "2"])
def test_a_machine_is_read_from_an_ovf_of_version(envelope: str) -> None:
    machine = read(ovf([DISK], envelope=envelope))

    file = OvfFile(name="disk0.vmdk", size=100)
    assert machine.os_version == "Other Linux(64 bit)"
    assert machine.disks == (OvfDisk(id="vmdisk0", file=file, capacity=8 * 2**30),)
    assert machine.files == (file,)


def test_elements_are_known_by_their_namespaces_whatever_the_prefixes() -> None:
    text = ovf([DISK]).replace(b"xmlns:r=", b"xmlns:rasd=").replace(b"<r:", b"<rasd:").replace(b"</r:", b"</rasd:")
    foreign = '<x:Item xmlns:x="http://elsewhere">' + drive(7)[6:].replace("</Item>", "</x:Item>")

    assert names(text) == ["disk0.vmdk"]
    assert names(ovf([DISK], hardware=controller(3, 0) + foreign + drive(0))) == ["disk0.vmdk"]


def test_the_hardware_of_ovf_2_may_be_storage_items() -> None:
    assert names(ovf([DISK], envelope=build.ENVELOPE_2, hardware=controller(3, 0) + STORAGE)) == ["disk0.vmdk"]


ORDERS: Final[Mapping[str, tuple[str, list[int]]]] = {
    "places at one controller": (controller(3, 0) + drive(0, place=1) + drive(1, place=0), [1, 0]),
    "addresses of controllers": (
        controller(3, 1) + controller(4, 0) + drive(0, parent=3) + drive(1, parent=4),
        [1, 0],
    ),
    "controllers as they come, of one address": (
        controller(3, 0, 5) + controller(4, 0, 6) + drive(0, parent=4) + drive(1, parent=3),
        [1, 0],
    ),
    "the document, without controllers": (drive(1, parent=50) + drive(0, parent=51), [1, 0]),
    "numbers, not text": (controller(3, 0) + drive(0, place=10) + drive(1, place=9), [1, 0]),
    "a drive for CDs left out": (
        controller(3, 0)
        + drive(7, place=0, resource="ovf:/file/file0").replace(">17<", ">15<")
        + drive(0, place=1)
        + drive(1, place=2),
        [0, 1],
    ),
    "a disk of another configuration left out": (
        controller(3, 0) + drive(0, place=0, extra='ovf:configuration="large"') + drive(1, place=1),
        [1],
    ),
    "a bound left out": (controller(3, 0) + drive(0, extra='ovf:bound="max"') + drive(1, place=1), [1]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_disks_come_in_the_order_of(name: str) -> None:
    hardware, order = ORDERS[name]
    options = '<DeploymentOptionSection><Configuration ovf:id="small"/><Configuration ovf:id="large"/>'

    found = names(ovf([DISK, OTHER], hardware=hardware, outside=f"{options}</DeploymentOptionSection>"))

    assert found == [f"disk{at}.vmdk" for at in order]


def test_the_default_configuration_chooses_among_pieces_of_hardware() -> None:
    options = (
        '<DeploymentOptionSection><Configuration ovf:id="small"/><Configuration ovf:id="large" ovf:default="true"/>'
        "</DeploymentOptionSection>"
    )
    hardware = controller(3, 0) + drive(0) + drive(1, extra='ovf:configuration="large huge"').replace(">101<", ">100<")

    assert names(ovf([DISK, OTHER], hardware=hardware, outside=options)) == ["disk1.vmdk"]
    assert names(ovf([DISK, OTHER], hardware=hardware)) == ["disk0.vmdk"]


@pytest.mark.parametrize(
    ("number", "unit", "capacity"),
    [
        (8, "byte * 2^30", 8 * 2**30),
        (8, "byte*2^20", 8 * 2**20),
        (8, "Byte * 10 ^ 9", 8 * 10**9),
        (8, "byte * 512", 4096),
        (8, "byte", 8),
        (8, "", 8),
        (8, "GigaBytes", 8 * 2**30),
    ],
)
def test_a_capacity_is_a_number_of_units(number: int, unit: str, capacity: int) -> None:
    [one] = read(ovf([disk(b"x", number, unit=unit)])).disks

    assert one.capacity == capacity


def test_a_file_may_be_packed_by_gzip() -> None:
    found = {one: read(ovf([disk(b"x", 1, compression=one)])).disks[0].file.packed for one in ("", "identity", "gzip")}

    assert found == {"": False, "identity": False, "gzip": True}


LAUGHS: Final = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {two} "{f"&{one};" * 10}">' for one, two in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
FOREIGN: Final = '<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>'


def files_of(*elements: str) -> bytes:
    return ovf([DISK], files="".join(elements))


FILE, DISK_0 = file_element(DISK, 0), disk_element(DISK, 0)
BAD: Final[Mapping[str, tuple[bytes, str]]] = {
    "a billion laughs": (ovf([DISK], before=LAUGHS), "document type"),
    "an entity of a file": (ovf([DISK], before=FOREIGN, system="<Info>&file;</Info>"), "document type"),
    "a document type elsewhere": (ovf([DISK], before='<!DOCTYPE x SYSTEM "http://elsewhere/x.dtd">'), "document type"),
    "an undefined entity": (ovf([DISK], system="<Info>&file;</Info>"), "no well-formed XML"),
    "no XML": (b"this is no XML", "no well-formed XML"),
    "an end that is missing": (ovf([DISK])[:-3], "no well-formed XML"),
    "another encoding": (ovf([DISK]).decode().encode("utf-16"), "no XML in UTF-8"),
    "another encoding without a mark": (ovf([DISK]).decode().encode("utf-16-le"), "no XML in UTF-8"),
    "bytes that are no UTF-8": (
        ovf([DISK], before='<?xml version="1.0" encoding="latin-1"?>').replace(b"web-golden", b"w\xe4b"),
        "no XML in UTF-8",
    ),
    "a megabyte of it": (ovf([DISK]) + b" " * 2**20, "at most 1048576"),
    "elements too deep": (ovf([DISK], system="<a>" * 40 + "</a>" * 40), "above a limit"),
    "too many elements": (ovf([DISK], system="<a/>" * 10_001), "above a limit"),
    "too many attributes": (
        ovf([DISK], system="<a " + " ".join(f'a{n}=""' for n in range(65)) + "/>"),
        "above a limit",
    ),
    "another root": (b"<Envelope/>", "no known version"),
    "the envelope of a draft": (
        ovf([DISK], envelope="http://www.vmware.com/schema/ovf/1/envelope"),
        "no known version",
    ),
    "a collection of machines": (ovf([DISK], outside='<VirtualSystemCollection ovf:id="x"/>'), "collection"),
    "two machines": (ovf([DISK], outside='<VirtualSystem ovf:id="x"/>'), "2 VirtualSystem;"),
    "no VirtualSystem;": (
        ovf([DISK]).replace(b"VirtualSystem ", b"Other ").replace(b"/VirtualSystem>", b"/Other>"),
        "no VirtualSystem;",
    ),
    "two sections of hardware": (ovf([DISK], system="<VirtualHardwareSection/>"), "2 VirtualHardwareSection;"),
    "a file at a URL": (files_of(FILE.replace("disk0.vmdk", "http://elsewhere/disk.vmdk")), "no file of the archive"),
    "a file by the scheme file": (files_of(FILE.replace("disk0.vmdk", "file:disk.vmdk")), "no file of the archive"),
    "a file above": (files_of(FILE.replace("disk0.vmdk", "../disk.vmdk")), "no file of the archive"),
    "a file at the root": (files_of(FILE.replace("disk0.vmdk", "/etc/passwd")), "no file of the archive"),
    "a file in a folder": (files_of(FILE.replace("disk0.vmdk", "a/disk.vmdk")), "no file of the archive"),
    "the folder above for a file": (files_of(FILE.replace("disk0.vmdk", "..")), "no file of the archive"),
    "a backslash in a file's name": (files_of(FILE.replace("disk0.vmdk", "a\\b")), "no file of the archive"),
    "a file without a name": (files_of('<File ovf:id="file0"/>'), "no href"),
    "a file without an id": (files_of('<File ovf:href="x"/>'), "no id"),
    "a name that is not of OVF": (files_of('<File ovf:id="file0" href="disk0.vmdk"/>'), "no href"),
    "one file twice": (files_of(FILE, FILE.replace("file0", "file1")), "twice"),
    "one id of files twice": (files_of(FILE, FILE.replace("disk0", "disk1")), "twice"),
    "a file in chunks": (files_of(file_element(DISK, 0, 'ovf:chunkSize="1000"')), "chunks"),
    "a file packed otherwise": (files_of(FILE.replace("ovf:size", 'ovf:compression="bzip2" ovf:size')), "gzip"),
    "a size that is no number": (files_of(FILE.replace('size="100"', 'size="-1"')), "no number"),
    "one disk twice": (ovf([DISK], sections=DISK_0 * 2), "twice"),
    "two disks in one file": (ovf([DISK], sections=DISK_0 + DISK_0.replace("vmdisk0", "vmdisk1")), "twice"),
    "a disk of no file of its own": (ovf([DISK], files=""), "a file that it does not list"),
    "a disk upon another": (ovf([DISK], sections=disk_element(DISK, 0, 'ovf:parentRef="vmdisk9"')), "builds upon"),
    "an empty disk": (ovf([DISK], sections=DISK_0.replace('ovf:fileRef="file0"', "")), "is empty"),
    "a disk without a capacity": (ovf([DISK], sections=DISK_0.replace("ovf:capacity=", "ovf:other=")), "capacity"),
    "a capacity of nothing": (ovf([disk(b"x", 0)]), "capacity"),
    "a capacity beyond all": (ovf([disk(b"x", 10**18, unit="byte * 2^30")]), "capacity"),
    "a capacity in a unknown unit": (ovf([disk(b"x", 1, unit="sector")]), "capacity"),
    "a capacity in a unit beyond all": (ovf([disk(b"x", 1, unit="byte * 999999^99")]), "capacity"),
    "a capacity that a user chooses": (ovf([DISK], sections=DISK_0.replace(str(DISK.capacity), "${size}")), "capacity"),
    "no disk": (ovf([DISK], hardware=controller(3, 0)), "no disk"),
    "a drive with nothing in it": (ovf([DISK], hardware=drive(0, resource="")), "empty disk"),
    "a drive with a file in it": (ovf([DISK], hardware=drive(0, resource="ovf:/file/file0")), "is what is taken"),
    "a drive with a disk of the host": (ovf([DISK], hardware=drive(0, resource="/dev/sda")), "is what is taken"),
    "a drive with an unknown disk": (ovf([DISK], hardware=drive(4)), "does not describe"),
    "two drives with one disk": (ovf([DISK], hardware=drive(0) + drive(1, resource="/disk/vmdisk0")), "twice"),
    "two pieces of hardware of one id": (
        ovf([DISK, OTHER], hardware=drive(0) + drive(1).replace(">101<", ">100<")),
        "two pieces",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_ovf_is_refused_that_has(name: str) -> None:
    text, reason = BAD[name]

    with pytest.raises(OvaRefused, match=reason):
        read(text)


@given(data=st.data())
def test_a_spoilt_ovf_is_read_or_refused_and_never_crashes(data: st.DataObject) -> None:
    whole = bytearray(ovf([DISK, OTHER]))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
        whole[at] = data.draw(st.sampled_from(b'<>&"/=0aZ\x00\xff: '))

    try:
        machine = read(bytes(whole))
    except OvaRefused:
        return
    assert all("/" not in one.file.name for one in machine.disks)


# --- operating systems ------------------------------------------------------------------------------------------------

SYSTEMS: Final[Mapping[str, tuple[tuple[str, ...], str | None]]] = {
    "Ubuntu, by CIM": (("94",), "Other Linux(64 bit)"),
    "CentOS of 32 bits, by CIM": (("106",), "Other Linux(32 bit)"),
    "Windows 10, by CIM": (("120",), "Windows 10 64bit"),
    "Windows Server, by CIM": (("116",), "Other Windows(64 bit)"),
    "another, by CIM": (("1",), None),
    "a number that is none": (("12345678901234567890",), None),
    "nothing at all": (("",), None),
    "vSphere before CIM": (("1", "rhel8_64Guest"), "Other Linux(64 bit)"),
    "vSphere's Ubuntu": (("", "ubuntu64Guest"), "Other Linux(64 bit)"),
    "vSphere's Ubuntu of 32 bits": (("", "ubuntuGuest"), "Other Linux(32 bit)"),
    "vSphere's Debian": (("", "debian12_64Guest"), "Other Linux(64 bit)"),
    "vSphere's other Linux": (("", "other5xLinux64Guest"), "Other Linux(64 bit)"),
    "vSphere's older other Linux": (("", "other26xLinuxGuest"), "Other Linux(32 bit)"),
    "vSphere's Linux of any kind": (("", "otherLinux64Guest"), "Other Linux(64 bit)"),
    "vSphere's Windows 10": (("", "windows9_64Guest"), "Windows 10 64bit"),
    "vSphere's Windows Server 2019": (("", "windows2019srv_64Guest"), "Other Windows(64 bit)"),
    "vSphere's Windows 7": (("", "windows7Guest"), "Other Windows(32 bit)"),
    "vSphere's other": (("", "otherGuest64"), "Other(64 bit)"),
    "vSphere's FreeBSD": (("", "freebsd13_64Guest"), None),
    "vSphere's Arm": (("", "arm-ubuntu-64"), None),
    "VirtualBox's Ubuntu": (("", "", "Ubuntu_64"), "Other Linux(64 bit)"),
    "VirtualBox's Ubuntu of 32 bits": (("", "", "Ubuntu"), "Other Linux(32 bit)"),
    "VirtualBox's Windows 10": (("", "", "Windows10_64"), "Windows 10 64bit"),
    "VirtualBox's Arm": (("94", "", "Debian_arm64"), "Other Linux(64 bit)"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_os_version_is_told_for(name: str) -> None:
    told, expected = SYSTEMS[name]

    assert ovf_os.os_version(*told) == expected


def test_every_os_version_that_is_told_is_one_of_the_ims_api() -> None:
    every = {*ovf_os.CIM.values(), *ovf_os.EXACT.values()}

    assert every <= os_versions.table().keys()


def section(number: int, inside: str) -> str:
    return f'<OperatingSystemSection ovf:id="{number}">{inside}</OperatingSystemSection>'


@pytest.mark.parametrize(
    ("os", "expected"),
    [
        ("", None),
        (section(1, '<b:OSType ovf:required="false">Fedora_64</b:OSType>'), "Other Linux(64 bit)"),
        (section(107, "<Info/>"), "Other Linux(64 bit)"),
    ],
    ids=["none", "VirtualBox", "CIM"],
)
def test_the_os_is_read_from_its_section(os: str, expected: str | None) -> None:
    assert read(ovf([DISK], os=os)).os_version == expected
