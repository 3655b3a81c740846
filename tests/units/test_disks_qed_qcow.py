"""QED, and the first version of qcow: what is taken of them, and that they are sources only. What is refused is in the
corpus, and meets the gate in test_disks_gate.py."""

import io
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.disks.formats import qcow1, qed
from calotype.disks.formats.reader import MOST_TABLES, DiskFile, Facts
from calotype.disks.gate import NEVER_KEPT, inspect, keep, keep_at
from calotype.disks.model import DiskFormat, Inspection
from calotype.errors import DiskRefused, DiskTooLarge, FormatMismatch, TruncatedDisk
from tests.disks import build
from tests.disks.build import KIB, MIB, SECTOR, SIZE
from tests.disks.corpus import MOST_VIRTUAL_BYTES, over

OLD: Final[dict[str, Callable[[], bytes]]] = {
    "qed": build.qed,
    "qcow": build.qcow1,
    "qcow-compressed": partial(build.qcow1, compressed=True),
}
MOST_MEMORY: Final = 16 * MIB


def inspected(content: bytes, declared: str | None = None) -> Inspection:
    return inspect(io.BytesIO(content), declared=declared, most_virtual_bytes=MOST_VIRTUAL_BYTES)


def parsed(parse: Callable[[DiskFile], Facts], content: bytes) -> Facts:
    def read_at(offset: int, length: int) -> bytes:
        return content[offset : offset + length]

    return parse(DiskFile(read_at, len(content), most_virtual_bytes=MOST_VIRTUAL_BYTES))


# --- sources only -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [None, "zvhd2", "zvhd", "own"])
@pytest.mark.parametrize("name", OLD)
def test_an_old_format_is_not_kept_and_what_to_do_is_told(name: str, declared: str | None) -> None:
    content, format_ = OLD[name](), name.split("-")[0]
    said = format_ if declared == "own" else declared
    look = partial(keep, declared=said, most_virtual_bytes=MOST_VIRTUAL_BYTES)

    with pytest.raises(FormatMismatch, match=f"format {format_}, which is not kept.*qemu-img convert -O qcow2"):
        look(io.BytesIO(content))
    with pytest.raises(FormatMismatch, match="not kept"):
        keep_at(
            lambda offset, length: content[offset : offset + length],
            len(content),
            declared=said,
            most_virtual_bytes=MOST_VIRTUAL_BYTES,
        )

    assert look(io.BytesIO(content), converted=True) == inspected(content, said)


def test_every_other_format_is_kept() -> None:
    for name, make in build.SOUND.items():
        format_ = DiskFormat(build.FORMAT_OF[name])
        if format_ not in NEVER_KEPT:
            kept = keep(io.BytesIO(make()), declared=None, most_virtual_bytes=MOST_VIRTUAL_BYTES)
            assert kept.format is format_


def test_what_must_not_pass_does_not_pass_because_it_is_converted() -> None:
    for content in (build.qed(features=1, backing=b"/etc/passwd"), build.qcow1(crypt=1), b"OOOM" + build.CONTENT):
        for declared in (None, "zvhd2"):
            with pytest.raises(DiskRefused):
                keep(io.BytesIO(content), declared=declared, most_virtual_bytes=MOST_VIRTUAL_BYTES, converted=True)


# --- QED --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [2, 4, 8, 16])
@pytest.mark.parametrize("cluster", [4 * KIB, 64 * KIB, 512 * KIB])
def test_a_qed_has_clusters_and_tables_of_many_sizes(cluster: int, table: int) -> None:
    found = inspected(build.qed(cluster=cluster, table=table))

    assert (found.format, found.virtual_size, found.detail) == (DiskFormat.QED, SIZE, "closed")


def test_a_qed_that_was_not_closed_is_taken_and_told() -> None:
    assert inspected(build.qed(features=2)).detail == "not closed"


def test_features_of_a_qed_that_a_reader_may_ignore_are_ignored() -> None:
    assert inspected(build.qed(compatible=2**64 - 1, autoclear=2**64 - 1)).virtual_size == SIZE


def test_a_qed_may_have_a_longer_header_and_more_after_its_last_cluster() -> None:
    assert inspected(build.qed(header=3)).virtual_size == SIZE
    assert inspected(build.qed() + b"more").virtual_size == SIZE


