"""A qcow2 file that is read directly: right, or refused; never more memory than a cluster. What our writers write, and
what somebody has bent. Against qemu's own files: `tests/contract/test_writers_qcow2.py`."""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.disks.model import Window
from calotype.disks.writers.guest_bytes import BLOCK, RawDisk, blocks
from calotype.disks.writers.pipeline import Crew
from calotype.disks.writers.qcow2 import write_qcow2_zlib, write_qcow2_zstd
from calotype.disks.writers.qcow2_disk import Qcow2Disk
from calotype.disks.writers.run import Writer
from calotype.errors import ConversionFailed, DiskRefused
from tests.disks import build

CLUSTER: Final = 64 * 1024
L2_AT, DATA_AT = 4 * CLUSTER, 5 * CLUSTER  # of what `build.qcow2` makes
COMPRESSED: Final = 1 << 62
WRITERS: Final = {"zlib": write_qcow2_zlib, "zstd": write_qcow2_zstd}
TEXT: Final = (b"the quick brown fox jumps over the lazy dog " * 2000)[:CLUSTER]


class LeftToQemu(Exception):
    """Not an image that is read directly."""


def eight() -> int:
    return 8


def guest(path: Path, window: Window | None = None) -> bytes:
    """All that a guest would see."""
    with path.open("rb") as file:
        disk = Qcow2Disk.of(file.fileno(), window)
        if disk is None:
            raise LeftToQemu
        seen = bytearray(disk.size)
        for start, length, load in disk.read(blocks(disk.extents(), disk.size), eight):
            data = load()
            assert len(data) == length
            seen[start : start + length] = data
    return bytes(seen)


def content() -> bytes:
    """Text, noise, zeros and a short last cluster: 3 MiB and a sector."""
    dice = random.Random(9)
    kinds = [TEXT, dice.randbytes(CLUSTER), bytes(CLUSTER), TEXT[:1000].ljust(CLUSTER, b"\0")]
    return b"".join(dice.choice(kinds) for _ in range(48)) + b"end of the disk ".ljust(512, b".")


def written(folder: Path, data: bytes, writer: Writer) -> Path:
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    target.touch()
    with source.open("rb") as file:
        writer(RawDisk.of(file.fileno()), target, Crew(), progress=lambda _: None, cancelled=lambda: False)
    return target


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_writer_wrote_reads_back(name: str, tmp_path: Path) -> None:
    assert guest(written(tmp_path, content(), WRITERS[name])) == content()


@pytest.mark.parametrize("name", WRITERS)
def test_an_image_within_a_file(name: str, tmp_path: Path) -> None:
    image = written(tmp_path, content(), WRITERS[name]).read_bytes()
    archive = tmp_path / "archive"
    archive.write_bytes(b"\xff" * 1024 + image + b"\xff" * 5000)

    assert guest(archive, Window(offset=1024, length=len(image))) == content()


@pytest.fixture(scope="module", params=WRITERS)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("image"), content(), WRITERS[request.param])


@settings(deadline=None, max_examples=50)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_bent_file_reads_or_is_refused(image: Path, places: list[tuple[int, int]]) -> None:
    bent = bytearray(image.read_bytes())
    for place, value in places:
        # Half of the places are in the header; but not the size, which would be what this test has to keep.
        at = place // 2 % len(bent) if place % 2 else place // 2 % 120
        bent[at if not 24 <= at < 32 else 0] ^= value
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bent"
        path.write_bytes(bent)
        try:
            seen = guest(path)
        except (ConversionFailed, DiskRefused, LeftToQemu):
            return
    assert len(seen) == len(content())


def test_a_flipped_byte_of_a_zstd_cluster_is_always_found(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT * 3, write_qcow2_zstd)
    image = bytearray(path.read_bytes())
    first = CLUSTER  # where the first cluster lies, behind the header
    size = len(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(TEXT))
    for place in range(first + 5, first + size):  # behind the magic, and flags of which one means nothing
        image[place] ^= 0x10
        path.write_bytes(image)
        with pytest.raises(ConversionFailed, match="cannot be read at byte 0 of the disk"):
            guest(path)
        image[place] ^= 0x10


