"""Windows, on NTFS that wimlib wrote."""

from pathlib import Path

import pytest

from calotype.disks.guest.reader.blocks import Unreadable
from calotype.disks.guest.reader.hive import Hive
from calotype.disks.guest.reader.ntfs import Ntfs
from calotype.disks.guest.reader.tree import content, find, names_in
from tests.disks import guest

CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"


def hive(data: bytes) -> Hive:
    return Hive(lambda offset, length: data[offset : offset + length], len(data))


def test_a_windows_is_found_with_what_its_registry_says(tmp_path: Path) -> None:
    root = guest.windows_root(tmp_path / "root", libraries=700)

    found = guest.searched(guest.ntfs(tmp_path / "disk", root))

    assert found is not None
    assert found.file_system == "ntfs"
    assert found.system._asdict() == {
        "family": "windows",
        "id": "windows",
        "version_id": "10.0.17763",
        "version": "",
        "release": "17763",
        "name": "Windows Server 2019 Standard",
        "edition": "ServerStandard",
        "architecture": "x86",
        "bits": 64,
    }


def test_files_and_folders_of_any_size_read_as_they_were_written(tmp_path: Path) -> None:
    root = guest.windows_root(tmp_path / "root", libraries=700)
    large = bytes(range(256)) * 9000
    (root / "large").write_bytes(large)
    (root / "Grüße.txt").write_bytes(b"resident")
    with guest.opened(guest.ntfs(tmp_path / "disk", root)) as disk:
        files = Ntfs(disk)

        node = find(files, "/LARGE")

        assert node is not None
        assert files.read(node, 0, node.size) == large
        assert files.read(node, 70_001, 100_000) == large[70_001:170_001]
        assert content(files, "/grüße.TXT", 100) == b"resident"
        assert sorted(names_in(files, "/windows/SYSTEM32", 1000)) == sorted(
            one.name for one in (root / "Windows/System32").iterdir()
        )
        assert find(files, "/Windows/no-such-file") is None


def test_a_windows_whose_registry_is_damaged_is_a_windows_of_no_name(tmp_path: Path) -> None:
    found = guest.searched(guest.ntfs(tmp_path / "disk", guest.windows_root(tmp_path / "root", None)))

    assert found is not None
    assert (found.system.family, found.system.name, found.system.bits) == ("windows", "", 64)


def test_the_build_says_the_architecture_where_the_kernel_cannot_be_read(tmp_path: Path) -> None:
    values = {"ProductName": "Windows 7 Professional", "BuildLabEx": "7601.24214.x86fre.win7sp1_ldr.180801-1700"}
    root = guest.windows_root(tmp_path / "root", {**values, "CurrentVersion": "6.1", "CSDVersion": "Service Pack 1"})
    (root / "Windows/System32/ntoskrnl.exe").write_bytes(bytes(4096))

    found = guest.searched(guest.ntfs(tmp_path / "disk", root))

    assert found is not None
    assert (found.system.name, found.system.bits) == ("Windows 7 Professional", 32)
    assert (found.system.version_id, found.system.version) == ("6.1", "Service Pack 1")


def test_an_ntfs_without_a_windows_is_no_system(tmp_path: Path) -> None:
    (tmp_path / "root/Windows").mkdir(parents=True)

    assert guest.searched(guest.ntfs(tmp_path / "disk", tmp_path / "root")) is None


def test_the_values_of_a_key_of_the_registry_are_read() -> None:
    found = hive(guest.hive(guest.WINDOWS_2019))

    assert found.values(CURRENT_VERSION) == guest.WINDOWS_2019
    assert found.values(CURRENT_VERSION.upper()) == guest.WINDOWS_2019
    assert found.values("Microsoft\\No such key") == {}
    assert found.values("Microsoft") == {}


def test_what_is_no_registry_is_not_read() -> None:
    for data in (b"", b"regf", bytes(8192)):
        with pytest.raises(Unreadable):
            hive(data)
