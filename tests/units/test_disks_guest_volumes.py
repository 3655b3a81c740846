"""Where a file system may lie: partitions, logical volumes, the bare disk; and what starts from it."""

import struct
from pathlib import Path

import pytest

from calotype.disks.guest.reader.blocks import Joined, Part, Unreadable
from calotype.disks.guest.reader.partitions import table_of
from tests.disks import guest

EFI = ["EFI/BOOT/BOOTX64.EFI"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    return guest.ext(folder / "disk", guest.linux_root(folder / "root"), mib=8)


@pytest.fixture(scope="module")
def efi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest.fat(tmp_path_factory.mktemp("efi") / "fat", EFI)


def found_id(disk: Path) -> str | None:
    found = guest.searched(disk)
    return found.system.id if found else None


def test_a_bare_file_system_is_a_disk(root: Path) -> None:
    assert found_id(root) == "ubuntu"


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_root_in_a_gpt_partition_is_found(root: Path, tmp_path: Path, sector: int) -> None:
    disk = guest.gpt(tmp_path / "disk", [(guest.LINUX_DATA, None), (guest.LINUX_DATA, root)], sector=sector)

    assert found_id(disk) == "ubuntu"


def test_a_root_in_an_mbr_partition_is_found(root: Path, tmp_path: Path) -> None:
    assert found_id(guest.mbr(tmp_path / "disk", [(0x83, root)])) == "ubuntu"


def test_a_root_in_a_logical_partition_is_found(root: Path, tmp_path: Path) -> None:
    other = guest.ext(tmp_path / "other", tmp_path, mib=4)

    assert found_id(guest.mbr(tmp_path / "disk", [(0x83, other)], logical=[(0x83, other), (0x83, root)])) == "ubuntu"


def test_a_chain_of_logical_partitions_that_is_a_ring_ends(tmp_path: Path) -> None:
    disk = guest.empty(tmp_path / "disk", 4)
    entry = struct.pack("<B3xB3xII", 0, 5, 2048, 4096)
    ring = struct.pack("<B3xB3xII", 0, 5, 1, 4096) + struct.pack("<B3xB3xII", 0, 0x83, 1, 1)
    data = bytearray(disk.read_bytes())
    data[446:512] = entry.ljust(64, b"\0") + b"\x55\xaa"
    for sector in (2048, 2049):  # the second one says that it follows itself
        data[sector * 512 + 446 : sector * 512 + 512] = ring.ljust(64, b"\0") + b"\x55\xaa"
    disk.write_bytes(data)

    with guest.opened(disk) as opened:
        assert len(table_of(opened).partitions) == 60


@pytest.mark.parametrize(("pieces", "ring"), [(1, False), (3, False), (2, True)])
def test_a_root_in_a_logical_volume_is_found(root: Path, tmp_path: Path, pieces: int, ring: bool) -> None:
    physical = guest.lvm(tmp_path / "pv", root, pieces=pieces, ring=ring)

    assert found_id(physical) == "ubuntu"
    assert found_id(guest.gpt(tmp_path / "disk", [(guest.LINUX_DATA, physical)])) == "ubuntu"


def test_the_first_system_that_says_its_name_is_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "root/sbin").mkdir(parents=True)
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/passwd").touch()
    (tmp_path / "root/sbin/init").write_bytes(guest.elf())
    nameless = guest.ext(tmp_path / "nameless", tmp_path / "root", mib=4)

    assert found_id(nameless) == ""
    assert found_id(guest.mbr(tmp_path / "disk", [(0x83, nameless), (0x83, root)])) == "ubuntu"


@pytest.mark.parametrize("bits", [12, 32])
def test_a_disk_starts_by_uefi_if_its_partition_for_that_has_a_loader(root: Path, tmp_path: Path, bits: int) -> None:
    fat = guest.fat(tmp_path / "fat", EFI, mib=40 if bits == 32 else 4, bits=bits)
    disk = guest.gpt(tmp_path / "disk", [(guest.EFI_SYSTEM, fat), (guest.LINUX_DATA, root)])

    found = guest.searched(disk)

    assert found is not None
    assert (found.system.id, found.firmware) == ("ubuntu", "uefi")


def test_what_starts_a_disk_is_told_by_code_and_by_loader(root: Path, efi: Path, tmp_path: Path) -> None:
    code = b"\xeb\x63\x90"
    empty = guest.fat(tmp_path / "empty", ["README.TXT"], mib=4, bits=12)
    data, boot, system = guest.LINUX_DATA, guest.BIOS_BOOT, guest.EFI_SYSTEM
    disks = {
        "hybrid": guest.gpt(tmp_path / "1", [(boot, None), (system, efi), (data, root)], boot_code=code),
        "bios": guest.gpt(tmp_path / "2", [(boot, None), (data, root)], boot_code=code),
        "mbr": guest.mbr(tmp_path / "3", [(0x83, root)]),
        "mbr-efi": guest.mbr(tmp_path / "4", [(0xEF, efi), (0x83, root)]),
        "no-loader": guest.gpt(tmp_path / "5", [(system, empty), (data, root)]),
        "code-that-goes-nowhere": guest.gpt(tmp_path / "6", [(system, efi), (data, root)], boot_code=code),
    }

    found = {name: one.firmware for name, disk in disks.items() if (one := guest.searched(disk))}

    assert found == {
        "hybrid": "both",
        "bios": "bios",
        "mbr": "bios",
        "mbr-efi": "both",
        "no-loader": "",
        "code-that-goes-nowhere": "uefi",
    }


def test_pieces_joined_read_across_their_borders(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(range(256)))
    with guest.opened(disk) as opened:
        joined = Joined([(opened, 100, 10), (opened, 0, 5), (Part(opened, 200, 999), 0, 56)])

        assert joined.size == 71
        assert joined.read(0, 71) == bytes([*range(100, 110), *range(5), *range(200, 256)])
        assert joined.read(8, 8) == bytes([108, 109, 0, 1, 2, 3, 4, 200])
        with pytest.raises(Unreadable):
            joined.read(70, 2)