def with_cluster(packed: bytes, *, zstd: bool) -> bytes:
    """An image whose first cluster is compressed to this."""
    sectors = -(-len(packed) // 512) - 1
    entry = COMPRESSED | sectors << 54 | DATA_AT
    more = {"incompatible": 1 << 3, "header_length": 112, "compression": 1} if zstd else {}
    return build.qcow2(l2_entry=entry, content=packed.ljust(CLUSTER, b"\0"), **more)  # type: ignore[arg-type]


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    return stream.compress(data) + stream.flush()


def frame(data: bytes, *, told: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=told).compress(data)


@pytest.mark.parametrize(
    ("packed", "zstd"),
    [(deflated(TEXT), False), (frame(TEXT), True), (frame(TEXT, told=False), True)],
    ids=["deflate", "zstd", "zstd without a size"],
)
def test_a_compressed_cluster(packed: bytes, zstd: bool, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(with_cluster(packed, zstd=zstd))

    assert guest(path) == TEXT.ljust(build.SIZE, b"\0")


BENT: Final[dict[str, Callable[[], bytes]]] = {
    "noise, as deflate": lambda: with_cluster(random.Random(1).randbytes(4000), zstd=False),
    "noise, as zstd": lambda: with_cluster(random.Random(1).randbytes(4000), zstd=True),
    "too little, as deflate": lambda: with_cluster(deflated(TEXT[:-1]), zstd=False),
    "too little, as zstd": lambda: with_cluster(frame(TEXT[:-1]), zstd=True),
    "too much, as zstd": lambda: with_cluster(frame(bytes(CLUSTER + 1)), zstd=True),
    "much too much, as zstd": lambda: with_cluster(frame(bytes(1 << 22)), zstd=True),
    "much too much, without a size": lambda: with_cluster(frame(bytes(1 << 22), told=False), zstd=True),
    "a cut stream": lambda: with_cluster(deflated(random.Random(1).randbytes(CLUSTER))[:500], zstd=False),
    "a cluster at no cluster's place": lambda: build.qcow2(l2_entry=DATA_AT + 512),
    "a zero flag in version 2": lambda: build.qcow2(version=2, l2_entry=DATA_AT | 1),
    "a table behind the end": lambda: build.qcow2(l1_entry=1 << 40),
    "a directory at no file's place": lambda: build.qcow2(l1_offset=1 << 63),
    "a table at no cluster's place": lambda: build.qcow2(l1_entry=L2_AT + 512),
}


@pytest.mark.parametrize("name", BENT)
def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(BENT[name]())

    with pytest.raises(ConversionFailed, match="cannot be read at byte 0 of the disk"):
        guest(path)


def test_more_than_a_cluster_is_not_unpacked(tmp_path: Path) -> None:
    """QEMU takes no more than a cluster either."""
    path = tmp_path / "image"
    path.write_bytes(with_cluster(deflated(TEXT + bytes(1 << 22)), zstd=False))

    assert guest(path) == TEXT.ljust(build.SIZE, b"\0")


def test_a_cluster_behind_the_end_of_the_file_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(build.qcow2()[: DATA_AT + 1000])

    assert guest(path) == build.CONTENT[:1000].ljust(build.SIZE, b"\0")


def test_zero_clusters_are_no_extents(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(build.qcow2(l2_entry=DATA_AT | 1, l2_second=1))

    with path.open("rb") as file:
        disk = Qcow2Disk.of(file.fileno())
        assert disk is not None
        assert list(disk.extents()) == []


def test_clusters_that_are_holes_of_the_file_are_no_extents(tmp_path: Path) -> None:
    """As `preallocation=metadata` makes them."""
    path = tmp_path / "image"
    image = build.qcow2(size=1 << 29)
    table = struct.pack(">8192Q", *(1 << 63 | DATA_AT + number * CLUSTER for number in range(8192)))
    path.write_bytes(image[:L2_AT] + table + build.CONTENT)
    with path.open("r+b") as file:
        file.truncate(DATA_AT + (1 << 29))

    with path.open("rb") as file:
        disk = Qcow2Disk.of(file.fileno())
        assert disk is not None
        assert sum(length for _, length in disk.extents()) <= BLOCK


def test_subclusters_are_left_to_qemu(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(build.qcow2(incompatible=1 << 4))

    with path.open("rb") as file:
        assert Qcow2Disk.of(file.fileno()) is None


@pytest.mark.parametrize("image", [b"", b"QFI\xfb", build.qcow2(backing=b"/etc/passwd"), build.qcow2(crypt=1)],
                         ids=["nothing", "a magic", "a backing file", "encrypted"])  # fmt: skip
def test_what_the_gate_refuses_is_refused_here(image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(image)

    with path.open("rb") as file, pytest.raises(DiskRefused):
        Qcow2Disk.of(file.fileno())
