"""Every format that is taken, as every format that is written: the same bytes, to the same size, and holes stay holes.

What the guest's bytes are is known beforehand: each result is read by qemu-img, outside of any code of ours, and its
digest is held against that of what was made here.
"""

import asyncio
import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from calotype.disks.convert import CHECKED, DRIVERS, Converter
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat
from calotype.disks.sandbox import Sandbox
from calotype.disks.targets import TARGETS, TargetKind

KIB: Final = 1024
MIB: Final = 1024**2
SECTOR: Final = 512
AT_ONCE: Final = 3  # children, of a test
# What a source is made by: words of qemu-img, from a raw file.
SOURCES: Final = {
    "raw": (DiskFormat.RAW, ()),
    "qcow2-v2": (DiskFormat.QCOW2, ("-o", "compat=0.10")),
    "qcow2-v3": (DiskFormat.QCOW2, ("-o", "compat=1.1")),
    "qcow2-zlib": (DiskFormat.QCOW2, ("-c",)),
    "qcow2-zstd": (DiskFormat.QCOW2, ("-c", "-o", "compression_type=zstd")),
    "qcow2-extended-l2": (DiskFormat.QCOW2, ("-o", "extended_l2=on")),
    "qcow2-with-snapshot": (DiskFormat.QCOW2, ()),
    "qcow": (DiskFormat.QCOW, ()),
    "qed": (DiskFormat.QED, ()),
    "vdi": (DiskFormat.VDI, ()),
    "vdi-static": (DiskFormat.VDI, ("-o", "static=on")),
    "vmdk-sparse": (DiskFormat.VMDK, ("-o", "subformat=monolithicSparse")),
    "vmdk-stream": (DiskFormat.VMDK, ("-o", "subformat=streamOptimized")),
    "vhd": (DiskFormat.VHD, ("-o", "subformat=dynamic,force_size=on")),
    "vhd-fixed": (DiskFormat.VHD, ("-o", "subformat=fixed,force_size=on")),
    "vhdx": (DiskFormat.VHDX, ()),
    "vhdx-fixed": (DiskFormat.VHDX, ("-o", "subformat=fixed")),
    "vhdx-unknown-blocks": (DiskFormat.VHDX, ("-o", "block_state_zero=off")),
}
# What a result may take on the disk beside its data: tables, and what is filled up around each piece of data.
MOST_BESIDE: Final = dict.fromkeys(TargetKind, 768 * KIB) | {
    TargetKind.VDI: 5 * MIB,  # whole blocks of 1 MiB: that many have data
    TargetKind.VHDX: 2 * MIB,  # regions and a log of 1 MiB each
}


