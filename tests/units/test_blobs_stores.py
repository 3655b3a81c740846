"""Several stores as one: where bytes go, where they are read, and what a failing disk changes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from calotype.blobs.digest import digest_file
from calotype.blobs.model import BlobId
from calotype.blobs.stores import Stores
from calotype.errors import BlobNotFound, JobCancelled, StoreNotFound, StoreReadOnly, VerificationFailed
from calotype.settings import Settings, Store

BLOB: Final = BlobId("ab" * 16)
TOKEN: Final = "u" + "1" * 32
CONTENT: Final = b"bytes of a disk" * 1000
OTHER_FILE_SYSTEM: Final = Path("/dev/shm")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=str(tmp_path / "data"),
        stores={
            "fast": Store(folder=str(tmp_path / "fast"), weight=200),
            "slow": Store(folder=str(tmp_path / "slow"), weight=-5),
            "also": Store(folder=str(tmp_path / "also")),
            "web": Store(type="http", weight=1000),
        },
    )


@pytest.fixture
def stores(settings: Settings) -> Stores:
    return Stores(settings)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Stores]:
    """With a store `far` on another file system than staging."""
    if not OTHER_FILE_SYSTEM.is_dir() or OTHER_FILE_SYSTEM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("wants two file systems")
    folder = OTHER_FILE_SYSTEM / f"calotype-{os.getpid()}-{tmp_path.name}"
    yield Stores(Settings(data_dir=str(tmp_path), stores={"far": Store(folder=str(folder), weight=1)}))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def stored(stores: Stores, *names: str, content: bytes = CONTENT) -> None:
    for name in names:
        stores.staging_path(TOKEN).write_bytes(content)
        stores.publish(TOKEN, BLOB, name)


def read(stores: Stores) -> bytes:
    with stores.open(BLOB) as reader:
        return reader.read_at(0, 10**6)


def file(stores: Stores, name: str) -> Path:
    return stores.folder_of(name) / BLOB[:2] / BLOB


def test_the_heaviest_is_first_and_names_decide_between_equals(stores: Stores) -> None:
    assert stores.ids == ("web", "fast", "also", "local", "slow")
    assert stores.writable == ("fast", "also", "local", "slow")
    assert stores.remote == ("web",)
    assert stores.default == "local"
    assert stores.ordered(["slow", "local", "fast", "fast"]) == ("fast", "local", "slow")


def test_bytes_are_published_to_the_store_that_was_chosen(stores: Stores) -> None:
    stored(stores, "slow")

    assert stores.holders(BLOB) == ("slow",)
    assert stores.path(BLOB).read_bytes() == CONTENT
    assert list(stores.list_staging()) == []


@pytest.mark.parametrize("store", ["local", "fast"])
def test_publishing_again_ends_in_the_same_place(stores: Stores, store: str) -> None:
    stored(stores, store)

    stores.publish(TOKEN, BLOB, store)

    assert [(found.id, found.store) for found in stores.list_blobs()] == [(BLOB, store)]


def test_publishing_nothing_is_refused(stores: Stores) -> None:
    with pytest.raises(BlobNotFound):
        stores.publish(TOKEN, BLOB, "fast")


def test_bytes_go_to_another_file_system_and_none_stay_behind(far: Stores) -> None:
    stored(far, "far")

    assert far.holders(BLOB) == ("far",)
    assert read(far) == CONTENT
    assert file(far, "far").stat().st_mode & 0o777 == 0o400
    assert list(far.list_staging()) == []


def test_publishing_to_another_file_system_goes_on_after_a_stop(far: Stores) -> None:
    stored(far, "far")
    far.staging_path(TOKEN).write_bytes(CONTENT)  # stopped before it was removed

    far.publish(TOKEN, BLOB, "far")

    assert list(far.list_staging()) == []
    assert read(far) == CONTENT


def test_the_bytes_of_a_blob_are_never_replaced(far: Stores) -> None:
    stored(far, "far")
    far.staging_path(TOKEN).write_bytes(b"other")

    with pytest.raises(FileExistsError):
        far.publish(TOKEN, BLOB, "far")

    assert read(far) == CONTENT


@pytest.mark.parametrize(("store", "error"), [("web", StoreReadOnly), ("none", StoreNotFound)])
def test_a_store_that_cannot_be_written_is_refused(stores: Stores, store: str, error: type[Exception]) -> None:
    stored(stores, "local")

    with pytest.raises(error):
        stores.publish(TOKEN, BLOB, store)
    with pytest.raises(error):
        stores.replicate(BLOB, store)
    with pytest.raises(error):
        stores.delete_from(BLOB, store)


def test_a_replica_is_equal_and_being_asked_again_changes_nothing(stores: Stores) -> None:
    stored(stores, "local")
    told: list[int] = []

    stores.replicate(BLOB, "fast", progress=told.append)
    stores.replicate(BLOB, "fast", progress=told.append)

    assert file(stores, "fast").read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert list(stores.list_staging()) == []


def test_a_store_with_other_bytes_than_expected_is_passed_over(stores: Stores) -> None:
    stored(stores, "local")
    expected = digest_file(file(stores, "local"), hash_algorithm="sha512")
    stored(stores, "fast", content=b"rotten")

    stores.replicate(BLOB, "slow", expected=expected)

    assert file(stores, "slow").read_bytes() == CONTENT


def test_nothing_is_replicated_from_rotten_bytes(stores: Stores) -> None:
    stored(stores, "local")
    expected = digest_file(file(stores, "local"), hash_algorithm="sha256")
    file(stores, "local").chmod(0o600)
    file(stores, "local").write_bytes(b"rotten")

    with pytest.raises(VerificationFailed):
        stores.replicate(BLOB, "fast", expected=expected)

    assert stores.holders(BLOB) == ("local",)
    assert list(stores.list_staging()) == []


def test_a_replica_that_is_cancelled_leaves_nothing(stores: Stores) -> None:
    stored(stores, "local")

    with pytest.raises(JobCancelled):
        stores.replicate(BLOB, "fast", cancelled=lambda: True)

    assert stores.holders(BLOB) == ("local",)
    assert list(stores.list_staging()) == []


def test_nothing_can_be_replicated_that_no_store_has(stores: Stores) -> None:
    with pytest.raises(BlobNotFound):
        stores.replicate(BLOB, "fast")


def test_the_heaviest_store_is_read(stores: Stores) -> None:
    stored(stores, "slow")
    stored(stores, "fast", content=b"of fast")

    assert read(stores) == b"of fast"
    assert stores.path(BLOB) == file(stores, "fast")


def test_the_next_store_is_read_when_a_file_is_missing(stores: Stores) -> None:
    stored(stores, "fast", "slow")
    file(stores, "fast").unlink()

    assert read(stores) == CONTENT


def test_the_next_store_is_read_when_a_disk_fails_at_opening(stores: Stores) -> None:
    stored(stores, "slow")
    file(stores, "fast").parent.mkdir()
    file(stores, "fast").symlink_to(file(stores, "slow"))  # is refused to be opened, as a bad disk would be

    assert read(stores) == CONTENT


def test_the_next_store_is_read_when_a_disk_fails_in_the_middle(stores: Stores) -> None:
    file(stores, "fast").mkdir(parents=True)  # can be opened, and every read of it fails
    content = b"x" * file(stores, "fast").stat().st_size
    stored(stores, "slow", content=content)

    assert read(stores) == content


def test_a_blob_in_no_store_is_not_found(stores: Stores) -> None:
    with pytest.raises(BlobNotFound):
        stores.open(BLOB)


def test_deleting_removes_every_copy(stores: Stores) -> None:
    stored(stores, "local", "fast", "slow")

    stores.delete(BLOB)
    stores.delete(BLOB)

    assert list(stores.list_blobs()) == []


def test_deleting_from_one_store_leaves_the_others(stores: Stores) -> None:
    stored(stores, "local", "fast")

    stores.delete_from(BLOB, "fast")

    assert stores.holders(BLOB) == ("local",)
    assert read(stores) == CONTENT


def test_deleting_goes_on_when_one_disk_fails(stores: Stores) -> None:
    stored(stores, "local", "slow")
    file(stores, "fast").mkdir(parents=True)  # cannot be unlinked

    with pytest.raises(OSError, match="directory"):
        stores.delete(BLOB)

    assert [found.store for found in stores.list_blobs()] == []


def test_a_store_that_is_away_stops_neither_start_nor_reading(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "fast").write_bytes(b"a file where a folder should be")
    stores = Stores(settings)

    stored(stores, "slow")

    assert read(stores) == CONTENT
    assert [found.store for found in stores.list_blobs()] == ["slow"]
    assert list(stores.list_staging()) == []


def test_the_staging_folder_of_every_store_is_listed_and_cleared(stores: Stores) -> None:
    for name in ("local", "fast"):
        (stores.folder_of(name) / "staging" / TOKEN).write_bytes(b"left")

    listed = [staged.token for staged in stores.list_staging()]
    stores.discard(TOKEN)

    assert listed == [TOKEN, TOKEN]
    assert list(stores.list_staging()) == []


def test_local_may_be_another_folder(tmp_path: Path) -> None:
    stores = Stores(Settings(data_dir=str(tmp_path / "data"), stores={"local": Store(folder=str(tmp_path / "big"))}))

    stored(stores, "local")

    assert file(stores, "local").is_relative_to(tmp_path / "big")
