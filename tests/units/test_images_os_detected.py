"""What the table of OS versions calls what was found."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.guest.model import Guest
from calotype.images.os_detected import LINES, attributes_of, os_version_of
from calotype.images.os_versions import table


def guest(**known: Any) -> Guest:
    words = dict.fromkeys(("id", "version_id", "version", "release", "name", "edition"), "")
    rest = {"family": "linux", "architecture": "x86", "bits": 64, "firmware": "", "root_filesystem": "ext4"}
    return Guest(**{**words, **rest, **known})


def linux(system_id: str, release: str, version: str = "", **known: Any) -> Guest:
    return guest(id=system_id, release=release, version=version, **known)


def windows(name: str, build: str = "", **known: Any) -> Guest:
    return guest(family="windows", id="windows", name=name, release=build, **known)


@pytest.mark.parametrize(
    ("found", "os_version"),
    [
        (linux("ubuntu", "22.04.3"), "Ubuntu 22.04 Server 64bit"),
        (linux("ubuntu", "16.04.2"), "Ubuntu 16.04.2 Server 64bit"),
        (linux("ubuntu", "14.04.3", bits=32), "Ubuntu 14.04.3 server 32bit"),
        (linux("ubuntu", "18.04", bits=32), "Other Linux(32 bit)"),
        (linux("ubuntu", "24.04"), "Other Linux(64 bit)"),
        (linux("ubuntu", "22.04", architecture="arm"), "Ubuntu 22.04 Server 64bit"),
        (linux("debian", "12.5"), "Debian GNU/Linux 12.0.0 64bit"),
        (linux("debian", "11.6"), "Debian GNU/Linux 11.6.0 64bit"),
        (linux("debian", "12"), "Debian GNU/Linux 12.0.0 64bit"),
        (linux("debian", ""), "Other Linux(64 bit)"),
        (linux("centos", "7.9.2009", name="CentOS Linux 7 (Core)"), "CentOS 7.9 64bit"),
        (linux("centos", "6.10", bits=32), "CentOS 6.10 32bit"),
        (linux("centos", "9", name="CentOS Stream 9"), "CentOS Stream 9.6 64bit"),
        (linux("rhel", "8.7"), "Red Hat Linux Enterprise 8.7 64bit"),
        (linux("rhel", "7.6"), "Redhat 7.6 64bit"),
        (linux("rhel", "7.9"), "Redhat 7.6 64bit"),
        (linux("rocky", "9.2"), "Rocky Linux 9.2 64bit"),
        (linux("ol", "7.6"), "Oracle Linux Server release 7.6 64bit"),
        (linux("ol", "9.1"), "Other Linux(64 bit)"),
        (linux("fedora", "39"), "Fedora 39 64bit"),
        (linux("fedora", "41"), "Other Linux(64 bit)"),
        (linux("sles", "15.5", "15-SP5"), "SUSE Linux Enterprise Server 15 SP5 64bit"),
        (linux("sles", "15.6", "15-SP6"), "SUSE Linux Enterprise Server 15 SP5 64bit"),
        (linux("sles", "12.5", "12-SP5"), "SUSE Linux Enterprise Server 12 SP5 64bit"),
        (linux("sles", "15", "15"), "SUSE Linux Enterprise Server 15 64bit"),
        (linux("opensuse-leap", "15.5"), "openSUSE 15.5 64bit"),
        (linux("opensuse-tumbleweed", "20240101"), "Other Linux(64 bit)"),
        (linux("euleros", "2.0", "2.0 (SP5)"), "EulerOS 2.5 64bit"),
        (linux("openEuler", "22.03", "22.03 (LTS-SP1)"), "openEuler 22.03 SP1 64bit"),
        (linux("openEuler", "20.03", "20.03 (LTS)"), "openEuler 20.03 64bit"),
        (linux("coreos", "1298.6.0"), "CoreOS 1298.6.0"),
        (linux("alpine", "3.18.4"), "Other Linux(64 bit)"),
        (linux("", ""), "Other Linux(64 bit)"),
        (linux("", "", bits=0), "Other Linux(64 bit)"),
        (linux("", "", bits=32), "Other Linux(32 bit)"),
        (linux("freebsd", "13.2", family="freebsd"), "FreeBSD 13.2 64bit"),
        (linux("freebsd", "14.0", family="freebsd"), "Other(64 bit)"),
        (windows("Windows Server 2019 Standard", "17763"), "Windows Server 2019 Standard 64bit"),
        (windows("Windows Server 2022 Datacenter Evaluation"), "Windows Server 2022 Datacenter 64bit"),
        (windows("Windows Server 2012 R2 Essentials"), "Windows Server 2012 Essentials R2 64bit"),
        (windows("Windows Server 2008 R2 Enterprise"), "Windows Server 2008 R2 Enterprise 64bit"),
        (windows("Windows Web Server 2008 R2"), "Windows Server 2008 R2 WEB 64bit"),
        (windows("Windows 7 Professional", bits=32), "Windows 7 Professional 32bit"),
        (windows("Windows 10 Enterprise LTSC 2019", "17763"), "Windows 10 64bit"),
        (windows("Windows 10 Pro", "22631"), "Other Windows(64 bit)"),
        (windows("Windows 10 Pro", "17763", bits=32), "Other Windows(32 bit)"),
        (windows(""), "Other Windows(64 bit)"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.id}-{value.release}-{value.name}-{value.bits}",
)
def test_what_was_found_has_a_name_in_the_table(found: Guest, os_version: str) -> None:
    assert os_version in table()
    assert os_version_of(found) == os_version


def test_every_distribution_that_is_looked_for_is_in_the_table() -> None:
    assert {line.platform for line in LINES.values()} <= {entry.platform for entry in table().values()}


@given(
    st.builds(
        guest,
        family=st.sampled_from(["linux", "windows", "freebsd"]),
        id=st.sampled_from([*LINES, "windows"]) | st.text(max_size=20),
        release=st.text(alphabet="0123456789. ٣²SP", max_size=40) | st.text(max_size=20),
        version=st.text(alphabet="0123456789. SP()", max_size=40),
        name=st.text(max_size=60),
        bits=st.sampled_from([0, 32, 64]),
    )
)
def test_whatever_was_found_has_a_name_in_the_table(found: Guest) -> None:
    assert os_version_of(found) in table()


@pytest.mark.parametrize(
    ("architecture", "firmware", "present", "added"),
    [
        ("x86", "bios", {}, {}),
        ("x86", "both", {}, {}),
        ("x86", "uefi", {}, {"hw_firmware_type": "uefi"}),
        ("x86", "uefi", {"hw_firmware_type": "bios"}, {}),
        ("arm", "uefi", {}, {"hw_firmware_type": "uefi", "__support_arm": "true"}),
        ("arm", "", {"hw_firmware_type": "uefi"}, {"__support_arm": "true"}),
    ],
)
def test_how_a_system_boots_is_told_where_nobody_has_said_it(
    architecture: str, firmware: str, present: dict[str, str], added: dict[str, str]
) -> None:
    found = attributes_of(guest(id="debian", release="12.0", architecture=architecture, firmware=firmware), present)

    system = {"__os_version", "__os_type", "__platform", "__os_bit"}
    assert {name: value for name, value in found.items() if name not in system} == added
    assert system <= set(found)
