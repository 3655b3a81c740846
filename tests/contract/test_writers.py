"""Our own writers behind the converter: what qemu-img reads back is what the guest had, from every format."""

import asyncio
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.convert import WRITERS, Converter
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat, Window
from calotype.disks.sandbox import Limits, Sandbox
from calotype.disks.targets import TargetKind
from calotype.disks.writers.guest_bytes import GuestDisk, blocks
from calotype.disks.writers.pipeline import Crew
from calotype.disks.writers.run import ServerFailed, write
from calotype.errors import ConversionFailed, NoSpace, VerificationFailed
from tests.disks import build

UNIT: Final = 64 * 1024
MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4
SCATTERED: Final = 40 * MIB + 512
FORMATS: Final = {
    TargetKind.VMDK_STREAM: DiskFormat.VMDK,
    TargetKind.QCOW2_ZLIB: DiskFormat.QCOW2,
    TargetKind.QCOW2_ZSTD: DiskFormat.QCOW2,
}
SOURCES: Final = {
    "qcow2": (DiskFormat.QCOW2, ("-O", "qcow2")),
    "zlib qcow2": (DiskFormat.QCOW2, ("-c", "-O", "qcow2")),
    "zstd qcow2": (DiskFormat.QCOW2, ("-c", "-O", "qcow2", "-o", "compression_type=zstd")),
    "extended qcow2": (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k")),
    "small qcow2": (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "cluster_size=512")),
    "sparse VMDK": (DiskFormat.VMDK, ("-O", "vmdk", "-o", "subformat=monolithicSparse")),
    "stream VMDK": (DiskFormat.VMDK, ("-O", "vmdk", "-o", "subformat=streamOptimized")),
    "dynamic VHD": (DiskFormat.VHD, ("-O", "vpc", "-o", "subformat=dynamic,force_size=on")),
    "fixed VHD": (DiskFormat.VHD, ("-O", "vpc", "-o", "subformat=fixed,force_size=on")),
    "VHDX": (DiskFormat.VHDX, ("-O", "vhdx")),
    "VDI": (DiskFormat.VDI, ("-O", "vdi")),
}
LIMITS: Final = Limits(memory_bytes=2 * GIB, cpu_s=60, file_bytes=MIB, wall_s=60.0)


