"""The open equivalents of ZVHD and ZVHD2: what went in comes out, by our reader and by the standard tools; what is
spoilt, of others or too much is told apart. And what is kept unseen."""

import asyncio
import io
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks import zvhd
from calotype.disks.gate import OPAQUE, inspect, keep
from calotype.disks.model import DiskFormat, Opaque, OpaqueKind
from calotype.disks.sandbox import Sandbox
from calotype.disks.unpack import OUT_BYTES, unpack_zstd
from calotype.disks.zvhd import FRAME_BYTES, GROUP, LAYOUT
from calotype.errors import FormatMismatch, JobCancelled, UnpackRefused
from tests.disks import build, corpus

MOST: Final = 1024**4
VHD: Final = build.vhd()
NOISE: Final = os.urandom(3 * FRAME_BYTES + 4711)


@pytest.fixture(scope="module", params=["as-detected", "limits-only"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox.detect(required=False) if request.param == "as-detected" else Sandbox(bubblewrap=[])


def never() -> bool:
    return False


def silent(*_: int) -> None:
    return None


def zvhd_of(content: bytes, folder: Path) -> Path:
    source, target = folder / "source", folder / "packed.zvhd"
    source.write_bytes(content)
    zvhd.pack_zvhd(source, target, progress=silent, cancelled=never)
    return target


def zvhd2_of(content: bytes, folder: Path, sandbox: Sandbox) -> Path:
    source, target = folder / "source", folder / "packed.zvhd2"
    source.write_bytes(content)
    packing = zvhd.pack_zvhd2(sandbox, source, target, folder / "frames", progress=silent, cancelled=never)
    asyncio.run(packing)
    return target


def unpacked(packed: bytes, most_bytes: int = MOST) -> bytes:
    told: list[int] = []
    pieces = list(zvhd.unpacked_zvhd(io.BytesIO(packed), most_bytes=most_bytes, progress=told.append))
    assert all(0 < len(piece) <= OUT_BYTES for piece in pieces)
    assert told == sorted(told)
    return b"".join(pieces)


# --- zvhd -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [VHD, VHD + NOISE, VHD + bytes(3 * OUT_BYTES)], ids=["small", "noise", "zeros"])
def test_a_zvhd_is_recognised_and_holds_what_went_in(content: bytes, tmp_path: Path) -> None:
    packed = zvhd_of(content, tmp_path)

    assert zvhd.kind_of(packed) is OpaqueKind.ZVHD
    assert unpacked(packed.read_bytes()) == content
    assert zlib.decompress(packed.read_bytes()) == content


@given(content=st.binary(max_size=5000), level=st.integers(0, 9))
def test_any_zlib_stream_is_unpacked(content: bytes, level: int) -> None:
    assert unpacked(zlib.compress(content, level)) == content


@given(content=st.binary(min_size=1, max_size=2000), data=st.data())
def test_a_cut_stream_is_refused(content: bytes, data: st.DataObject) -> None:
    packed = zlib.compress(content)
    cut = data.draw(st.integers(0, len(packed) - 1))

    with pytest.raises(UnpackRefused):
        unpacked(packed[:cut])


@given(content=st.binary(max_size=2000), tail=st.binary(min_size=1, max_size=20))
def test_a_stream_that_is_followed_by_anything_is_refused(content: bytes, tail: bytes) -> None:
    with pytest.raises(UnpackRefused, match="followed by other bytes"):
        unpacked(zlib.compress(content) + tail)


def test_a_stream_with_a_wrong_byte_is_refused() -> None:
    packed = bytearray(zlib.compress(NOISE))
    packed[len(packed) // 2] ^= 1

    with pytest.raises(UnpackRefused, match="damaged"):
        unpacked(bytes(packed))


def test_no_more_is_unpacked_than_is_allowed() -> None:
    packed = zlib.compress(bytes(10 * OUT_BYTES))

    assert len(unpacked(packed, most_bytes=10 * OUT_BYTES)) == 10 * OUT_BYTES
    with pytest.raises(UnpackRefused, match="more than"):
        unpacked(packed, most_bytes=10 * OUT_BYTES - 1)


def test_packing_ends_when_it_is_cancelled(tmp_path: Path, sandbox: Sandbox) -> None:
    source = tmp_path / "source"
    source.write_bytes(VHD)

    with pytest.raises(JobCancelled):
        zvhd.pack_zvhd(source, tmp_path / "one", progress=silent, cancelled=lambda: True)
    with pytest.raises(JobCancelled):
        asyncio.run(
            zvhd.pack_zvhd2(sandbox, source, tmp_path / "two", tmp_path / "f", progress=silent, cancelled=lambda: True)
        )


# --- zvhd2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [VHD, VHD + NOISE, bytes(GROUP * FRAME_BYTES) + NOISE, bytes(2 * FRAME_BYTES)],
    ids=["small", "noise", "groups", "whole-frames"],
)
def test_a_zvhd2_is_recognised_and_the_standard_tool_reads_it(content: bytes, tmp_path: Path, sandbox: Sandbox) -> None:
    packed = zvhd2_of(content, tmp_path, sandbox)

    assert zvhd.kind_of(packed) is OpaqueKind.ZVHD2
    folder = tmp_path / "out"
    folder.mkdir()
    made = asyncio.run(unpack_zstd(sandbox, packed, folder, most_bytes=MOST))
    assert made.read_bytes() == content
    assert subprocess.run(["zstd", "-d", "-q", "-c", packed], capture_output=True, check=True).stdout == content


def test_the_seek_table_leads_to_every_frame(tmp_path: Path, sandbox: Sandbox) -> None:
    """As a reader of the seekable format goes: from the end, without reading what it does not want."""
    content = VHD + NOISE
    packed = zvhd2_of(content, tmp_path, sandbox).read_bytes()
    frames, descriptor, mark = struct.unpack("<IBI", packed[-9:])
    start = len(packed) - 9 - 8 * frames - 8
    magic, length = struct.unpack("<II", packed[start : start + 8])
    entries = list(struct.iter_unpack("<II", packed[start + 8 : -9]))

    assert (mark, descriptor) == (0x8F92EAB1, 0)
    assert (magic, length) == (0x184D2A5E, 8 * frames + 9)
    assert sum(size for size, _ in entries) == start
    assert [size for _, size in entries] == [
        *[FRAME_BYTES] * (len(content) // FRAME_BYTES),
        len(content) % FRAME_BYTES,
        0,
    ]
    at = sum(size for size, _ in entries[:2])
    frame = packed[at : at + entries[2][0]]
    done = subprocess.run(["zstd", "-d", "-q", "-c"], input=frame, capture_output=True, check=True)
    assert done.stdout == content[2 * FRAME_BYTES : 3 * FRAME_BYTES]


def test_a_zvhd2_that_lacks_a_frame_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    packed = zvhd2_of(VHD + NOISE, tmp_path, sandbox)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    (tmp_path / "out").mkdir()

    assert zvhd.kind_of(packed) is OpaqueKind.ZVHD2
    with pytest.raises(UnpackRefused):
        asyncio.run(unpack_zstd(sandbox, packed, tmp_path / "out", most_bytes=MOST))


def test_no_more_of_a_zvhd2_is_unpacked_than_is_allowed(tmp_path: Path, sandbox: Sandbox) -> None:
    packed = zvhd2_of(VHD + NOISE, tmp_path, sandbox)
    (tmp_path / "out").mkdir()

    with pytest.raises(UnpackRefused, match="more than"):
        asyncio.run(unpack_zstd(sandbox, packed, tmp_path / "out", most_bytes=FRAME_BYTES))


# --- what is ours -----------------------------------------------------------------------------------------------------


def others() -> dict[str, bytes]:
    zstd = subprocess.run(["zstd", "-q", "-c"], input=VHD, capture_output=True, check=True).stdout
    return {
        "empty": b"",
        "a-byte": b"x",
        "a-vhd": VHD,
        "zlib-of-text": zlib.compress(b"text" * 1000),
        "zlib-of-a-fixed-vhd": zlib.compress(build.vhd_fixed()),
        "zlib-mark-only": b"\x78\x9c",
        "zlib-mark-and-noise": b"\x78\x9c" + NOISE,
        "zlib-cut-before-the-footer": zlib.compress(VHD)[:30],
        "zstd": zstd,
        "zstd-magic-only": b"\x28\xb5\x2f\xfd",
        "seekable-of-others": zstd + _table([(len(zstd), len(VHD))]),
        "no-frames": zstd + _table([]),
        "table-that-says-too-much": zstd + struct.pack("<IBI", 2**32 - 1, 0, 0x8F92EAB1),
        "label-in-another-place": zstd + struct.pack("<II", 0x184D2A50, len(LAYOUT)) + LAYOUT + b"x" + _table([(1, 1)]),
    }


def _table(entries: list[tuple[int, int]]) -> bytes:
    content = b"".join(struct.pack("<II", *entry) for entry in entries)
    content += struct.pack("<IBI", len(entries), 0, 0x8F92EAB1)
    return struct.pack("<II", 0x184D2A5E, len(content)) + content


@pytest.mark.parametrize("name", others())
def test_what_is_not_of_our_layout_is_not_taken_for_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(others()[name])

    assert zvhd.kind_of(path) is None


@given(
    content=st.binary(max_size=300), mark=st.sampled_from([b"", b"\x78\x9c", b"\x28\xb5\x2f\xfd"]), end=st.booleans()
)
def test_any_file_is_recognised_or_not_and_nothing_breaks(content: bytes, mark: bytes, end: bool) -> None:
    file = mark + content + (struct.pack("<IBI", 2, 0, 0x8F92EAB1) if end else b"")

    assert zvhd.kind_in(io.BytesIO(file)) is None


# --- what is kept unseen ----------------------------------------------------------------------------------------------

SECRET: Final = {
    "noise": NOISE,
    "a-byte": b"\x01",
    "zstd-of-others": b"\x28\xb5\x2f\xfd" + NOISE,
    "our-zlib": zlib.compress(VHD),
    "text": b"not known to anybody\n" * 100,
}


@pytest.mark.parametrize("declared", sorted(OPAQUE))
@pytest.mark.parametrize("name", SECRET)
def test_a_zvhd_of_no_known_format_passes_unseen(name: str, declared: str) -> None:
    found = keep(io.BytesIO(SECRET[name]), declared=declared, most_virtual_bytes=MOST)

    assert isinstance(found, Opaque)
    assert (found.format, found.file_size, found.virtual_size) == (declared, len(SECRET[name]), None)


@pytest.mark.parametrize("name", build.SOUND)
def test_what_is_declared_zvhd2_and_is_of_a_known_format_is_that_format(name: str) -> None:
    content = build.SOUND[name]()
    if name == "raw":
        content = build.with_boot_sector(content)

    found = keep(io.BytesIO(content), declared="zvhd2", most_virtual_bytes=MOST, converted=True)

    assert found == inspect(io.BytesIO(content), declared=None, most_virtual_bytes=MOST)


@pytest.mark.parametrize(
    "content",
    [build.with_boot_sector(build.raw()), build.gpt(), bytes(2**20), bytes(1080) + NOISE, b"XFSB" + NOISE],
    ids=["mbr", "gpt", "zeros", "file-system-after-zeros", "xfs"],
)
def test_what_a_raw_disk_begins_with_makes_a_raw_disk(content: bytes) -> None:
    assert keep(io.BytesIO(content), declared="zvhd2", most_virtual_bytes=MOST).format is DiskFormat.RAW


@pytest.mark.parametrize(("name", "content"), [item for item in corpus.packed() if item[0] != "zstd"])
def test_an_archive_is_no_zvhd2(name: str, content: bytes) -> None:
    with pytest.raises(FormatMismatch, match="unpack it first"):
        keep(io.BytesIO(content), declared="zvhd2", most_virtual_bytes=MOST)


@pytest.mark.parametrize(
    "case", [case for case in corpus.hostile() if case.format != "raw"], ids=lambda case: case.name
)
def test_what_is_refused_is_not_let_pass_by_calling_it_zvhd2(case: corpus.Case) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - each has an error of its own; those of the gate only
        keep(io.BytesIO(case.content), declared="zvhd2", most_virtual_bytes=MOST)

    assert type(refused.value).__module__ == "calotype.errors.disks"


def test_only_zvhd_is_kept_unseen() -> None:
    for declared in ("raw", None):
        assert keep(io.BytesIO(NOISE), declared=declared, most_virtual_bytes=MOST).format is DiskFormat.RAW
    with pytest.raises(FormatMismatch):
        keep(io.BytesIO(NOISE), declared="qcow2", most_virtual_bytes=MOST)
