"""Large disks are compared in ranges, nearly empty ones where they have data; what differs is found by both."""

import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.convert import LEAST_RANGE, MOST_RANGES, Converter, range_starts
from calotype.disks.model import DiskFormat
from calotype.disks.sandbox import Sandbox
from calotype.disks.targets import TargetKind
from calotype.errors import ConversionFailed, VerificationFailed

MIB: Final = 1024**2
GIB: Final = 1024**3
# In ranges; and by where there are data.
SIZES: Final = {"ranges": 640 * MIB, "data": 20 * GIB + 512}
FORMATS: Final = {"vmdk": DiskFormat.VMDK, "vdi": DiskFormat.VDI, "qcow2": DiskFormat.QCOW2, "raw": DiskFormat.RAW}


@pytest.fixture
def converter() -> Converter:
    return Converter(Sandbox.detect(required=False))


def quiet(_: float) -> None:
    pass


def places(size: int) -> list[int]:
    return [0, size // 3, size // 2 - 100, size - 1000]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def raw_disk(path: Path, size: int, flipped: int | None = None) -> Path:
    """A few bytes here and there; one of the places may have another byte in its midst."""
    with path.open("wb") as file:
        for number, place in enumerate(places(size)):
            file.seek(place)
            file.write(b"guest bytes " * 20)
            if number == flipped:
                file.seek(place + 100)
                file.write(b"X")
        file.truncate(size)
    return path


def stored_as(name: str, raw: Path, target: Path) -> Path:
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", name, raw, target], check=True)
    return target


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", SIZES)
async def test_what_is_the_same_is_said_to_be(way: str, name: str, converter: Converter, tmp_path: Path) -> None:
    size, told = SIZES[way], list[float]()
    raw = raw_disk(tmp_path / "raw", size)
    one, other = stored_as(name, raw, tmp_path / "one"), tmp_path / "other"
    await converter.convert(one, FORMATS[name], other, TargetKind.QCOW2_ZSTD, virtual_size=size, progress=quiet)

    await converter.compare(one, FORMATS[name], other, DiskFormat.QCOW2, virtual_size=size, progress=told.append)

    assert told == sorted(told)
    assert told[-1] == 1.0
    assert names_in(tmp_path) == ["one", "other", "raw"]


@pytest.mark.parametrize("flipped", range(4))
@pytest.mark.parametrize("way", SIZES)
async def test_a_byte_that_differs_is_found_wherever_it_is(
    way: str, flipped: int, converter: Converter, tmp_path: Path
) -> None:
    size = SIZES[way]
    one = stored_as("vmdk", raw_disk(tmp_path / "raw", size), tmp_path / "one")
    other = stored_as("qcow2", raw_disk(tmp_path / "bent", size, flipped), tmp_path / "other")

    with pytest.raises(VerificationFailed, match="first at byte") as caught:
        await converter.compare(one, DiskFormat.VMDK, other, DiskFormat.QCOW2, virtual_size=size, progress=quiet)

    at = int(str(caught.value).split("at byte ")[1].split(" ")[0])
    assert places(size)[flipped] // 512 * 512 <= at <= places(size)[flipped] + 100  # qemu-img names the sector


@pytest.mark.parametrize("missing", ["image", "result"])
@pytest.mark.parametrize("way", SIZES)
async def test_data_that_only_one_has_are_found(way: str, missing: str, converter: Converter, tmp_path: Path) -> None:
    size = SIZES[way]
    full, empty = raw_disk(tmp_path / "full", size), tmp_path / "empty"
    empty.touch()
    with empty.open("r+b") as file:
        file.truncate(size)
    one, other = (empty, full) if missing == "image" else (full, empty)

    with pytest.raises(VerificationFailed, match="first at byte 0 of the disk"):
        await converter.compare(one, DiskFormat.RAW, other, DiskFormat.RAW, virtual_size=size, progress=quiet)


@pytest.mark.parametrize("more", [512, -512, -400 * MIB])
@pytest.mark.parametrize("way", SIZES)
async def test_another_size_is_found(way: str, more: int, converter: Converter, tmp_path: Path) -> None:
    size = SIZES[way]
    one, other = raw_disk(tmp_path / "one", size), tmp_path / "other"
    other.touch()
    with one.open("rb") as source, other.open("r+b") as file:
        file.write(source.read(1000))
        file.truncate(size + more)

    with pytest.raises(VerificationFailed):
        await converter.compare(one, DiskFormat.RAW, other, DiskFormat.RAW, virtual_size=size, progress=quiet)


@pytest.mark.parametrize("way", SIZES)
async def test_what_cannot_be_read_is_not_the_same(way: str, converter: Converter, tmp_path: Path) -> None:
    size = SIZES[way]
    one, other = raw_disk(tmp_path / "one", size), tmp_path / "other"
    other.write_bytes(b"no image" * 1000)

    with pytest.raises(ConversionFailed, match="could not be compared"):
        await converter.compare(one, DiskFormat.RAW, other, DiskFormat.QCOW2, virtual_size=size, progress=quiet)


@given(st.integers(1, 1 << 50), st.integers(1, 64))
def test_ranges_begin_at_the_start_and_none_is_small(size: int, most: int) -> None:
    starts = range_starts(size, most)

    assert starts[0] == 0
    assert len(starts) <= min(most, MOST_RANGES)
    ends = [*starts[1:], size]
    assert all(end - start >= min(size, LEAST_RANGE - MIB) for start, end in zip(starts, ends, strict=True))
