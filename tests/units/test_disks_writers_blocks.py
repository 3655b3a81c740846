"""Where a disk has data, as pieces to be compressed; and the pipeline that they go through."""

import os
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.model import Window
from calotype.disks.writers.compression import zlib_stream
from calotype.disks.writers.guest_bytes import BLOCK, UNIT, Ahead, Load, Place, RawDisk, blocks
from calotype.disks.writers.pipeline import IN_FLIGHT, Crew, packed
from calotype.errors import ConversionFailed, JobCancelled

SECTOR: Final = 512


def one() -> int:
    return 1


@pytest.fixture
def crew() -> Crew:
    return Crew()


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Place]]:
    """The size of a disk, and extents as a disk tells them."""
    at, extents = 0, []
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.integers(1, 3 * BLOCK)), max_size=12)):
        extents.append((at + gap, length))
        at += gap + length
    return at + draw(st.integers(0, BLOCK)), extents


@given(disks())
def test_blocks_hold_every_byte_of_data_once_and_in_whole_units(disk: tuple[int, list[Place]]) -> None:
    size, extents = disk

    places = list(blocks(extents, size))

    after = 0
    for start, length in places:
        assert start >= after
        assert start % UNIT == 0
        assert 0 < length <= BLOCK
        assert start // BLOCK == (start + length - 1) // BLOCK
        assert length % UNIT == 0 or start + length == size
        after = start + length
    assert after <= size
    units = {unit for start, length in places for unit in range(start // UNIT, -(-(start + length) // UNIT))}
    wanted = {unit for start, length in extents for unit in range(start // UNIT, -(-(start + length) // UNIT))}
    assert units == wanted


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for place in (5 * UNIT, 3 * BLOCK + 7, 200 * 1024**3):
            file.seek(place)
            file.write(b"data")
        file.truncate(201 * 1024**3 + 1)
    return path


def test_holes_of_a_raw_file_are_not_read(sparse: Path) -> None:
    with sparse.open("rb") as file:
        disk = RawDisk.of(file.fileno())
        places = list(blocks(disk.extents(), disk.size))

    assert disk.size == 201 * 1024**3 + SECTOR
    assert sum(length for _, length in places) <= 3 * UNIT + SECTOR
    assert {5 * UNIT, 3 * BLOCK, 200 * 1024**3} <= {start for start, _ in places}


def test_the_last_sector_of_a_raw_file_is_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"x" * 700)

    with path.open("rb") as file:
        disk = RawDisk.of(file.fileno())
        data = [(start, load()) for start, _, load in disk.read(blocks(disk.extents(), disk.size), one)]

    assert data == [(0, b"x" * 700 + bytes(324))]


def test_a_part_of_a_file_is_a_disk_with_holes(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with path.open("wb") as file:
        file.write(b"before" * 100)
        file.seek(10 * UNIT + SECTOR)
        file.write(b"inside")
        file.seek(30 * UNIT)
        file.write(b"after")

    with path.open("rb") as file:
        disk = RawDisk.of(file.fileno(), Window(offset=2 * UNIT + SECTOR, length=20 * UNIT))
        pieces = [(start, bytes(load())) for start, _, load in disk.read(blocks(disk.extents(), disk.size), one)]

    assert disk.size == 20 * UNIT
    assert [data.rstrip(b"\0")[-6:] for _, data in pieces] == [b"inside"]
    assert [start + data.index(b"inside") for start, data in pieces] == [8 * UNIT]


def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    disk = RawDisk(os.open(tmp_path, os.O_RDONLY), BLOCK)

    [(_, _, load)] = disk.read([(0, BLOCK)], one)

    with pytest.raises(ConversionFailed, match="at byte 0 of the disk"):
        load()


# --- the pipeline -----------------------------------------------------------------------------------------------------


class Counting:
    """A disk of the same byte all over, which counts what is asked of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0

    def extents(self) -> Iterator[Place]:
        yield 0, self.size

    def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
        for start, length in places:
            self.taken += 1
            yield start, length, partial(bytes.ljust, b"", length, b"\x01")

    def interrupt(self) -> None:
        pass


class Busy:
    """A compressor that knows how many are at work with it."""

    def __init__(self) -> None:
        self.now = 0
        self._lock = threading.Lock()

    def __call__(self, data: bytes | bytearray) -> bytes:
        with self._lock:
            self.now += 1
        try:
            return zlib_stream(data)
        finally:
            with self._lock:
                self.now -= 1


def test_no_more_is_read_than_may_wait(crew: Crew) -> None:
    busy = Busy()
    disk = Counting(100 * BLOCK)

    results = packed(disk, busy, crew, progress=lambda _: None, cancelled=lambda: False)
    next(results)
    taken = disk.taken
    results.close()  # type: ignore[attr-defined]  # it is a generator

    assert taken <= IN_FLIGHT
    assert not busy.now


def test_results_come_in_order_and_progress_with_them(crew: Crew) -> None:
    busy = Busy()
    told: list[int] = []

    results = list(packed(Counting(40 * BLOCK + 3), busy, crew, progress=told.append, cancelled=lambda: False))

    assert [first for first, _ in results] == [number * (BLOCK // UNIT) for number in range(41)]
    assert told == [*(number * BLOCK for number in range(1, 41)), 40 * BLOCK + 3]
    assert not busy.now


def test_cancelling_stops_between_two_blocks(crew: Crew) -> None:
    busy = Busy()
    disk = Counting(100 * BLOCK)

    with pytest.raises(JobCancelled):
        list(packed(disk, busy, crew, progress=lambda _: None, cancelled=lambda: disk.taken == 7))

    assert disk.taken == 7
    assert not busy.now


def test_a_compressor_that_fails_ends_all(crew: Crew) -> None:
    busy = Busy()

    def failing(_: bytes | bytearray) -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(packed(Counting(100 * BLOCK), failing, crew, progress=lambda _: None, cancelled=lambda: False))

    assert not busy.now


def test_zeros_are_left_out_and_the_end_is_filled_up(crew: Crew) -> None:
    class Ending(Counting):
        def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
            yield 0, 2 * UNIT + 1, lambda: bytes(UNIT) + b"a" * UNIT + b"b"

    results = list(packed(Ending(2 * UNIT + 1), bytes, crew, progress=lambda _: None, cancelled=lambda: False))

    assert results == [(0, [None, b"a" * UNIT, b"b" + bytes(UNIT - 1)])]
