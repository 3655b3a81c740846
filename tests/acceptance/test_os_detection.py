"""The system on a disk image: found in each format, by the child process in the real sandbox, and told of the image."""

import asyncio
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from calotype.disks.guest.detect import detect
from calotype.disks.guest.model import Guest
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import Sandbox
from tests.disks import guest
from tests.service import Client, until

SIZE: Final = 16 * 1024**2  # bytes; of no matter, if it is not 0

# What qemu-img calls it, and with which options.
FORMATS: Final = {
    DiskFormat.RAW: ("raw", ""),
    DiskFormat.QCOW2: ("qcow2", "compression_type=zstd"),
    DiskFormat.VMDK: ("vmdk", "subformat=streamOptimized"),
    DiskFormat.VHD: ("vpc", "subformat=dynamic,force_size=on"),
    DiskFormat.VHDX: ("vhdx", ""),
    DiskFormat.VDI: ("vdi", ""),
}


@pytest.fixture(params=["bubblewrap", "limits"], scope="module")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """With all that this host has, and with what is always there."""
    return Sandbox(bubblewrap=[]) if request.param == "limits" else Sandbox.detect(required=False)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    root = guest.ext(folder / "root.img", guest.linux_root(folder / "root"), mib=8)
    efi = guest.fat(folder / "efi", ["EFI/BOOT/BOOTX64.EFI"], mib=4, bits=12)
    return guest.gpt(folder / "disk", [(guest.EFI_SYSTEM, efi), (guest.LINUX_DATA, root)])


def converted(disk: Path, image: Path, format_: DiskFormat) -> Path:
    driver, options = FORMATS[format_]
    command = ["qemu-img", "convert", "-f", "raw", "-O", driver, *(["-o", options] if options else [])]
    subprocess.run([*command, str(disk), str(image)], check=True)
    return image


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_system_is_found_on_a_disk_of_each_format(
    sandbox: Sandbox, disk: Path, tmp_path: Path, format_: DiskFormat
) -> None:
    image = converted(disk, tmp_path / "image", format_)

    found = await detect(sandbox, image, format_, virtual_size=SIZE, scratch=tmp_path / "scratch")

    assert found == Guest(
        family="linux",
        id="ubuntu",
        version_id="22.04",
        version="22.04.3 LTS (Jammy Jellyfish)",
        release="22.04.3",
        name="Ubuntu 22.04.3 LTS",
        edition="",
        architecture="x86",
        bits=64,
        firmware="uefi",
        root_filesystem="ext4",
    )
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_the_system_of_a_real_image_is_found(sandbox: Sandbox, alpine: Path, tmp_path: Path) -> None:
    found = await detect(sandbox, alpine, DiskFormat.QCOW2, virtual_size=1024**3, scratch=tmp_path)

    assert found is not None
    assert (found.id, found.architecture, found.bits, found.root_filesystem) == ("alpine", "x86", 64, "ext4")


@pytest.mark.parametrize("format_", [DiskFormat.RAW, DiskFormat.QCOW2])
async def test_an_image_that_is_a_part_of_a_file_is_read_there(
    sandbox: Sandbox, disk: Path, tmp_path: Path, format_: DiskFormat
) -> None:
    image = converted(disk, tmp_path / "image", format_).read_bytes()
    (tmp_path / "archive").write_bytes(b"\xff" * 5120 + image + b"\xff" * 5120)

    found = await detect(
        sandbox,
        tmp_path / "archive",
        format_,
        virtual_size=SIZE,
        scratch=tmp_path / "scratch",
        window=Window(offset=5120, length=len(image)),
    )

    assert found is not None
    assert found.id == "ubuntu"


async def test_what_a_system_says_of_itself_is_printable(sandbox: Sandbox, tmp_path: Path) -> None:
    root = guest.linux_root(tmp_path / "root", 'ID=debian\nPRETTY_NAME="Deb\x1b[31mian\x00\u202eGNU ✓"\n')
    disk = guest.ext(tmp_path / "disk", root, mib=4)

    found = await detect(sandbox, disk, DiskFormat.RAW, virtual_size=SIZE, scratch=tmp_path / "scratch")

    assert found is not None
    assert found.name == "Deb [31mian  GNU ✓"


async def test_a_file_of_btrfs_that_zstd_packed_is_read(sandbox: Sandbox, tmp_path: Path) -> None:
    disk = packed_by_zstd(tmp_path)

    found = await detect(sandbox, disk, DiskFormat.RAW, virtual_size=SIZE, scratch=tmp_path / "scratch")

    assert found is not None
    assert (found.id, found.root_filesystem) == ("ubuntu", "btrfs")


