"""What is read from a domain's description, and from nothing else."""

from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.servers.domain_xml import MOST_DEPTH, MOST_LAYERS, Domain, Layer, Unreadable, parse

ID: Final = "3c9a6f6e-5f3b-4a55-8a0e-1f4f9d1e7a11"
DISK: Final = "<disk type='file'><driver type='raw'/><source file='/a'/><target dev='vda'/></disk>"


def domain(devices: str = "", rest: str = "", head: str = "") -> Domain:
    return parse(
        f"{head}<domain type='kvm'><name>one</name><uuid>{ID}</uuid>{rest}<devices>{devices}</devices></domain>"
    )


def chain(below: str, kind: str = "qcow2") -> tuple[tuple[Layer, ...], bool]:
    (disk,) = domain(
        f"<disk type='file'><driver type='{kind}'/><source file='/top'/>{below}<target dev='vda'/></disk>"
    ).disks
    return disk.layers, disk.complete


def test_the_mark_of_the_operator_is_read_in_its_namespace_alone() -> None:
    def mark(space: str) -> str:
        return f"<metadata><x:server xmlns:x='{space}' project='p' image='i' os_version='o'/></metadata>"

    marked, foreign = domain(rest=mark("https://calotype.dev/xmlns/1")), domain(rest=mark("https://example.org/"))

    assert (marked.project, marked.image_id, marked.os_version) == ("p", "i", "o")
    assert (foreign.project, foreign.image_id, foreign.os_version) == (None, None, None)


@pytest.mark.parametrize(
    ("os", "firmware", "architecture"),
    [
        ("<os><type arch='x86_64'>hvm</type></os>", "bios", "x86"),
        ("<os firmware='efi'><type arch='aarch64'>hvm</type></os>", "uefi", "arm"),
        ("<os><type arch='x86_64'>hvm</type><loader type='pflash'>/ovmf</loader></os>", "uefi", "x86"),
        ("<os><type arch='x86_64'>hvm</type><loader type='rom'>/seabios</loader></os>", "bios", "x86"),
        ("", "bios", "x86"),
    ],
)
def test_the_firmware_and_the_architecture(os: str, firmware: str, architecture: str) -> None:
    found = domain(rest=os)

    assert (found.firmware, found.architecture) == (firmware, architecture)


def test_only_disks_are_disks() -> None:
    others = "".join(
        f"<disk type='file' device='{device}'><source file='/x'/><target dev='{target}'/></disk>"
        for device, target in (("cdrom", "sda"), ("floppy", "fda"))
    )

    found = domain(others + DISK)

    assert [disk.target for disk in found.disks] == ["vda"]
    assert found.disks[0].layers == (Layer(path="/a", format="raw"),)


@pytest.mark.parametrize(
    "disk",
    [
        "<disk type='network'><source protocol='nbd'/><target dev='vda'/></disk>",
        "<disk type='dir'><source dir='/a'/><target dev='vda'/></disk>",
        "<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>",
        "<disk type='file'><target dev='vda'/></disk>",
        "<disk type='file'><source file='a/../b'/><target dev='vda'/></disk>",
        "<disk type='block' device='lun'><source dev='/dev/sda'/><target dev='vda'/></disk>",
        "<disk type='file'><source file='/a'><slices><slice offset='0'/></slices></source><target dev='vda'/></disk>",
    ],
)
def test_a_disk_that_is_no_file_of_this_host_cannot_be_read(disk: str) -> None:
    (found,) = domain(disk).disks

    assert not found.readable


def test_a_chain_is_told_to_its_end_or_it_is_not_complete() -> None:
    raw = "<backingStore type='file'><format type='raw'/><source file='/base'/></backingStore>"
    block = "<backingStore type='block'><format type='qcow2'/><source dev='/dev/v'/><backingStore/></backingStore>"
    open_end = "<backingStore type='file'><format type='qcow2'/><source file='/base'/></backingStore>"
    top = Layer(path="/top", format="qcow2")

    assert chain("") == ((top,), False)
    assert chain("<backingStore/>") == ((top,), True)
    assert chain("", kind="raw") == ((Layer(path="/top", format="raw"),), True)
    assert chain(raw) == ((top, Layer(path="/base", format="raw")), True)
    assert chain(block) == ((top, Layer(path="/dev/v", format="qcow2")), True)
    assert chain(open_end) == ((top, Layer(path="/base", format="qcow2")), False)


def test_encryption_of_any_layer_counts() -> None:
    lock = "<encryption format='luks'><secret uuid='s'/></encryption>"
    inner = f"<disk type='file'><source file='/a'>{lock}</source><target dev='vda'/></disk>"
    outer = "<disk type='file'><source file='/a'/><encryption format='luks'/><target dev='vdb'/></disk>"

    assert [disk.secret for disk in domain(DISK).disks] == [None]
    assert [disk.secret for disk in domain(inner + outer).disks] == ["s", "unknown"]


def test_the_first_that_is_booted_comes_first() -> None:
    disks = "".join(
        f"<disk type='file'><source file='/{target}'/><target dev='{target}'/>{boot}</disk>"
        for target, boot in (("vda", ""), ("vdb", "<boot order='3'/>"), ("vdc", "<boot order='2'/>"))
    )

    assert [disk.target for disk in domain(disks).disks] == ["vdc", "vda", "vdb"]


@pytest.mark.parametrize("state", ["connected", "disconnected"])
def test_an_agent_is_there_when_it_has_opened_its_channel(state: str) -> None:
    channel = f"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/></channel>"

    assert domain(channel).agent is (state == "connected")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<domain/>",
        "<domain><uuid>no</uuid></domain>",
        f"<network><uuid>{ID}</uuid></network>",
        f"<domain><uuid>{ID}</uuid>",
        f"<domain><uuid>{ID}</uuid><devices><disk><source file='/a'/></disk></devices></domain>",
        f"<domain><uuid>{ID}</uuid><devices><disk><target dev='a;b'/></disk></devices></domain>",
        f"<!DOCTYPE domain><domain><uuid>{ID}</uuid></domain>",
        f"<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain><uuid>{ID}</uuid><name>&e;</name></domain>",
        f"<domain><uuid>{ID}</uuid>{'<a>' * MOST_DEPTH}{'</a>' * MOST_DEPTH}</domain>",
        f"<domain><uuid>{ID}</uuid><devices><disk type='file'><source file='/a'/>"
        + "<backingStore type='file'><format type='qcow2'/><source file='/b'/>" * MOST_LAYERS
        + "</backingStore>" * MOST_LAYERS
        + "<driver type='qcow2'/><target dev='vda'/></disk></devices></domain>",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


@given(st.text(st.sampled_from("<>/'=& ;![]") | st.sampled_from("abdiskourcetg"), max_size=120))
def test_any_text_is_understood_or_refused(text: str) -> None:
    for whole in (text, f"<domain><uuid>{ID}</uuid><devices>{text}</devices></domain>"):
        with suppress(Unreadable):
            parse(whole)
