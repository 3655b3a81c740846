"""A part of an object: a bucket of the service links the whole, a mapped folder has just the part copied."""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.blobs import sparse
from calotype.buckets.folder import FolderStore
from calotype.errors import JobCancelled, ObjectChanged

MIB: Final = 1024**2
CONTENT: Final = bytes(4096) + bytes(range(256)) * 64 + bytes(MIB) + b"the end"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "bucket"
    root.mkdir()
    (root / "object").write_bytes(CONTENT)
    return root


def store(root: Path, *, owned: bool) -> FolderStore:
    return FolderStore(root, bucket="bucket", owned=owned)


def test_a_part_of_an_object_of_the_service_is_a_link_to_the_whole(root: Path, tmp_path: Path) -> None:
    bucket = store(root, owned=True)

    linked = bucket.snapshot("object", tmp_path / "part", bucket.stat("object").etag, part=(4096, 512))

    assert linked
    assert (tmp_path / "part").samefile(root / "object")


@pytest.mark.parametrize(("start", "size"), [(0, len(CONTENT)), (0, 10), (4096, 512), (4000, MIB), (len(CONTENT), 0)])
def test_a_part_of_an_object_in_a_mapped_folder_is_copied_and_nothing_else(
    root: Path, tmp_path: Path, start: int, size: int
) -> None:
    bucket, told = store(root, owned=False), list[int]()

    linked = bucket.snapshot(
        "object", tmp_path / "part", bucket.stat("object").etag, part=(start, size), progress=told.append
    )

    assert not linked
    assert (tmp_path / "part").read_bytes() == CONTENT[start : start + size]
    assert told[-1] == size
    assert told == sorted(told)


def test_a_part_past_the_end_of_an_object_is_refused(root: Path, tmp_path: Path) -> None:
    bucket = store(root, owned=False)

    with pytest.raises(ObjectChanged, match="shorter"):
        bucket.snapshot("object", tmp_path / "part", bucket.stat("object").etag, part=(4096, len(CONTENT)))

    assert not (tmp_path / "part").exists()


def test_copying_a_part_is_cancelled_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    bucket = store(root, owned=False)

    with pytest.raises(JobCancelled):
        bucket.snapshot(
            "object", tmp_path / "part", bucket.stat("object").etag, part=(4096, 4096), cancelled=lambda: True
        )

    assert not (tmp_path / "part").exists()


@settings(max_examples=30)
@given(runs=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=6), data=st.data())
def test_holes_of_a_part_stay_holes(runs: list[tuple[bool, int]], data: st.DataObject) -> None:
    source, target = os.memfd_create("source"), os.memfd_create("target")
    try:
        at = 0
        for written, blocks in runs:
            if written:
                os.pwrite(source, b"x" * blocks * 4096, at)
            at += blocks * 4096
        os.ftruncate(source, at)
        start = data.draw(st.integers(0, at))
        size = data.draw(st.integers(0, at - start))

        sparse.copy(source, target, size, start=start)

        assert os.pread(target, at, 0) == os.pread(source, size, start)
        assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks + 8
    finally:
        os.close(source)
        os.close(target)