def packed_by_zstd(folder: Path) -> Path:
    """As `compress=zstd` writes it, which the tools of btrfs cannot without a mount: the extent is changed here."""
    text = guest.UBUNTU + "# " + "-" * 400 + "\n"
    made = guest.btrfs(folder / "disk", guest.linux_root(folder / "root", text))
    packed = subprocess.run(["zstd", "-c"], input=text.encode(), capture_output=True, check=True).stdout
    plain = struct.pack("<QBBHB", len(text), 0, 0, 0, 0) + text.encode()
    data = made.read_bytes()
    assert plain in data
    made.write_bytes(data.replace(plain, struct.pack("<QBBHB", len(text), 3, 0, 0, 0) + packed.ljust(len(text), b"\0")))
    return made


async def test_nothing_is_found_on_what_is_no_system(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1024**2))
    (tmp_path / "short").write_bytes(b"\x55\xaa")
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "no-image").write_bytes(b"no image of that format" * 100)

    for name, format_ in (
        ("zeros", DiskFormat.RAW),
        ("short", DiskFormat.RAW),
        ("none", DiskFormat.RAW),
        ("no-image", DiskFormat.QCOW2),
        ("no-image", DiskFormat.VHD),
        ("zeros", DiskFormat.ISO),
        ("not-there", DiskFormat.RAW),
    ):
        found = await detect(sandbox, tmp_path / name, format_, virtual_size=512, scratch=tmp_path / "scratch")
        assert found is None, name

    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("when", ["at-once", "later"])
async def test_a_stopped_search_leaves_nothing(sandbox: Sandbox, alpine: Path, tmp_path: Path, when: str) -> None:
    scratch = tmp_path / "scratch"
    task = asyncio.create_task(detect(sandbox, alpine, DiskFormat.QCOW2, virtual_size=SIZE, scratch=scratch))
    await asyncio.sleep(0)  # it begins
    if when == "later":
        await asyncio.to_thread(until, lambda: [*scratch.glob("*/reader.zip")] or task.done(), "the program")
    task.cancel()

    with suppress(asyncio.CancelledError):  # it may have come to its end before
        await task

    assert list(scratch.iterdir()) == []


async def test_a_search_does_not_change_the_image(sandbox: Sandbox, disk: Path, tmp_path: Path) -> None:
    image = converted(disk, tmp_path / "image", DiskFormat.VMDK)
    before = image.read_bytes()

    await detect(sandbox, image, DiskFormat.VMDK, virtual_size=SIZE, scratch=tmp_path / "scratch")

    assert image.read_bytes() == before


def imported(demo: Client, disk: Path, **fields: Any) -> dict[str, Any]:
    bucket = f"b-{os.urandom(4).hex()}"
    demo.put_object(bucket, "disk", disk)
    job = demo.succeeded(demo.import_image(f"{bucket}:disk", disk.name, **fields))
    demo.http.delete(f"/calotype/v1/buckets/{bucket}/objects/disk")
    demo.http.delete(f"/calotype/v1/buckets/{bucket}")
    return demo.image(job["entities"]["image_id"])


def says(image: dict[str, Any]) -> tuple[str, ...]:
    return tuple(image[name] for name in ("__os_version", "__os_type", "__platform", "__os_bit"))


@pytest.mark.parametrize("given", [{}, {"os_version": "Windows Server 2016 Standard 64bit"}], ids=["none", "another"])
def test_an_image_is_of_the_system_that_is_on_its_disk_whatever_was_given(
    demo: Client, disk: Path, given: dict[str, str]
) -> None:
    image = imported(demo, disk, **given)

    assert says(image) == ("Ubuntu 22.04 Server 64bit", "Linux", "Ubuntu", "64")


def test_an_image_of_a_windows_is_one(demo: Client, tmp_path: Path) -> None:
    made = guest.ntfs(tmp_path / "disk", guest.windows_root(tmp_path / "root"))
    disk = guest.mbr(tmp_path / "windows", [(7, made)])

    image = imported(demo, converted(disk, tmp_path / "windows.vhdx", DiskFormat.VHDX))

    assert says(image) == ("Windows Server 2019 Standard 64bit", "Windows", "Windows", "64")


def test_what_was_given_is_used_where_no_system_is_found(demo: Client, tmp_path: Path) -> None:
    disk = tmp_path / "encrypted"
    disk.write_bytes(os.urandom(1024**2))

    image = imported(demo, disk, os_version="Debian GNU/Linux 11.7.0 64bit")

    assert says(image) == ("Debian GNU/Linux 11.7.0 64bit", "Linux", "Debian", "64")


def test_a_damaged_file_system_does_not_keep_an_image_from_being_made(demo: Client, disk: Path, tmp_path: Path) -> None:
    data = bytearray(disk.read_bytes())
    start = data.index(b"\x53\xef\x01\x00") - 0x38  # the superblock of ext4
    data[start : start + 0x30] = b"\xff" * 0x30
    (tmp_path / "damaged").write_bytes(data)

    image = imported(demo, tmp_path / "damaged", os_version="Fedora 39 64bit")

    assert says(image) == ("Fedora 39 64bit", "Linux", "Fedora", "64")
