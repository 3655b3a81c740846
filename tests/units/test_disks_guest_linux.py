"""Systems of Unix, on file systems that their own tools made."""

import os
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.guest.reader.blocks import Unreadable, Volume
from calotype.disks.guest.reader.btrfs import Btrfs
from calotype.disks.guest.reader.btrfs import _plain as plain
from calotype.disks.guest.reader.ext import Ext
from calotype.disks.guest.reader.search import PARSERS
from calotype.disks.guest.reader.tree import FileSystem, content, find
from tests.disks import guest

Make = Callable[[Path, Path], Path]

FILE_SYSTEMS: Final[dict[str, tuple[str, Make]]] = {
    "ext2": ("ext2", lambda path, root: guest.ext(path, root, "ext2")),
    "ext2-1k": ("ext2", lambda path, root: guest.ext(path, root, "ext2", "-b", "1024", "-I", "128")),
    "ext3": ("ext3", lambda path, root: guest.ext(path, root, "ext3")),
    "ext4": ("ext4", lambda path, root: guest.ext(path, root)),
    "ext4-inline": ("ext4", lambda path, root: guest.ext(path, root, "ext4", "-O", "inline_data,64bit", "-I", "512")),
    "ext4-meta-groups": (
        "ext4",
        lambda path, root: guest.ext(path, root, "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"),
    ),
    "ext4-32bit": ("ext4", lambda path, root: guest.ext(path, root, "ext4", "-O", "^64bit,^metadata_csum")),
    "xfs": ("xfs", lambda path, root: guest.xfs(path, root)),
    "xfs-v4": ("xfs", lambda path, root: guest.xfs(path, root, "-m", "crc=0")),
    "xfs-1k": ("xfs", lambda path, root: guest.xfs(path, root, "-b", "size=1024")),
    "btrfs": ("btrfs", guest.btrfs),
    "ufs": ("ufs", guest.ufs),
}
BYTES: Final = os.urandom(1000) * 900  # of a file that takes the maps of blocks of ext2 two deep


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With more programs than fit into one block of a folder."""
    folder = guest.linux_root(tmp_path_factory.mktemp("linux") / "root", programs=600)
    (folder / "usr/share").mkdir()
    (folder / "usr/share/large").write_bytes(BYTES)
    return folder


@pytest.mark.parametrize("name", FILE_SYSTEMS)
def test_a_system_is_found_by_what_it_says_of_itself(name: str, root: Path, tmp_path: Path) -> None:
    file_system, make = FILE_SYSTEMS[name]

    found = guest.searched(make(tmp_path / "disk", root))

    assert found is not None
    assert found.file_system == file_system
    assert found.system._asdict() == {
        "family": "linux",
        "id": "ubuntu",
        "version_id": "22.04",
        "version": "22.04.3 LTS (Jammy Jellyfish)",
        "release": "22.04.3",
        "name": "Ubuntu 22.04.3 LTS",
        "edition": "",
        "architecture": "x86",
        "bits": 64,
    }


@pytest.mark.parametrize("name", FILE_SYSTEMS)
def test_files_read_as_they_were_written(name: str, root: Path, tmp_path: Path) -> None:
    made = FILE_SYSTEMS[name][1](tmp_path / "disk", root)
    with guest.opened(made) as disk:
        files = next(parsed for parser in PARSERS if (parsed := _parsed(parser, disk)) is not None)

        node = find(files, "/usr/share/large")
        last = content(files, "/usr/bin/a-program-with-a-rather-long-name-599", 100)
        folder = find(files, "/usr/bin")

        assert node is not None
        assert node.size == len(BYTES)
        assert files.read(node, 0, node.size) == BYTES
        assert files.read(node, 123_457, 300_001) == BYTES[123_457 : 123_457 + 300_001]
        assert last == b"#!"
        assert folder is not None
        assert {one for one, _ in files.entries(folder)} == {one.name for one in (root / "usr/bin").iterdir()}


def _parsed(parser: Callable[[Volume], FileSystem], disk: Volume) -> FileSystem | None:
    try:
        return parser(disk)
    except Unreadable:
        return None


# What is in which file -> id, version_id and the most exact release.
OLDER: Final = {
    "centos-7": (
        {
            "etc/os-release": 'NAME="CentOS Linux"\nID="centos"\nVERSION_ID="7"\n',
            "etc/redhat-release": "CentOS Linux release 7.9.2009 (Core)\n",
        },
        ("centos", "7", "7.9.2009"),
    ),
    "centos-6": ({"etc/redhat-release": "CentOS release 6.10 (Final)\n"}, ("centos", "6.10", "6.10")),
    "rhel-6": (
        {"etc/redhat-release": "Red Hat Enterprise Linux Server release 6.9 (Santiago)\n"},
        ("rhel", "6.9", "6.9"),
    ),
    "debian-12": (
        {"usr/lib/os-release": "ID=debian\nVERSION_ID='12'\n", "etc/debian_version": "12.5\n"},
        ("debian", "12", "12.5"),
    ),
    "debian-testing": (
        {"usr/lib/os-release": "ID=debian\n", "etc/debian_version": "trixie/sid\n"},
        ("debian", "", ""),
    ),
    "debian-6": ({"etc/debian_version": "6.0.10\n"}, ("debian", "6.0.10", "6.0.10")),
    "suse-11": (
        {"etc/SuSE-release": "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n"},
        ("sles", "11.4", "11.4"),
    ),
    "alpine": ({"etc/alpine-release": "3.18.4\n"}, ("alpine", "3.18.4", "3.18.4")),
    "mounted-at-usr": ({"lib/os-release": "ID=coreos\nVERSION_ID=1298.6.0\n"}, ("coreos", "1298.6.0", "1298.6.0")),
    "ostree": (
        {"ostree/deploy/fedora/deploy/0123.0/usr/lib/os-release": "ID=fedora\nVERSION_ID=39\n"},
        ("fedora", "39", "39"),
    ),
    "freebsd": (
        {"bin/freebsd-version": '#!/bin/sh\nUSERLAND_VERSION="13.2-RELEASE-p4"\n'},
        ("freebsd", "13.2-RELEASE-p4", "13.2"),
    ),
    "no-quotes-at-all": (
        {"etc/os-release": "# a comment\nID=rocky\nVERSION_ID=9.2\nnot an assignment\n"},
        ("rocky", "9.2", "9.2"),
    ),
    "unknown": ({"etc/passwd": "root:x:0:0::/:/bin/sh\n"}, ("", "", "")),
}


def _written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "sbin").mkdir(parents=True, exist_ok=True)
    (folder / "sbin/init").write_bytes(guest.elf())
    return folder


@pytest.mark.parametrize("name", OLDER)
def test_a_system_is_found_by_the_files_that_its_kind_has(name: str, tmp_path: Path) -> None:
    files, expected = OLDER[name]
    disk = guest.ext(tmp_path / "disk", _written(tmp_path / "root", files), mib=4)

    found = guest.searched(disk)

    assert found is not None
    assert (found.system.id, found.system.version_id, found.system.release) == expected
    assert found.system.family == ("freebsd" if name == "freebsd" else "linux")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (guest.elf(62), ("x86", 64)),
        (guest.elf(3, wide=False), ("x86", 32)),
        (guest.elf(183), ("arm", 64)),
        (guest.elf(40, wide=False), ("arm", 32)),
        (guest.elf(9999), ("other", 64)),
        (b"#!/bin/busybox sh\n" * 9, ("", 0)),
        (b"\x7fELF", ("", 0)),
    ],
    ids=["x86-64", "x86-32", "arm-64", "arm-32", "another", "a-script", "cut-off"],
)
def test_the_architecture_is_that_of_a_program(program: bytes, expected: tuple[str, int], tmp_path: Path) -> None:
    folder = _written(tmp_path / "root", {"etc/os-release": "ID=debian\n"})
    (folder / "sbin/init").write_bytes(program)

    found = guest.searched(guest.ext(tmp_path / "disk", folder, mib=4))

    assert found is not None
    assert (found.system.architecture, found.system.bits) == expected


def test_a_disk_of_files_is_no_system(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")

    assert guest.searched(guest.ext(tmp_path / "disk", tmp_path / "root", mib=4)) is None


def test_links_end_at_the_root_and_a_ring_of_them_ends(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/os-release").symlink_to("../../../../../vendor/os-release")
    (folder / "vendor").symlink_to("/real")
    (folder / "real").mkdir()
    (folder / "real/os-release").write_text("ID=debian\n")
    (folder / "ring").symlink_to("/ring")
    (folder / "deep").symlink_to("deep/deep")
    (folder / "long").symlink_to("/real/" + "../real/" * 40 + "os-release")
    with guest.opened(guest.ext(tmp_path / "disk", folder, mib=4)) as disk:
        files = Ext(disk)

        assert content(files, "/etc/os-release", 100) == b"ID=debian\n"
        assert content(files, "/long", 100) == b"ID=debian\n"
        assert find(files, "/real/os-release/below") is None
        for ring in ("/ring", "/deep"):
            with pytest.raises(Unreadable, match="without an end"):
                find(files, ring)


def test_a_text_of_any_length_is_read_up_to_a_bound(tmp_path: Path) -> None:
    text = f'ID=debian\nPRETTY_NAME="{"x" * 5000}"\n' + "A=b\n" * 100_000

    found = guest.searched(guest.ext(tmp_path / "disk", _written(tmp_path / "root", {"etc/os-release": text}), mib=4))

    assert found is not None
    assert found.system.id == "debian"
    assert len(found.system.name) == 200


def test_compressed_extents_of_btrfs_are_unpacked() -> None:
    text = b"ID=fedora\nVERSION_ID=39\n" * 100
    packed = subprocess.run(["zstd", "-c"], input=text, capture_output=True, check=True).stdout

    assert plain(1, zlib.compress(text), len(text)) == text
    assert plain(3, packed, len(text)) == text
    assert plain(3, packed.ljust(4096, b"\0"), len(text)) == text
    assert plain(3, packed, 10) == text[:10]


@pytest.mark.parametrize("compression", [1, 2, 200])
def test_an_extent_of_btrfs_that_is_damaged_or_packed_another_way_is_not_read(compression: int) -> None:
    with pytest.raises(Unreadable):
        plain(compression, b"nothing of that kind", 4096)


def test_of_a_damaged_extent_that_zstd_packed_nothing_is_read() -> None:
    assert plain(3, b"\x28\xb5\x2f\xfdnothing of that kind", 4096) == b""


def test_an_extent_that_unpacks_to_more_than_it_may_is_not_read_on() -> None:
    packed = subprocess.run(["zstd", "-c", "-19"], input=bytes(20_000_000), capture_output=True, check=True).stdout

    assert plain(3, packed, 4096) == bytes(4096)
    assert plain(1, zlib.compress(bytes(20_000_000)), 4096) == bytes(4096)
    with pytest.raises(Unreadable):
        plain(3, packed, 20_000_000)


def test_a_root_in_a_subvolume_is_found(tmp_path: Path) -> None:
    """The folder `inner` is made the name of the top subvolume itself, which is how any other is entered."""
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "os-release").write_text("ID=fedora\n")
    disk = guest.btrfs(tmp_path / "disk", folder)
    data = disk.read_bytes()
    entry = re.compile(rb"(.{8})\x01\0{8}(.{8}\0\0\x05\0\x02inner)", re.DOTALL)
    disk.write_bytes(entry.sub(lambda match: struct.pack("<QBQ", 5, 132, 2**64 - 1) + match[2], data))

    with guest.opened(disk) as opened:
        files = Btrfs(opened)
        (inner,) = files.subvolumes()

        assert content(files, "/inner/inner/os-release", 100) == b"ID=fedora\n"
        assert content(inner, "/os-release", 100) == b"ID=fedora\n"