def test_a_qed_that_once_had_a_backing_file_may_still_say_where_its_name_was() -> None:
    content = bytearray(build.qed())
    struct.pack_into("<I", content, 56, 64)

    assert inspected(bytes(content)).virtual_size == SIZE


def test_clusters_of_a_qed_may_be_marked_as_zeros() -> None:
    assert inspected(build.qed(l2=dict.fromkeys(range(1024), 1))).virtual_size == SIZE


def test_a_qed_is_as_large_as_its_tables_can_hold() -> None:
    assert inspected(build.qed(size=1024 * 1024 * 4096)).virtual_size == 4 * 1024**3
    with pytest.raises(FormatMismatch, match="cannot hold"):
        inspected(build.qed(size=1024 * 1024 * 4096 + 512))


def test_tables_of_a_qed_are_bounded() -> None:
    most = build.qed(cluster=512 * KIB, table=16)

    assert inspected(most).virtual_size == SIZE
    with pytest.raises(DiskTooLarge, match="smaller clusters"):
        inspected(build.qed(cluster=1024 * KIB, table=16))


def test_the_size_of_a_qed_is_in_its_head() -> None:
    assert qed.size_in(build.qed()[:64]) == SIZE
    assert qed.size_in(build.qed()[:63]) is None
    assert qed.size_in(build.qed(size=0)) is None


QED_ENTRIES: Final = st.one_of(
    st.sampled_from([0, 1, 2, 4096, 2 * 4096, 2**63, 2**64 - 4096, 2**64 - 1]),
    st.integers(0, 24).map(lambda number: number * 4096),
    st.integers(0, 24 * 4096),
)


@settings(deadline=None, max_examples=200)
@given(entries=st.dictionaries(st.integers(0, 1023), QED_ENTRIES, max_size=5), header=st.integers(1, 3))
def test_a_qed_passes_if_and_only_if_every_cluster_lies_in_the_file(entries: dict[int, int], header: int) -> None:
    content = build.qed(header=header, l2=entries)

    right = all(
        entry in (0, 1) or (entry % 4096 == 0 and header * 4096 <= entry <= len(content) - 4096)
        for entry in entries.values()
    )

    assert passes(qed.parse, content) is right


# --- qcow -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("cluster_bits", "l2_bits"), [(9, 12), (9, 8), (12, 9), (16, 6), (16, 13)])
def test_a_qcow_has_clusters_and_tables_of_many_sizes(cluster_bits: int, l2_bits: int, compressed: bool) -> None:
    found = inspected(build.qcow1(cluster_bits=cluster_bits, l2_bits=l2_bits, compressed=compressed))

    assert (found.format, found.virtual_size, found.detail) == (DiskFormat.QCOW, SIZE, "v1")


def test_the_last_cluster_of_a_qcow_may_end_with_the_disk() -> None:
    content = build.qcow1(size=len(build.CONTENT) - 3 * SECTOR)

    assert inspected(content[: -3 * SECTOR]).virtual_size == len(build.CONTENT) - 3 * SECTOR
    with pytest.raises(TruncatedDisk):
        inspected(content[: -3 * SECTOR - 1])


def test_what_no_guest_reads_of_a_qcow_need_not_be_there() -> None:
    assert inspected(build.qcow1(size=MIB, l2={256: 1 << 40})).virtual_size == MIB
    with pytest.raises(TruncatedDisk):
        inspected(build.qcow1(size=MIB, l2={255: 1 << 40}))


QCOW_ENTRIES: Final = st.one_of(
    st.sampled_from([0, 512, 2**62, 2**63 - 512]),
    st.integers(0, 160).map(lambda number: number * 512),
    st.integers(0, 160 * 512),
    st.builds(lambda length, offset: 1 << 63 | length << 51 | offset, st.integers(0, 4095), st.integers(0, 160 * 512)),
)


