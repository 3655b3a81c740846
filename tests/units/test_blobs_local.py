"""Blobs in a folder: publishing survives a stop at any point, and names never choose paths."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.blobs.local import LocalBlobs
from calotype.blobs.model import BlobId
from calotype.errors import BlobNotFound

TOKEN = "u" + "0123456789abcdef" * 2
BLOB = BlobId("ab" + "0" * 30)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def test_a_published_blob_is_read_back_and_cannot_be_written(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"bytes of a disk")

    blobs.publish(TOKEN, BLOB)

    with blobs.open(BLOB) as reader:
        assert (reader.size, reader.read_at(0, 100)) == (15, b"bytes of a disk")
        assert reader.read_at(9, 2) == b"a "
    assert blobs.path(BLOB) == blobs.folder / "ab" / BLOB
    assert stat.S_IMODE(blobs.path(BLOB).stat().st_mode) == 0o400
    assert not blobs.staging_path(TOKEN).exists()


def test_publishing_again_ends_in_the_same_place(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"once")
    blobs.publish(TOKEN, BLOB)

    blobs.publish(TOKEN, BLOB)

    assert [found.id for found in blobs.list_blobs()] == [BLOB]
    assert list(blobs.list_staging()) == []


def test_publishing_goes_on_where_both_names_are_the_same_file(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"once")
    blobs.path(BLOB).parent.mkdir()
    os.link(blobs.staging_path(TOKEN), blobs.path(BLOB))

    blobs.publish(TOKEN, BLOB)

    assert blobs.path(BLOB).read_bytes() == b"once"
    assert list(blobs.list_staging()) == []


def test_the_bytes_of_a_blob_are_never_replaced(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"first")
    blobs.publish(TOKEN, BLOB)
    blobs.staging_path(TOKEN).write_bytes(b"other")

    with pytest.raises(FileExistsError):
        blobs.publish(TOKEN, BLOB)

    assert blobs.path(BLOB).read_bytes() == b"first"


def test_publishing_nothing_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(BlobNotFound):
        blobs.publish(TOKEN, BLOB)


def test_deleting_and_discarding_can_be_done_twice(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"bytes")
    blobs.publish(TOKEN, BLOB)
    blobs.staging_path(TOKEN).write_bytes(b"more")

    for _ in range(2):
        blobs.delete(BLOB)
        blobs.discard(TOKEN)

    assert list(blobs.list_blobs()) == []
    assert list(blobs.list_staging()) == []
    with pytest.raises(BlobNotFound):
        blobs.open(BLOB)


def test_who_reads_a_blob_when_it_is_deleted_reads_on(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"bytes")
    blobs.publish(TOKEN, BLOB)

    with blobs.open(BLOB) as reader:
        blobs.delete(BLOB)

        assert reader.read_at(0, 5) == b"bytes"


def test_a_job_has_a_name_for_each_attempt(blobs: LocalBlobs) -> None:
    job = "0" * 32

    paths = {blobs.staging_path(f"j{job}-1"), blobs.staging_path(f"j{job}-2"), blobs.staging_path(f"j{job}-2.out")}

    assert len(paths) == 3
    assert {path.parent for path in paths} == {blobs.folder / "staging"}


def test_what_is_no_blob_is_not_listed(blobs: LocalBlobs) -> None:
    blobs.staging_path(TOKEN).write_bytes(b"12345")
    (blobs.folder / "staging" / "stranger").write_bytes(b"")
    (blobs.folder / "cd").mkdir()
    (blobs.folder / "cd" / BLOB).write_bytes(b"in the wrong place")
    (blobs.folder / "cd" / "readme").write_bytes(b"")
    (blobs.folder / "ef").symlink_to(blobs.folder / "cd")

    staged = list(blobs.list_staging())

    assert list(blobs.list_blobs()) == []
    assert [(file.token, file.size) for file in staged] == [(TOKEN, 5)]
    assert staged[0].modified_at == blobs.staging_path(TOKEN).stat().st_mtime_ns // 1_000_000


@given(st.text(max_size=80) | st.sampled_from(["../" + "0" * 29, "u" + "0" * 31 + "\n", "j" + "0" * 32 + "-../x"]))
def test_no_other_word_becomes_a_path(text: str) -> None:
    blobs = LocalBlobs.__new__(LocalBlobs)

    with pytest.raises(ValueError, match="staging token"):
        blobs.staging_path(text)
    with pytest.raises(ValueError, match="blob id"):
        blobs.path(BlobId(text))


def test_the_free_space_is_the_disks(blobs: LocalBlobs) -> None:
    assert 0 < blobs.free_bytes() <= os.statvfs(blobs.folder).f_blocks * os.statvfs(blobs.folder).f_frsize


def test_a_file_is_adopted_by_another_name_and_is_the_blob_then(blobs: LocalBlobs, tmp_path: Path) -> None:
    source = tmp_path / "object"
    source.write_bytes(b"bytes of an object")
    modified = source.stat().st_mtime_ns

    assert blobs.adopt(source, TOKEN)
    assert blobs.adopt(source, TOKEN)  # again, as after a stop
    blobs.publish(TOKEN, BLOB)

    assert source.samefile(blobs.path(BLOB))
    assert source.stat().st_mtime_ns == modified  # of which an object's version is made
    source.unlink()
    with blobs.open(BLOB) as reader:
        assert reader.read_at(0, 100) == b"bytes of an object"


def test_what_is_not_there_is_not_adopted(blobs: LocalBlobs, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.adopt(tmp_path / "missing", TOKEN)

    assert list(blobs.list_staging()) == []


def test_discarding_what_was_adopted_leaves_the_file(blobs: LocalBlobs, tmp_path: Path) -> None:
    source = tmp_path / "object"
    source.write_bytes(b"bytes of an object")

    blobs.adopt(source, TOKEN)
    blobs.discard(TOKEN)

    assert source.read_bytes() == b"bytes of an object"
