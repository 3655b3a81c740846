"""Every parser of what strangers send, given sound files that were bent: it parses, or refuses as it is documented to.

The functions are those that `make fuzz` runs for hours; what it found is here again as ordinary tests. Guests' file
systems are bent in test_disks_guest_damage.
"""

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from fuzz.mutation import Edit, Kind, applied
from fuzz.seeds import SEEDS, SOUND, seeds_of, with_snapshot
from fuzz.sparse import encoded
from fuzz.targets import MOST_VIRTUAL, REPAIR, TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.disks import gate
from calotype.disks.model import Inspection
from calotype.errors import DiskRefused, FormatMismatch, TruncatedDisk
from tests.disks import build

FINDINGS: Final = Path(__file__).parent.parent / "disks" / "findings"
BENT: Final = sorted(TARGETS.keys() - {"guest"})
FORMATS: Final = sorted(SOUND.keys() - {"raw"})

edits: Final = st.lists(
    st.builds(
        Edit,
        kind=st.sampled_from(Kind),
        at=st.integers(0, 64 * 1024),
        value=st.integers(0, 1024),
        width=st.integers(0, 3),
        big=st.booleans(),
    ),
    max_size=8,
)


@cache
def seeds(target: str) -> list[bytes]:
    return list(seeds_of(target))


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert all(seeds(target) for target in BENT)


@pytest.mark.parametrize("target", BENT)
def test_each_seed_is_parsed_or_refused(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", BENT)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_bent_file_is_parsed_or_refused(target: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds(target)))

    TARGETS[target](applied(seed, data.draw(edits)))


@pytest.mark.parametrize("target", sorted(TARGETS))
@given(data=st.binary(max_size=2000))
@settings(max_examples=30, deadline=None)
def test_bytes_of_no_kind_are_parsed_or_refused(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_sound_file_is_as_sound_in_the_form_that_is_bent(format_: str) -> None:
    """Else bending would begin with what is refused at once."""
    for content in SOUND[format_]():
        facts = TARGETS[format_].run(bytes([REPAIR]) + encoded(content, without=build.CONTENT))

        assert facts is not None


@pytest.mark.parametrize("path", sorted(FINDINGS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_parsed_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


# --- what QEMU and the gate saw differently ---------------------------------------------------------------------------


def inspected(content: bytes, declared: str) -> Inspection:
    return gate.inspect_at(
        lambda offset, length: content[offset : offset + length],
        len(content),
        declared=declared,
        most_virtual_bytes=MOST_VIRTUAL,
    )


def test_the_last_entry_of_a_snapshot_table_needs_no_padding() -> None:
    """qemu-img writes none."""
    content = with_snapshot()

    assert len(content) % 8
    assert inspected(content, "qcow2").snapshots == 1
    with pytest.raises(TruncatedDisk):
        inspected(content[:-1], "qcow2")


def end_of_extensions_with_a_length() -> bytes:
    content = bytearray(build.qcow2())
    struct.pack_into(">II", content, 104, 0, 0x0A000000)
    return bytes(content)


def vhdx_log(offset: int, length: int, log_version: int = 0) -> bytes:
    content = bytearray(build.vhdx())
    for number, at in enumerate((64 * build.KIB, 128 * build.KIB)):
        header = bytearray(build.vhdx_header(sequence=number))
        struct.pack_into("<HHIQ", header, 64, log_version, 1, length, offset)
        content[at : at + 4 * build.KIB] = build._guarded(bytes(header[:4]) + bytes(4) + header[8 : 4 * build.KIB])
    return bytes(content)


@pytest.mark.parametrize(
    ("declared", "make"),
    [
        ("qcow2", end_of_extensions_with_a_length),
        ("vhdx", lambda: vhdx_log(build.MIB, 2 * build.MIB)),  # goes on into the block table
        ("vhdx", lambda: vhdx_log(3 * build.MIB, build.MIB)),
        ("vhdx", lambda: vhdx_log(512, build.MIB)),
        ("vhdx", lambda: vhdx_log(0, 0)),
        ("vhdx", lambda: vhdx_log(build.MIB, build.MIB, 1)),
        ("vmdk", lambda: build.vmdk(build.vmdk_descriptor().replace(b"CID=fffffffe", b"CID=gffffffe"))),
        ("vmdk", lambda: build.vmdk(build.vmdk_descriptor().replace(b"\nCID=fffffffe", b"\n"))),
        ("vmdk", lambda: build.vmdk(build.vmdk_descriptor().replace(b"parentCID=", b"parentXID="))),
    ],
    ids=[
        "extension-end-with-length",
        *("log-over-table", "log-over-metadata", "log-in-the-header", "log-nowhere", "log-version"),
        *("cid-no-number", "cid-missing", "parent-cid-missing"),
    ],
)
def test_what_qemu_does_not_open_is_refused(declared: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(FormatMismatch):
        inspected(make(), declared)


def test_an_empty_log_beside_the_regions_is_taken() -> None:
    assert inspected(vhdx_log(build.MIB, build.MIB), "vhdx").virtual_size == build.SIZE
    assert issubclass(FormatMismatch, DiskRefused)
