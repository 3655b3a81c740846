"""Digests and copies of files that are there, holes included."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from calotype.blobs import sparse
from calotype.blobs.digest import digest_file
from calotype.errors import JobCancelled, Unavailable

MIB = 1024 * 1024


@pytest.fixture
def with_holes(tmp_path: Path) -> Path:
    """1 MiB of data, a hole, 5 bytes, a hole to the end: 40 MiB."""
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(20 * MIB)
        file.write(b"bytes")
        file.truncate(40 * MIB)
    return path


@pytest.mark.parametrize("size", [0, 1, 4096, 9 * MIB + 1])
@pytest.mark.parametrize("sparse", [False, True])
def test_digests_and_copy_are_those_of_the_file(tmp_path: Path, size: int, sparse: bool) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)

    digests = digest_file(tmp_path / "f", hash_algorithm="sha256", copy_to=tmp_path / "copy", sparse=sparse)

    assert (tmp_path / "copy").read_bytes() == data
    assert digests.size == size
    assert digests.md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (digests.hash_algorithm, digests.hash_value) == ("sha256", hashlib.sha256(data).hexdigest())


def test_holes_are_hashed_as_zeros_and_stay_holes(tmp_path: Path, with_holes: Path) -> None:
    digests = digest_file(with_holes, hash_algorithm="sha512", copy_to=tmp_path / "copy")

    assert digests.hash_value == hashlib.sha512(with_holes.read_bytes()).hexdigest()
    assert (tmp_path / "copy").read_bytes() == with_holes.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 4 * MIB


def test_written_zeros_become_holes_where_wanted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(10 * MIB) + b"end")

    digest_file(tmp_path / "f", hash_algorithm="sha512", copy_to=tmp_path / "copy", sparse=True)

    assert (tmp_path / "copy").read_bytes() == bytes(10 * MIB) + b"end"
    assert (tmp_path / "copy").stat().st_blocks * 512 < MIB


def test_a_copy_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"new")
    (tmp_path / "copy").write_bytes(b"of an earlier run, and longer")

    digest_file(tmp_path / "f", hash_algorithm="sha512", copy_to=tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == b"new"


def test_progress_ends_at_the_size_and_never_goes_back(with_holes: Path) -> None:
    told: list[int] = []

    digest_file(with_holes, hash_algorithm="sha512", progress=told.append)

    assert told == sorted(told)
    assert told[-1] == 40 * MIB


@pytest.mark.parametrize("as_event", [False, True])
def test_a_cancelled_one_leaves_no_copy(tmp_path: Path, with_holes: Path, as_event: bool) -> None:
    stop = threading.Event()

    with pytest.raises(JobCancelled):
        digest_file(
            with_holes,
            hash_algorithm="sha512",
            copy_to=tmp_path / "copy",
            progress=lambda done: stop.set() if done > 8 * MIB else None,
            cancelled=stop if as_event else stop.is_set,
        )

    assert not (tmp_path / "copy").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digest-")]


def test_a_missing_file_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "none", hash_algorithm="sha512")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(Unavailable):
        digest_file(tmp_path / "link", hash_algorithm="sha512")


def test_copying_keeps_bytes_and_holes_and_tells_how_far_it_is(tmp_path: Path, with_holes: Path) -> None:
    told: list[int] = []
    with with_holes.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
        sparse.copy(source.fileno(), target.fileno(), 40 * MIB, progress=told.append)

    assert (tmp_path / "copy").read_bytes() == with_holes.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 4 * MIB
    assert told[-1] == 40 * MIB


def test_extents_cover_all_data_in_order(with_holes: Path) -> None:
    with with_holes.open("rb") as file:
        extents = list(sparse.data_extents(file.fileno(), 40 * MIB))

    assert extents == sorted(extents)
    assert extents[0][0] == 0
    assert any(start <= 20 * MIB < start + length for start, length in extents)
    assert sum(length for _, length in extents) < 4 * MIB
