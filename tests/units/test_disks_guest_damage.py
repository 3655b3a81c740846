"""Whatever a disk holds, the search ends: with a system, or without one. Nothing else is raised, bounds are kept."""

import ast
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.disks.guest import reader
from calotype.disks.guest.reader.blocks import Disk, Spent, Unreadable
from calotype.disks.guest.reader.hive import Hive
from calotype.disks.guest.reader.lvm import _parsed as parsed
from calotype.disks.guest.reader.search import PARSERS, search
from tests.disks import guest

Make = Callable[[Path, Path], Path]
MOST_READS: Final = 20_000  # enough for a whole disk, and few enough for a test


def _in_volume(path: Path, root: Path) -> Path:
    return guest.lvm(path, guest.ext(path.with_suffix(".ext"), root, mib=4))


def _partitioned(path: Path, root: Path) -> Path:
    efi = guest.fat(path.with_suffix(".fat"), ["EFI/BOOT/BOOTX64.EFI"], mib=4, bits=12)
    disk = guest.ext(path.with_suffix(".ext"), root, mib=4)
    return guest.gpt(path, [(guest.EFI_SYSTEM, efi), (guest.LINUX_DATA, disk)])


def _windows(path: Path, _: Path) -> Path:
    return guest.ntfs(path, guest.windows_root(path.with_suffix(".windows"), libraries=60))


DISKS: Final[dict[str, Make]] = {
    "ext2": lambda path, root: guest.ext(path, root, "ext2", "-b", "1024", mib=4),
    "ext4": lambda path, root: guest.ext(path, root, mib=8),
    "ext4-inline": lambda path, root: guest.ext(path, root, "ext4", "-O", "inline_data", "-I", "512", mib=8),
    "xfs": lambda path, root: guest.xfs(path, root),
    "btrfs": guest.btrfs,
    "ufs": guest.ufs,
    "ntfs": _windows,
    "volume": _in_volume,
    "partitions": _partitioned,
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], guest.Damaged]:
    made: dict[str, guest.Damaged] = {}
    folder = tmp_path_factory.mktemp("damage")
    root = guest.linux_root(folder / "root", programs=80)

    def make(name: str) -> guest.Damaged:
        if name not in made:
            made[name] = guest.Damaged(DISKS[name](folder / name, root))
        return made[name]

    return make


def ends(disk: Disk) -> None:
    with suppress(Spent):
        search(disk)


@pytest.mark.parametrize("name", DISKS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_end_the_search_in_no_other_way(
    name: str, damaged: Callable[[str], guest.Damaged], data: st.DataObject
) -> None:
    disk = damaged(name)
    pages = st.sampled_from(disk.used).map(lambda page: page * guest.PAGE)
    places = st.builds(int.__add__, pages, st.integers(0, guest.PAGE - 1))
    interesting = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255)

    ends(disk.disk(data.draw(st.dictionaries(places, interesting, max_size=60)), most_reads=MOST_READS))


@pytest.mark.parametrize("name", DISKS)
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_disk_that_is_cut_off_ends_the_search_in_no_other_way(
    name: str, damaged: Callable[[str], guest.Damaged], data: st.DataObject
) -> None:
    disk = damaged(name)

    ends(disk.disk({}, size=data.draw(st.integers(0, disk.size)), most_reads=MOST_READS))


@pytest.mark.parametrize("name", DISKS)
def test_every_byte_of_what_is_read_first_may_be_anything(name: str, damaged: Callable[[str], guest.Damaged]) -> None:
    """The superblock and what lies around it: each word in turn, as large as can be."""
    disk = damaged(name)
    for page in disk.used[:1]:
        for offset in range(page * guest.PAGE, (page + 1) * guest.PAGE, 64):
            ends(disk.disk(dict.fromkeys(range(offset, offset + 8), 0xFF), most_reads=MOST_READS))


@given(st.binary(max_size=9000), st.sampled_from(range(len(PARSERS))))
def test_bytes_that_are_no_file_system_are_not_read_as_one(data: bytes, parser: int) -> None:
    with pytest.raises(Unreadable):
        PARSERS[parser](Disk(lambda offset, length: data[offset : offset + length], len(data)))


@given(st.dictionaries(st.integers(4096, 8191), st.integers(0, 255), max_size=40), st.integers(0, 9000))
def test_a_damaged_registry_is_read_or_not_and_nothing_else(changes: dict[int, int], size: int) -> None:
    data = bytearray(guest.hive(guest.WINDOWS_2019))
    for offset, value in changes.items():
        if offset < len(data):
            data[offset] = value
    whole = bytes(data[:size])
    disk = Disk(lambda offset, length: whole[offset : offset + length], len(whole), most_reads=MOST_READS)

    with suppress(Unreadable, Spent):
        values = Hive(disk.read, len(whole)).values("Microsoft\\Windows NT\\CurrentVersion")
        assert all(isinstance(value, str | int) for value in values.values())


@given(st.text(alphabet='ab {}[]=,"1.\\#\n-', max_size=200))
def test_a_text_of_lvm_is_read_or_not_and_nothing_else(text: str) -> None:
    with suppress(Unreadable):
        assert isinstance(parsed(text), dict)


@pytest.mark.parametrize("name", DISKS)
def test_no_more_is_read_than_may_be(name: str, damaged: Callable[[str], guest.Damaged]) -> None:
    disk = damaged(name).disk({}, most_reads=10)

    with pytest.raises(Spent):
        search(disk)

    assert disk.reads_left == -1


def test_the_child_imports_the_standard_library_and_itself_alone() -> None:
    folder = Path(reader.__path__[0])
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}

    others = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}

    assert {".".join(name.split(".")[:4]) for name in others} == {"calotype.disks.guest.reader"}