def noise(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def written(path: Path, size: int, *pieces: tuple[int, bytes]) -> Path:
    """A raw disk of so many bytes with holes between its pieces."""
    with path.open("wb") as file:
        for at, data in pieces:
            file.seek(at)
            file.write(data)
        file.truncate(size)
    return path


SIZE: Final = 16 * MIB + 3 * SECTOR
PIECES: Final = (
    (0, noise(70_000)),  # ends within a cluster
    (3 * MIB - 1000, b"over the end of a block " * 200),
    (5 * MIB, bytes(2 * MIB)),  # zeros that were written
    (9 * MIB + 64 * KIB, noise(64 * KIB)),  # a cluster, whole
    (SIZE - SECTOR, noise(SECTOR)),  # the last sector, in a cluster that is not whole
)
DATA_BYTES: Final = sum(len(data) for _, data in PIECES if any(data))


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter(Sandbox.detect(required=False))


def quiet(_: float) -> None:
    pass


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made(raw: Path, name: str, target: Path) -> Path:
    format_, words = SOURCES[name]
    if name == "qcow2-with-snapshot":
        return with_snapshot(raw, target)
    if format_ is DiskFormat.RAW:
        return raw
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", DRIVERS[format_], *words, raw, target], check=True)
    return target


def with_snapshot(raw: Path, target: Path) -> Path:
    """The snapshot holds another disk than the one in force, larger and full of other bytes."""
    other = target.with_suffix(".other")
    other.write_bytes(b"before the snapshot " * 50_000)
    qemu_img = ["qemu-img"]
    subprocess.run([*qemu_img, "convert", "-f", "raw", "-O", "qcow2", other, target], check=True)
    subprocess.run([*qemu_img, "snapshot", "-c", "before", target], check=True)
    subprocess.run([*qemu_img, "resize", "-q", "-f", "qcow2", target, str(raw.stat().st_size)], check=True)
    subprocess.run([*qemu_img, "convert", "-n", "-f", "raw", "-O", "qcow2", raw, target], check=True)
    other.unlink()
    return target


def looked_at(path: Path, format_: DiskFormat) -> tuple[int, int]:
    """The size of the disk, and how many snapshots are beside it, as the gate finds them."""
    with path.open("rb") as file:
        found = inspect(file, declared=format_, most_virtual_bytes=1024**4)
    return found.virtual_size, found.snapshots


def guest_digest(path: Path, format_: DiskFormat) -> str:
    target = path.with_suffix(".guest")
    command = ["qemu-img", "convert", "-f", DRIVERS[format_], "-O", "raw", str(path), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    found = digest(target)
    target.unlink()
    return found


def is_sound(path: Path, format_: DiskFormat) -> None:
    if format_ in CHECKED:
        command = ["qemu-img", "check", "-q", "-f", DRIVERS[format_], str(path)]
        told = subprocess.run(command, capture_output=True, check=False)
        assert told.returncode == 0, (path.name, told.stderr, told.stdout)  # not even leaked clusters


async def round_trip(
    converter: Converter, source: Path, source_format: DiskFormat, kind: TargetKind, *, size: int, expected: str
) -> Path:
    """Convert, and hold the result against the source and the digest of what the guest has."""
    target, format_ = source.with_name(f"{source.name}-as-{kind}"), TARGETS[kind].format
    await converter.convert(source, source_format, target, kind, virtual_size=size, progress=quiet)
    assert looked_at(target, format_) == (size, 0), target.name
    await converter.compare(source, source_format, target, format_, virtual_size=size, progress=quiet)
    await asyncio.to_thread(is_sound, target, format_)
    assert await asyncio.to_thread(guest_digest, target, format_) == expected, target.name
    return target


async def as_every_kind(
    converter: Converter, source: Path, format_: DiskFormat, *, size: int, expected: str
) -> dict[TargetKind, Path]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(kind: TargetKind) -> Path:
        async with room:
            return await round_trip(converter, source, format_, kind, size=size, expected=expected)

    async with asyncio.TaskGroup() as group:
        tasks = {kind: group.create_task(one(kind)) for kind in TargetKind}
    return {kind: task.result() for kind, task in tasks.items()}


def taken(path: Path) -> int:
    """Bytes on the disk, without holes."""
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("name", SOURCES)
async def test_a_disk_of_this_format_is_the_same_in_every_other_and_its_holes_stay(
    name: str, converter: Converter, tmp_path: Path
) -> None:
    raw = written(tmp_path / "raw", SIZE, *PIECES)
    expected = digest(raw)
    format_ = SOURCES[name][0]
    source = made(raw, name, tmp_path / "source")
    assert looked_at(source, format_)[0] == SIZE
    if format_ is not DiskFormat.RAW:
        raw.unlink()

    results = await as_every_kind(converter, source, format_, size=SIZE, expected=expected)

    too_much = {kind: taken(path) for kind, path in results.items() if taken(path) > DATA_BYTES + MOST_BESIDE[kind]}
    assert not too_much


DISKS: Final[dict[str, Callable[[Path], Path]]] = {
    "one sector": lambda path: written(path, SECTOR, (0, noise(SECTOR))),
    "a sector more than a cluster": lambda path: written(path, 64 * KIB + SECTOR, (64 * KIB, noise(SECTOR))),
    "a sector less than a block of VHD": lambda path: written(path, 2 * MIB - SECTOR, (MIB, noise(MIB - SECTOR))),
    "no sector but the last": lambda path: written(path, 7 * MIB + SECTOR, (7 * MIB, noise(SECTOR))),
    "all zeros, written": lambda path: written(path, 4 * MIB, (0, bytes(4 * MIB))),
    "one hole": lambda path: written(path, 40 * MIB + 5 * SECTOR),
    "no hole and no zero": lambda path: written(path, 3 * MIB + SECTOR, (0, b"\xff" * (3 * MIB + SECTOR))),
}


@pytest.mark.parametrize("name", DISKS)
async def test_a_disk_at_an_edge_is_the_same_in_every_format(name: str, converter: Converter, tmp_path: Path) -> None:
    source = DISKS[name](tmp_path / "raw")
    size = source.stat().st_size

    results = await as_every_kind(converter, source, DiskFormat.RAW, size=size, expected=digest(source))

    if name in ("all zeros, written", "one hole"):
        assert not {kind: taken(path) for kind, path in results.items() if taken(path) > MOST_BESIDE[kind]}


async def test_bytes_that_fill_no_sector_are_followed_by_zeros(converter: Converter, tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.write_bytes(noise(70_001))
    size = 137 * SECTOR
    padded = hashlib.sha256(noise(70_001).ljust(size, b"\0")).hexdigest()

    await as_every_kind(converter, source, DiskFormat.RAW, size=size, expected=padded)


# --- what is lost -----------------------------------------------------------------------------------------------------


def stored(raw: Path, target: Path, driver: str, options: str) -> None:
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options, raw, target], check=True)


def add_bitmap(path: Path) -> None:
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", path, "changed"], check=True)


def specific(path: Path, format_: DiskFormat) -> dict[str, Any]:
    """What qemu-img tells of a file beyond the disk in it."""
    command = ["qemu-img", "info", "--output=json", "-f", DRIVERS[format_], str(path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return dict(told.get("format-specific", {}).get("data", {}))


@pytest.mark.parametrize("kind", [kind for kind in TargetKind if TARGETS[kind].format is DiskFormat.QCOW2])
async def test_dirty_bitmaps_and_how_clusters_are_kept_are_not_carried_over(
    kind: TargetKind, converter: Converter, tmp_path: Path
) -> None:
    raw, source, target = written(tmp_path / "raw", MIB, (0, noise(5000))), tmp_path / "source", tmp_path / "target"
    stored(raw, source, "qcow2", "extended_l2=on,lazy_refcounts=on,refcount_bits=64,cluster_size=128k")
    add_bitmap(source)
    assert specific(source, DiskFormat.QCOW2)["bitmaps"]
    assert looked_at(source, DiskFormat.QCOW2) == (MIB, 0)

    await converter.convert(source, DiskFormat.QCOW2, target, kind, virtual_size=MIB, progress=quiet)

    found = specific(target, DiskFormat.QCOW2)
    assert "bitmaps" not in found
    assert (found["extended-l2"], found["lazy-refcounts"], found["refcount-bits"]) == (False, False, 16)


@pytest.mark.parametrize(("kind", "adapter"), [(TargetKind.VMDK_STREAM, b"lsilogic"), (TargetKind.VMDK_SPARSE, b"ide")])
async def test_the_adapter_of_a_vmdk_is_the_writers_not_the_sources(
    kind: TargetKind, adapter: bytes, converter: Converter, tmp_path: Path
) -> None:
    raw, source, target = written(tmp_path / "raw", MIB, (0, noise(5000))), tmp_path / "source", tmp_path / "target"
    stored(raw, source, "vmdk", "subformat=monolithicSparse,adapter_type=buslogic")
    assert b'ddb.adapterType = "buslogic"' in source.read_bytes()

    await converter.convert(source, DiskFormat.VMDK, target, kind, virtual_size=MIB, progress=quiet)

    assert b'ddb.adapterType = "' + adapter + b'"' in target.read_bytes()


async def test_a_vhd_says_its_size_itself_to_whoever_goes_by_it(converter: Converter, tmp_path: Path) -> None:
    """The geometry of the footer says the most that it can, by which readers know that it is not to be gone by."""
    source = written(tmp_path / "raw", 3 * MIB + SECTOR, (0, noise(5000)))

    for kind in (TargetKind.VHD, TargetKind.VHD_FIXED):
        target = tmp_path / kind
        await converter.convert(source, DiskFormat.RAW, target, kind, virtual_size=3 * MIB + SECTOR, progress=quiet)

        footer = target.read_bytes()[-SECTOR:]
        assert int.from_bytes(footer[48:56]) == 3 * MIB + SECTOR
        assert footer[56:60] == b"\xff\xff\x10\xff"  # cylinders, heads, sectors a track


# --- holes of which nobody tells --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("vhdx")])
@pytest.mark.parametrize("kind", [TargetKind.RAW, TargetKind.QCOW2, TargetKind.QCOW2_ZSTD])
async def test_what_is_stored_of_a_sparse_vhdx_is_as_small_as_its_data(
    kind: TargetKind, name: str, converter: Converter, tmp_path: Path
) -> None:
    """qemu tells of no hole in a VHDX, however few of its blocks are there: zeros are found as they are read."""
    size = 200 * MIB
    raw = written(tmp_path / "raw", size, (0, noise(20_000)), (100 * MIB, noise(30_000)), (size - 512, noise(512)))
    source, target = made(raw, name, tmp_path / "source"), tmp_path / "target"

    await converter.convert(source, DiskFormat.VHDX, target, kind, virtual_size=size, progress=quiet)

    assert taken(target) <= MIB
    assert digest(raw) == guest_digest(target, TARGETS[kind].format)
