"""The tables that our writers write, read back by a reader that is made only for this and knows nothing of theirs."""

import random
import struct
import zlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.disks.gate import inspect
from calotype.disks.writers.guest_bytes import RawDisk
from calotype.disks.writers.pipeline import Crew
from calotype.disks.writers.qcow2 import CLUSTER, _room_for_counts, write_qcow2_zlib, write_qcow2_zstd
from calotype.disks.writers.run import Writer
from calotype.disks.writers.vmdk_stream import write_vmdk_stream

UNIT: Final = 64 * 1024
MIB: Final = 1024**2
TIB: Final = 1024**4
SIZES: Final = (512, UNIT - 512, UNIT, UNIT + 512, 32 * MIB, 32 * MIB + 512, 513 * MIB + 1024, 3 * 1024 * MIB, 2 * TIB)
EDGES: Final = (0, 1, 511, 512, 513, 8191, 8192, 8193, 16384)  # units around those where a table ends

Units = dict[int, bytes]
NOISE: Final = random.Random(3).randbytes(UNIT)
CONTENTS: Final = {
    "zeros": bytes(UNIT),
    "text": (b"the quick brown fox " * 4000)[:UNIT],
    "noise": NOISE,
    "half": NOISE[: UNIT // 2] + bytes(UNIT // 2),
    "nearly noise": NOISE[: UNIT - 300] + bytes(300),
    "one byte": bytes(UNIT - 1) + b"\x01",
    "the first byte": b"\x01" + bytes(UNIT - 1),
}


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, Units]:
    """A disk's size, and what its units hold; the last one may be short."""
    size = draw(st.sampled_from(SIZES))
    count = -(-size // UNIT)
    numbers = st.one_of(
        st.sampled_from([edge for edge in EDGES if edge < count]), st.just(count - 1), st.integers(0, count - 1)
    )
    kinds = draw(st.dictionaries(numbers, st.sampled_from(sorted(CONTENTS)), max_size=12))
    run_start, run = draw(numbers), draw(st.integers(0, 20))  # some lie side by side, over a block's end
    kinds |= {run_start + number: "text" if number % 3 else "noise" for number in range(run)}
    return size, {number: CONTENTS[kind][: size - number * UNIT] for number, kind in kinds.items() if number < count}


def written(folder: Path, size: int, units: Units, writer: Writer) -> bytes:
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for number, data in units.items():
            file.seek(number * UNIT)
            file.write(data)
        file.truncate(size)
    target.touch()
    with source.open("rb") as file:
        writer(RawDisk.of(file.fileno()), target, Crew(), progress=lambda _: None, cancelled=lambda: False)
    with target.open("rb") as file:
        found = inspect(file, declared=None, most_virtual_bytes=2 * TIB)
    assert found.virtual_size == size
    return target.read_bytes()


def not_zero(units: Units) -> Units:
    return {number: data.ljust(UNIT, b"\0") for number, data in units.items() if any(data)}


# --- qcow2 ------------------------------------------------------------------------------------------------------------


def qcow2_units(image: bytes) -> Units:
    """What the clusters hold. Every count, place and flag is checked on the way."""
    (magic, version, _, _, bits, _, _, entries, directory, counts, clusters) = struct.unpack_from(
        ">4sIQIIQIIQQI", image
    )
    assert (magic, version, bits) == (b"QFI\xfb", 3, 16)
    features, length = struct.unpack_from(">Q20xI", image, 72)
    zstd = features == 1 << 3
    assert (features, length, image[104]) in ((0, 104, 0), (1 << 3, 112, 1))
    assert not any(image[105:CLUSTER])
    assert not len(image) % CLUSTER
    used: Counter[int] = Counter({0: 1})
    used.update(_clusters(directory, entries * 8))
    used.update(_clusters(counts, clusters * CLUSTER))
    units: Units = {}
    for number, table in enumerate(struct.unpack_from(f">{entries}Q", image, directory)):
        if not table:
            continue
        assert table >> 63
        place = table & ~(1 << 63)
        used.update(_clusters(place, CLUSTER))
        for index, entry in enumerate(struct.unpack_from(">8192Q", image, place)):
            if entry:
                units[number * 8192 + index] = _cluster(image, entry, used, zstd=zstd)
    stored = _counts(image, counts, clusters, used)
    assert stored == {number: used[number] for number in range(len(image) // CLUSTER)}
    return units


def _clusters(place: int, length: int) -> range:
    assert not place % CLUSTER
    return range(place // CLUSTER, -(-(place + length) // CLUSTER))


def _cluster(image: bytes, entry: int, used: "Counter[int]", *, zstd: bool) -> bytes:
    if not entry >> 62 & 1:
        assert entry >> 63
        place = entry & ~(1 << 63)
        used.update(_clusters(place, CLUSTER))
        return image[place : place + CLUSTER]
    assert not entry >> 63
    place, sectors = entry & (1 << 54) - 1, (entry >> 54 & 0xFF) + 1
    end = (place // 512 + sectors) * 512
    used.update(range(place // CLUSTER, (end - 1) // CLUSTER + 1))
    if zstd:
        assert zstandard.get_frame_parameters(image[place:end]).has_checksum
        frame = zstandard.ZstdDecompressor().decompressobj()
        return frame.decompress(image[place:end])
    stream = zlib.decompressobj(-12)
    data = stream.decompress(image[place:end])
    assert stream.eof
    return data


def _counts(image: bytes, table: int, clusters: int, used: "Counter[int]") -> dict[int, int]:
    counts: dict[int, int] = {}
    for number, place in enumerate(struct.unpack_from(f">{clusters * 8192}Q", image, table)):
        if place:
            used.update(_clusters(place, CLUSTER))
            values = struct.unpack_from(">32768H", image, place)
            counts |= {number * 32768 + index: value for index, value in enumerate(values)}
    assert not any(count for number, count in counts.items() if number >= len(image) // CLUSTER)
    return {number: counts[number] for number in range(len(image) // CLUSTER)}


@pytest.mark.parametrize("writer", [write_qcow2_zlib, write_qcow2_zstd])
@settings(deadline=None, max_examples=40)
@given(disk=disks())
def test_a_qcow2_holds_what_is_not_zero_and_counts_every_cluster_right(writer: Writer, disk: tuple[int, Units]) -> None:
    size, units = disk

    with TemporaryDirectory() as folder:
        image = written(Path(folder), size, units, writer)

    assert qcow2_units(image) == not_zero(units)


@given(st.integers(0, 2**40))
def test_there_is_room_for_the_counts_of_the_counts(clusters: int) -> None:
    blocks, table = _room_for_counts(clusters)

    assert (blocks - 1) * 32768 < clusters + blocks + table <= blocks * 32768 or not clusters
    assert (table - 1) * 8192 < blocks <= table * 8192


# --- VMDK -------------------------------------------------------------------------------------------------------------


def vmdk_units(image: bytes) -> Units:
    """What the grains hold, found by the tables; and the same by reading the stream from front to end."""
    assert image[-512:] == bytes(512)
    header, footer = image[:512], image[-1024:-512]
    assert struct.unpack_from("<QII", image, len(image) - 1536) == (1, 0, 3)
    (place,) = struct.unpack_from("<Q", footer, 56)
    assert footer[:56] + footer[64:] == header[:56] + header[64:]
    assert header[56:64] == b"\xff" * 8
    capacity, grain = struct.unpack_from("<QQ", header, 12)
    tables = -(-capacity // grain // 512) if capacity % (grain * 512) == 0 else capacity // (grain * 512) + 1
    units: Units = {}
    for number, table in enumerate(struct.unpack_from(f"<{tables}I", image, place * 512)):
        if table:
            assert struct.unpack_from("<QII", image, (table - 1) * 512) == (4, 0, 1)
            for index, sector in enumerate(struct.unpack_from("<512I", image, table * 512)):
                if sector:
                    units[number * 512 + index] = _grain(image, sector * 512, number * 512 + index)
    assert _streamed(image) == list(units.items())
    return units


def _grain(image: bytes, place: int, number: int) -> bytes:
    first, length = struct.unpack_from("<QI", image, place)
    assert first == number * 128
    return zlib.decompress(image[place + 12 : place + 12 + length])


def _streamed(image: bytes) -> list[tuple[int, bytes]]:
    at, grains = 128 * 512, []
    while True:
        value, length, kind = struct.unpack_from("<QII", image, at)
        if length:
            grains.append((value // 128, _grain(image, at, value // 128)))
            at += -(-(12 + length) // 512) * 512
        elif kind == 0:
            assert at == len(image) - 512
            return grains
        else:
            at += 512 + value * 512


@settings(deadline=None, max_examples=40)
@given(disks())
def test_a_vmdk_holds_what_is_not_zero_in_the_order_of_the_disk(disk: tuple[int, Units]) -> None:
    size, units = disk

    with TemporaryDirectory() as folder:
        image = written(Path(folder), size, units, write_vmdk_stream)

    assert vmdk_units(image) == not_zero(units)
    assert b'createType="streamOptimized"' in image[512 : 21 * 512]