@settings(deadline=None, max_examples=200)
@given(
    entries=st.dictionaries(st.integers(0, 511), QCOW_ENTRIES, max_size=5),
    size=st.integers(1, 2 * MIB // SECTOR).map(lambda sectors: sectors * SECTOR),
)
def test_a_qcow_passes_if_and_only_if_what_a_guest_reads_lies_in_the_file(entries: dict[int, int], size: int) -> None:
    content = build.qcow1(size=size, l2=entries)

    def is_right(index: int, entry: int) -> bool:
        if entry >> 63:
            length, offset = entry >> 51 & 4095, entry & (1 << 51) - 1
            return length > 0 and offset + length <= len(content)
        needed = max(0, min(4096, size - index * 4096))
        return entry % 512 == 0 and (entry == 0 or needed == 0 or entry + needed <= len(content))

    assert passes(qcow1.parse, content) is all(is_right(index, entry) for index, entry in entries.items())


# --- both -------------------------------------------------------------------------------------------------------------


def passes(parse: Callable[[DiskFile], Facts], content: bytes) -> bool:
    try:
        parsed(parse, content)
    except DiskRefused:
        return False
    return True


WORD, LONG = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)), st.integers(0, 2**64 - 1)
QED_HEADERS: Final = st.builds(
    partial(struct.pack, "<4sIIIQQQQQII"),
    st.just(qed.MAGIC),
    st.one_of(WORD, st.integers(0, 31).map(lambda bit: 1 << bit)),
    WORD, WORD, st.one_of(st.just(0), LONG), LONG, LONG, st.one_of(st.just(4096), LONG),
    st.one_of(st.integers(0, 2**40 // 512).map(lambda sectors: sectors * 512), LONG), WORD, WORD,
)  # fmt: skip
QCOW_HEADERS: Final = st.builds(
    partial(struct.pack, ">8sQIIQBBHIQ"),
    st.just(qcow1.MAGIC),
    st.one_of(st.just(0), LONG), st.one_of(st.just(0), WORD), WORD,
    st.one_of(st.integers(0, 2**40 // 512).map(lambda sectors: sectors * 512), LONG),
    st.integers(0, 20), st.integers(0, 20), st.just(0), st.sampled_from([0, 0, 0, 1, 9]),
    st.one_of(st.just(48), LONG),
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(head=st.one_of(QED_HEADERS, QCOW_HEADERS), tail=st.integers(0, 4), noise=st.binary(max_size=64))
def test_any_header_passes_or_is_refused_and_never_crashes(head: bytes, tail: int, noise: bytes) -> None:
    content = (head + noise).ljust(tail * 4096, b"\0")

    try:
        found = inspected(content)
    except DiskRefused:
        return
    assert found.format in NEVER_KEPT
    assert 0 < found.virtual_size <= MOST_VIRTUAL_BYTES


class Endless:
    """A file of any size that is not there: a header, an L1 table of distinct entries from `first` on, zeros."""

    def __init__(self, head: bytes, l1_offset: int, entries: int, *, first: int, step: int, entry: str) -> None:
        self.head, self.l1_offset, self.entries = head, l1_offset, entries
        self.first, self.step, self.entry = first, step, entry
        self.most_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.most_read = max(self.most_read, length)
        if offset < self.l1_offset:
            return self.head[offset : offset + length].ljust(length, b"\0")
        data = bytearray(length)
        begin = (offset - self.l1_offset) // 8
        for index in range(begin, min(self.entries, begin + length // 8)):
            struct.pack_into(self.entry, data, (index - begin) * 8, self.first + index * self.step)
        return bytes(data)


def many_tables(name: str, entries: int) -> tuple[Endless, Callable[[DiskFile], Facts]]:
    if name == "qed":
        head = build.qed(cluster=512 * KIB, table=16, l1_offset=512 * KIB)[: 512 * KIB]
        return Endless(head, 512 * KIB, entries, first=1 << 34, step=8 * MIB, entry="<Q"), qed.parse
    head = over(build.qcow1(size=entries * 64 * 512)[:48], bytes([9, 6]), 32)
    return Endless(head, 48, entries, first=1 << 34, step=512, entry=">Q"), qcow1.parse


@pytest.mark.parametrize("name", ["qed", "qcow"])
@pytest.mark.parametrize("entries", [MOST_TABLES - 1, MOST_TABLES + 10_000])
def test_many_tables_make_an_inspection_neither_long_nor_large(name: str, entries: int) -> None:
    """As many as are looked at, the first of which lies outside the file, and more than are."""
    endless, parse = many_tables(name, entries)
    disk = DiskFile(endless.read_at, 1 << 31, most_virtual_bytes=1 << 60)
    error: Any = TruncatedDisk if entries < MOST_TABLES else DiskTooLarge

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(error):
            parse(disk)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert most < MOST_MEMORY
    assert endless.most_read <= 64 * KIB
