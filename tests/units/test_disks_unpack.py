"""Taking compression off: what comes out is what went in, and what is spoilt is refused and never more than allowed."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.unpack import (
    ANY_BYTES,
    IN_BYTES,
    OUT_BYTES,
    Packing,
    most_unpacked,
    packing_of,
    unpacked,
    zstd_says,
)
from calotype.errors import UnpackRefused

PACK: Final[Mapping[Packing, Callable[[bytes], bytes]]] = {
    Packing.GZIP: gzip.compress,
    Packing.XZ: lzma.compress,
    Packing.BZIP2: bz2.compress,
}
packings = pytest.mark.parametrize("packing", PACK)


def everything(packed: bytes, packing: Packing, most_bytes: int = 2**30) -> bytes:
    told: list[int] = []
    pieces = list(unpacked(io.BytesIO(packed), packing, most_bytes=most_bytes, progress=told.append))
    assert all(0 < len(piece) <= OUT_BYTES for piece in pieces)
    assert told == sorted(told)
    return b"".join(pieces)


@packings
@given(content=st.binary(max_size=5000))
def test_what_went_in_comes_out(packing: Packing, content: bytes) -> None:
    assert everything(PACK[packing](content), packing) == content


@packings
@pytest.mark.parametrize("content", [bytes(3 * OUT_BYTES + 5), os.urandom(2 * IN_BYTES + 7)], ids=["zeros", "noise"])
def test_what_is_larger_than_a_piece_comes_out_in_pieces(packing: Packing, content: bytes) -> None:
    assert everything(PACK[packing](content), packing) == content


@packings
@given(parts=st.lists(st.binary(max_size=500), min_size=2, max_size=5), padding=st.integers(0, 600))
def test_several_streams_are_one_content_and_zeros_after_them_are_padding(
    packing: Packing, parts: list[bytes], padding: int
) -> None:
    packed = b"".join(PACK[packing](part) for part in parts) + bytes(padding)

    assert everything(packed, packing) == b"".join(parts)


@packings
@given(content=st.binary(min_size=1, max_size=2000), data=st.data())
def test_what_is_cut_is_refused(packing: Packing, content: bytes, data: st.DataObject) -> None:
    packed = PACK[packing](content)
    cut = data.draw(st.integers(1, len(packed) - 1))

    with pytest.raises(UnpackRefused):
        everything(packed[:cut], packing)


@packings
@given(
    content=st.binary(max_size=500), other=st.binary(min_size=1, max_size=50).filter(lambda b: b.strip(b"\0") != b"")
)
def test_other_bytes_after_the_content_are_refused(packing: Packing, content: bytes, other: bytes) -> None:
    with pytest.raises(UnpackRefused):
        everything(PACK[packing](content) + b"\x01" + other, packing)


@packings
@given(noise=st.binary(max_size=3000))
def test_noise_behind_a_mark_is_refused_and_never_crashes(packing: Packing, noise: bytes) -> None:
    packed = PACK[packing](b"content")[:6] + noise

    try:
        everything(packed, packing, most_bytes=1000)
    except UnpackRefused:
        return


@packings
@given(size=st.integers(1, 3000), less=st.integers(1, 3000))
def test_more_than_is_allowed_is_refused(packing: Packing, size: int, less: int) -> None:
    packed = PACK[packing](bytes(size))

    assert everything(packed, packing, most_bytes=size) == bytes(size)
    with pytest.raises(UnpackRefused, match="more than"):
        everything(packed, packing, most_bytes=max(0, size - less))


def test_what_may_come_out_is_bounded_by_the_ratio_and_by_the_largest_file() -> None:
    gib = 2**30

    assert most_unpacked(1, ratio=200, most_bytes=100 * gib) == ANY_BYTES
    assert most_unpacked(gib, ratio=20, most_bytes=100 * gib) == 20 * gib
    assert most_unpacked(gib, ratio=200, most_bytes=100 * gib) == 100 * gib


@pytest.mark.parametrize(
    ("head", "packing"),
    [
        (gzip.compress(b"x", mtime=0), Packing.GZIP),
        (lzma.compress(b"x"), Packing.XZ),
        (bz2.compress(b"x"), Packing.BZIP2),
        (b"\x28\xb5\x2f\xfd\x00", Packing.ZSTD),
        (b"", None),
        (b"QFI\xfb", None),
        (b"\x1f\x8b", None),
        (bytes(100), None),
    ],
)
def test_packing_is_told_by_the_first_bytes(tmp_path: Path, head: bytes, packing: Packing | None) -> None:
    file = tmp_path / "file"
    file.write_bytes(head)

    assert packing_of(file) is packing


@pytest.mark.parametrize("size", [20, 255, 256, 65_791, 65_792, 70_000, 5_000_000])
def test_what_a_zstd_file_says_of_its_size_is_read(tmp_path: Path, size: int) -> None:
    (tmp_path / "content").write_bytes(os.urandom(size))
    subprocess.run(["zstd", "-q", str(tmp_path / "content"), "-o", str(tmp_path / "packed")], check=True)

    assert zstd_says(tmp_path / "packed") == size


@given(noise=st.binary(max_size=40))
def test_any_zstd_head_is_read_or_says_nothing(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    file = tmp_path_factory.mktemp("noise") / "file"
    file.write_bytes(b"\x28\xb5\x2f\xfd" + noise)

    says = zstd_says(file)

    assert says is None or 0 < says < 2**64
