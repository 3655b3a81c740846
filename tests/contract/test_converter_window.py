"""qemu-img, the real one in the sandbox, on images that lie inside a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.convert import Converter
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import Sandbox
from calotype.disks.targets import TargetKind
from calotype.errors import ConversionFailed, TruncatedDisk, VerificationFailed
from tests.disks import build

BEFORE: Final = build.qcow2()
AFTER: Final = build.vhd_footer(kind=2)
IMAGES: Final[dict[str, tuple[DiskFormat, Callable[[], bytes]]]] = {
    "qcow2": (DiskFormat.QCOW2, build.qcow2),
    "vmdk": (DiskFormat.VMDK, build.vmdk),
    "vhd": (DiskFormat.VHD, build.vhd),
    "fixed vhd": (DiskFormat.VHD, build.vhd_fixed),
    "vhdx": (DiskFormat.VHDX, build.vhdx),
    "vdi": (DiskFormat.VDI, build.vdi),
    "qed": (DiskFormat.QED, build.qed),
    "qcow": (DiskFormat.QCOW, build.qcow1),
    "raw": (DiskFormat.RAW, build.raw),
}


@pytest.fixture(scope="module", params=["bubblewrap", "limits"])
def converter(request: pytest.FixtureRequest) -> Converter:
    return Converter(Sandbox(bubblewrap=[]) if request.param == "limits" else Sandbox.detect(required=False))


def archive(folder: Path, content: bytes) -> tuple[Path, Window]:
    path = folder / "archive"
    path.write_bytes(BEFORE + build.padded(content, 512) + AFTER)
    return path, Window(offset=len(BEFORE), length=len(content))


def quiet(_: float) -> None:
    pass


@pytest.mark.parametrize("name", IMAGES)
async def test_an_image_inside_a_file_is_checked_converted_and_compared(
    converter: Converter, tmp_path: Path, name: str
) -> None:
    format_, make = IMAGES[name]
    path, window = archive(tmp_path, make())
    target = tmp_path / "target"
    with path.open("rb") as file:
        size = inspect(file, declared=None, most_virtual_bytes=2**40, window=window).virtual_size

    await converter.check(path, format_, window=window)
    await converter.convert(path, format_, target, TargetKind.RAW, virtual_size=size, progress=quiet, window=window)
    await converter.compare(path, format_, target, DiskFormat.RAW, virtual_size=size, progress=quiet, window=window)

    assert target.read_bytes() == build.raw(size)


async def test_a_raw_disk_of_no_whole_sectors_is_read_up_to_its_last(converter: Converter, tmp_path: Path) -> None:
    path, window = archive(tmp_path, build.CONTENT + b"the end")
    target = tmp_path / "target"

    await converter.convert(
        path, DiskFormat.RAW, target, TargetKind.RAW, virtual_size=66048, progress=quiet, window=window
    )

    assert target.read_bytes() == (build.CONTENT + b"the end").ljust(66048, b"\0")


async def test_a_difference_to_an_image_inside_a_file_is_found(converter: Converter, tmp_path: Path) -> None:
    path, window = archive(tmp_path, build.qcow2())
    other = tmp_path / "other"
    other.write_bytes(build.raw()[:-1] + b"x")

    with pytest.raises(VerificationFailed, match="first at byte"):
        await converter.compare(
            path,
            DiskFormat.QCOW2,
            other,
            DiskFormat.RAW,
            virtual_size=build.SIZE,
            progress=quiet,
            window=window,
        )


async def test_damage_to_an_image_inside_a_file_is_told_without_its_name(converter: Converter, tmp_path: Path) -> None:
    content = bytearray(build.qcow2())
    content[0x20000:0x20002] = bytes(2)  # of the refcounts: the header's cluster is not counted
    path, window = archive(tmp_path, bytes(content))

    with pytest.raises(TruncatedDisk) as refused:
        await converter.check(path, DiskFormat.QCOW2, window=window)

    assert not [mark for mark in ("json:", "{", "}", "/in/", str(tmp_path)) if mark in refused.value.message]


async def test_a_window_past_the_end_of_the_file_is_refused(converter: Converter, tmp_path: Path) -> None:
    path, window = archive(tmp_path, build.raw())
    beyond = Window(offset=window.offset, length=window.length + 1024**2)

    with pytest.raises(ConversionFailed) as refused:
        await converter.convert(
            path,
            DiskFormat.RAW,
            tmp_path / "target",
            TargetKind.RAW,
            virtual_size=beyond.length,
            progress=quiet,
            window=beyond,
        )

    assert "}" not in refused.value.message
    assert str(tmp_path) not in refused.value.message