@pytest.fixture(scope="module", params=["bubblewrap", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox(bubblewrap=[]) if request.param == "limits" else Sandbox.detect(required=False)


@pytest.fixture
def converter() -> Converter:
    return Converter(Sandbox.detect(required=False))


def quiet(_: float) -> None:
    pass


def noise(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def scattered(path: Path) -> Path:
    """Text, noise, and holes, over the ends of units; `SCATTERED` bytes."""
    with path.open("wb") as file:
        for place in range(0, SCATTERED, 700_000):
            file.seek(place)
            file.write(noise(50_000) + b"text " * 10_000)
        file.truncate(SCATTERED)
    return path


def stored_as(source: Path, target: Path, *words: str) -> Path:
    subprocess.run(["qemu-img", "convert", "-f", "raw", *words, source, target], check=True)
    return target


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sound(target: Path, kind: TargetKind, size: int) -> None:
    with target.open("rb") as file:
        found = inspect(file, declared=FORMATS[kind], most_virtual_bytes=2 * TIB)
    assert found.virtual_size == -(-size // 512) * 512
    report = subprocess.run(["qemu-img", "check", "-f", FORMATS[kind], target], capture_output=True, check=False)
    assert report.returncode == 0, report.stderr  # not even leaked clusters


def pattern_read(target: Path, kind: TargetKind, reads: list[str]) -> None:
    words = [word for read in reads for word in ("-c", read)]
    told = subprocess.run(
        ["qemu-io", "-r", "-f", FORMATS[kind], *words, target], capture_output=True, text=True, check=True
    )
    assert told.stdout.count("read ") == len(reads)
    assert "failed" not in told.stdout + told.stderr


async def checked(
    converter: Converter, source: Path, format_: DiskFormat, target: Path, kind: TargetKind, size: int
) -> None:
    await converter.convert(source, format_, target, kind, virtual_size=size, progress=quiet)
    sound(target, kind, size)
    await converter.compare(source, format_, target, FORMATS[kind], virtual_size=size, progress=quiet)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", WRITERS)
async def test_a_disk_of_any_format_is_read(kind: TargetKind, name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    format_, words = SOURCES[name]
    source = stored_as(scattered(tmp_path / "raw"), tmp_path / "source", *words)

    await checked(Converter(sandbox), source, format_, tmp_path / "target", kind, SCATTERED)

    assert names_in(tmp_path) == ["raw", "source", "target"]


CONTENTS: Final[dict[str, Callable[[], bytes]]] = {
    "a sector": lambda: noise(512),
    "less than a grain": lambda: noise(UNIT - 512),
    "a grain": lambda: noise(UNIT),
    "a grain and a sector": lambda: b"\x01" * UNIT + noise(512),
    "an odd number of bytes": lambda: b"text" * 20_000 + b"end",
    "zeros": lambda: bytes(3 * MIB),
    "noise": lambda: noise(3 * MIB + 512),
    "one value": lambda: b"\xff" * (5 * MIB),
    "zeros after data": lambda: noise(UNIT) + bytes(33 * MIB),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("kind", WRITERS)
async def test_a_raw_disk_of_any_content(kind: TargetKind, name: str, converter: Converter, tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.write_bytes(CONTENTS[name]())

    await checked(converter, source, DiskFormat.RAW, tmp_path / "target", kind, source.stat().st_size)


@pytest.mark.parametrize("kind", WRITERS)
async def test_a_disk_without_data_is_nearly_nothing(kind: TargetKind, converter: Converter, tmp_path: Path) -> None:
    source, target = tmp_path / "raw", tmp_path / "target"
    source.touch()
    with source.open("r+b") as file:
        file.truncate(10 * GIB + 512)

    await checked(converter, source, DiskFormat.RAW, target, kind, 10 * GIB + 512)

    assert target.stat().st_size <= 5 * UNIT


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("stored", [DiskFormat.RAW, DiskFormat.QCOW2])
async def test_a_disk_of_2_tib_costs_what_its_data_cost(
    stored: DiskFormat, kind: TargetKind, converter: Converter, tmp_path: Path
) -> None:
    """Not compared whole: qemu-img takes minutes for the zeros of a VMDK of this size."""
    raw, target = tmp_path / "raw", tmp_path / "target"
    places = (0, 512 * MIB - UNIT, 512 * MIB, TIB, 2 * TIB - 512)
    with raw.open("wb") as file:
        for value, place in enumerate(places, 1):
            file.seek(place)
            file.write(bytes([value]) * 512)
    source = stored_as(raw, tmp_path / "source", "-O", stored)

    await converter.convert(source, stored, target, kind, virtual_size=2 * TIB, progress=quiet)

    sound(target, kind, 2 * TIB)
    reads = [f"read -P {value} {place} 512" for value, place in enumerate(places, 1)]
    reads += [f"read -P 0 {place} {UNIT}" for place in (512, 513 * MIB, TIB - UNIT, 2 * TIB - UNIT - 512)]
    pattern_read(target, kind, reads)
    assert target.stat().st_size < 2 * MIB


@pytest.mark.parametrize("stored", [DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VDI])
async def test_holes_of_an_image_are_not_read(stored: DiskFormat, sandbox: Sandbox, tmp_path: Path) -> None:
    """Of all but VHDX, of which qemu calls everything data."""
    raw, target = tmp_path / "raw", tmp_path / "target"
    with raw.open("wb") as file:
        for place in (0, 7 * GIB, 20 * GIB):
            file.seek(place)
            file.write(noise(UNIT))
        file.truncate(21 * GIB)
    source = stored_as(raw, tmp_path / "source", "-O", stored)
    target.touch()
    seen: list[tuple[int, int]] = []

    def looking(disk: GuestDisk, target: Path, crew: Crew, /, *, progress: object, cancelled: object) -> None:
        seen.extend(blocks(disk.extents(), disk.size))

    image = f'json:{{"driver":"{stored}","read-only":true,"file":{{"driver":"file","filename":"/in/0"}}}}'
    await write(
        looking, sandbox, Crew(), source, stored, image, target,
        virtual_size=21 * GIB, limits=LIMITS, window=None, progress=quiet,
    )  # fmt: skip

    assert {start // MIB * MIB for start, _ in seen} >= {0, 7 * GIB, 20 * GIB}
    assert sum(length for _, length in seen) <= 3 * MIB  # VDI has blocks of so many


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("stored", ["raw", "qcow2"])
async def test_an_image_inside_a_file(stored: str, kind: TargetKind, converter: Converter, tmp_path: Path) -> None:
    archive, target = tmp_path / "archive", tmp_path / "target"
    image = build.SOUND[stored]()
    archive.write_bytes(noise(1024) + image + b"after" * 1000)
    format_, window = DiskFormat(stored), Window(offset=1024, length=len(image))

    await converter.convert(archive, format_, target, kind, virtual_size=build.SIZE, progress=quiet, window=window)
    await converter.compare(
        archive, format_, target, FORMATS[kind], virtual_size=build.SIZE, progress=quiet, window=window
    )


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return stored_as(scattered(tmp_path / "raw"), tmp_path / "stored", "-O", "vdi")


@pytest.mark.parametrize("kind", WRITERS)
async def test_what_is_no_image_is_refused_in_qemus_words(kind: TargetKind, sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(noise(UNIT))

    with pytest.raises(ConversionFailed, match="could not be converted"):
        await Converter(sandbox).convert(
            source, DiskFormat.VDI, tmp_path / "target", kind, virtual_size=UNIT, progress=quiet
        )

    assert names_in(tmp_path) == ["source", "target"]


@pytest.mark.parametrize("kind", WRITERS)
async def test_a_cluster_that_is_not_there_ends_it(kind: TargetKind, sandbox: Sandbox, tmp_path: Path) -> None:
    source = stored_as(scattered(tmp_path / "raw"), tmp_path / "source", "-c", "-O", "qcow2")
    with source.open("r+b") as file:
        file.seek(3 * UNIT)
        file.write(b"\xff" * MIB)  # over compressed clusters

    with pytest.raises(ConversionFailed, match="cannot be read at byte"):
        await Converter(sandbox).convert(
            source, DiskFormat.QCOW2, tmp_path / "target", kind, virtual_size=SCATTERED, progress=quiet
        )


async def test_a_disk_of_another_size_than_was_found_is_refused(
    converter: Converter, stored: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConversionFailed, match="holds a disk of"):
        await converter.convert(
            stored, DiskFormat.VDI, tmp_path / "target", TargetKind.VMDK_STREAM, virtual_size=MIB, progress=quiet
        )


@pytest.mark.parametrize("kind", WRITERS)
async def test_a_full_disk_is_told_as_one(kind: TargetKind, converter: Converter, tmp_path: Path) -> None:
    source = scattered(tmp_path / "raw")

    with pytest.raises(NoSpace):
        await converter.convert(
            source, DiskFormat.RAW, Path("/dev/full"), kind, virtual_size=source.stat().st_size, progress=quiet
        )


@pytest.mark.parametrize("kind", WRITERS)
async def test_a_flipped_byte_of_the_result_is_found(kind: TargetKind, converter: Converter, tmp_path: Path) -> None:
    source, target = tmp_path / "raw", tmp_path / "target"
    source.write_bytes(noise(4 * UNIT))
    await converter.convert(source, DiskFormat.RAW, target, kind, virtual_size=4 * UNIT, progress=quiet)
    with target.open("r+b") as file:
        file.seek(2 * UNIT + 1000)
        byte = file.read(1)
        file.seek(2 * UNIT + 1000)
        file.write(bytes([byte[0] ^ 1]))

    with pytest.raises((VerificationFailed, ConversionFailed)):
        await converter.compare(source, DiskFormat.RAW, target, FORMATS[kind], virtual_size=4 * UNIT, progress=quiet)


async def test_a_server_that_ends_too_early_is_told_with_its_last_words(sandbox: Sandbox, stored: Path) -> None:
    target = stored.with_name("target")
    target.touch()

    with pytest.raises(ServerFailed) as caught:
        await write(
            WRITERS[TargetKind.VMDK_STREAM], sandbox, Crew(), stored, DiskFormat.VDI, "json:{}", target,
            virtual_size=MIB, limits=LIMITS, window=None, progress=quiet,
        )  # fmt: skip

    assert b"driver" in caught.value.result.stderr


async def test_a_server_that_stalls_is_ended_by_its_time(sandbox: Sandbox, stored: Path) -> None:
    """The writer waits for bytes that do not come: the limit on the server is the limit on all."""
    target = stored.with_name("target")
    target.touch()
    limits = Limits(memory_bytes=2 * GIB, cpu_s=60, file_bytes=MIB, wall_s=0.5)
    image = '{"driver":"vdi","read-only":true,"file":{"driver":"file","filename":"/in/0"}}'

    def never_ending(disk: GuestDisk, target: Path, crew: Crew, /, *, progress: object, cancelled: object) -> None:
        while True:
            for _ in disk.extents():
                pass

    with pytest.raises(TimeoutError):
        await write(
            never_ending, sandbox, Crew(), stored, DiskFormat.VDI, f"json:{image}", target,
            virtual_size=SCATTERED, limits=limits, window=None, progress=quiet,
        )  # fmt: skip


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 10])
async def test_cancelling_before_there_is_a_server_leaves_nothing(
    turns: int, converter: Converter, stored: Path, tmp_path: Path
) -> None:
    task = asyncio.create_task(
        converter.convert(
            stored,
            DiskFormat.VDI,
            tmp_path / "target",
            TargetKind.VMDK_STREAM,
            virtual_size=SCATTERED,
            progress=quiet,
        )
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not [name for name in names_in(tmp_path) if name.startswith("nbd-")]


async def test_cancelling_while_the_server_starts_leaves_nothing(
    converter: Converter, stored: Path, tmp_path: Path
) -> None:
    task = asyncio.create_task(
        converter.convert(
            stored,
            DiskFormat.VDI,
            tmp_path / "target",
            TargetKind.VMDK_STREAM,
            virtual_size=SCATTERED,
            progress=quiet,
        )
    )
    while not any(name.startswith("nbd-") for name in names_in(tmp_path)):  # noqa: ASYNC110 - a folder has no event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert names_in(tmp_path) == ["raw", "stored", "target"]
