"""Whose bucket is where: the rules of the service, on each database, over real folders."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import text

from calotype.blobs.budget import BufferBudget
from calotype.buckets.folder import FolderStore
from calotype.buckets.service import LEFT_AFTER_MS, Buckets, md5_of_header
from calotype.db.engine import Database, now_ms
from calotype.errors import (
    BucketExists,
    BucketMapped,
    BucketNotEmpty,
    BucketNotFound,
    BucketReadOnly,
    CalotypeError,
    DigestMismatch,
    Forbidden,
    ImageTooLarge,
    Invalid,
    InvalidObjectKey,
    ObjectExists,
    ObjectIsFolder,
    ObjectNotFound,
    TooManyBuckets,
    UploadCut,
)
from calotype.identity.model import Caller
from calotype.settings import BucketMapping, ImageSettings, Settings
from tests.contract.catalogue import DATABASES, OTHER, OWNER, caller, opened

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
OURS, THEIRS = caller(OWNER), caller(OTHER)


@pytest.fixture(params=DATABASES)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path / "data") as catalogue:
        yield catalogue.db


@pytest.fixture
def budget() -> Iterator[BufferBudget]:
    made = BufferBudget(8 * 1024 * 1024)
    yield made
    made.close()


@pytest.fixture
def buckets(db: Database, tmp_path: Path) -> Buckets:
    return with_mapped(db, tmp_path)


def with_mapped(db: Database, tmp_path: Path, **mapped: BucketMapping) -> Buckets:
    names = {name.replace("_", "-"): mapping for name, mapping in mapped.items()}
    return Buckets(db, Settings(data_dir=str(tmp_path / "data"), buckets=names))


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def put(buckets: Buckets, budget: BufferBudget, name: str, key: str, data: bytes, **options: Any) -> None:
    given: dict[str, Any] = {"budget": budget, "most_bytes": 1 << 40, **options}
    await buckets.put(OURS, name, key, pieces(data), **given)


async def get(buckets: Buckets, name: str, key: str, by: Caller = OURS) -> bytes:
    info, reader = await buckets.read(by, name, key)
    with reader:
        return reader.read_at(0, info.size)


async def names(buckets: Buckets, by: Caller = OURS) -> list[str]:
    return [bucket.name for bucket in await buckets.list(by)]


async def keys(buckets: Buckets, name: str) -> list[str]:
    page = await buckets.objects(OURS, name, prefix="", limit=1000, marker="")
    return [info.key for info in page.objects]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "data" / "buckets").iterdir()) if (tmp_path / "data" / "buckets").exists() else []


# --- buckets ----------------------------------------------------------------------------------------------------------


async def test_a_created_bucket_is_shown_and_listed_by_name(buckets: Buckets) -> None:
    made = await buckets.create(OURS, "web-images")
    await buckets.create(OURS, "archive")

    assert await buckets.get(OURS, "web-images") == made
    assert (made.name, made.project_id, made.mapped, made.read_only) == ("web-images", OWNER, False, False)
    assert made.created_at is not None
    assert await names(buckets) == ["archive", "web-images"]


async def test_names_are_a_projects_own(buckets: Buckets, budget: BufferBudget) -> None:
    await buckets.create(OURS, "images")
    await put(buckets, budget, "images", "disk", b"ours")

    assert await names(buckets, THEIRS) == []
    for attempt in (
        lambda: buckets.get(THEIRS, "images"),
        lambda: buckets.delete(THEIRS, "images"),
        lambda: buckets.read(THEIRS, "images", "disk"),
        lambda: buckets.stat(THEIRS, "images", "disk"),
        lambda: buckets.delete_object(THEIRS, "images", "disk"),
        lambda: buckets.objects(THEIRS, "images", prefix="", limit=1, marker=""),
        lambda: buckets.resolve(OTHER, "images"),
    ):
        with pytest.raises(BucketNotFound, match="no bucket images"):
            await attempt()

    await buckets.create(THEIRS, "images")
    with pytest.raises(ObjectNotFound):
        await buckets.read(THEIRS, "images", "disk")


async def test_a_taken_or_wrong_name_leaves_no_folder(buckets: Buckets, tmp_path: Path) -> None:
    await buckets.create(OURS, "images")

    with pytest.raises(BucketExists):
        await buckets.create(OURS, "images")
    for name in ("Images", "../images", "", "10.0.0.1"):
        with pytest.raises(Invalid):
            await buckets.create(OURS, name)

    assert len(folders(tmp_path)) == 1


async def test_of_many_who_create_one_name_one_succeeds(buckets: Buckets, tmp_path: Path) -> None:
    made = await asyncio.gather(*(buckets.create(OURS, "images") for _ in range(8)), return_exceptions=True)

    assert sorted(type(one).__name__ for one in made) == ["Bucket"] + ["BucketExists"] * 7
    assert len(folders(tmp_path)) == 1


async def test_a_project_has_a_limited_number_of_buckets(buckets: Buckets, db: Database, tmp_path: Path) -> None:
    with db.writing() as c:
        for number in range(ImageSettings().buckets_per_project - 1):
            c.execute(
                text("INSERT INTO buckets (project_id, name, folder_id, created_at) VALUES (:p, :n, :f, 0)"),
                {"p": OWNER, "n": f"bucket-{number}", "f": f"{number:032x}"},
            )

    made = await asyncio.gather(*(buckets.create(OURS, f"new-{n}") for n in range(4)), return_exceptions=True)

    assert sorted(type(one).__name__ for one in made) == ["Bucket"] + [TooManyBuckets.__name__] * 3
    assert len(folders(tmp_path)) == 1
    await buckets.create(THEIRS, "images")


async def test_only_an_empty_bucket_is_deleted(buckets: Buckets, budget: BufferBudget, tmp_path: Path) -> None:
    await buckets.create(OURS, "images")
    await put(buckets, budget, "images", "a/disk", b"bytes")

    with pytest.raises(BucketNotEmpty):
        await buckets.delete(OURS, "images")
    assert await get(buckets, "images", "a/disk") == b"bytes"

    await buckets.delete_object(OURS, "images", "a/disk")
    await buckets.delete(OURS, "images")

    assert await names(buckets) == []
    assert folders(tmp_path) == []
    with pytest.raises(BucketNotFound):
        await buckets.delete(OURS, "images")
    await buckets.create(OURS, "images")


async def test_a_deletion_that_was_cut_off_does_not_keep_the_name(buckets: Buckets, tmp_path: Path) -> None:
    await buckets.create(OURS, "images")
    shutil.rmtree(folders(tmp_path)[0])  # as far as it came: the folder goes before the row

    with pytest.raises(BucketNotFound):
        await buckets.get(OURS, "images")
    assert await names(buckets) == []
    again = await buckets.create(OURS, "images")

    assert await buckets.get(OURS, "images") == again
    with pytest.raises(BucketExists):
        await buckets.create(OURS, "images")


async def test_a_name_that_is_none_is_not_found(buckets: Buckets) -> None:
    for name in ("..", "Images", "a/b", "", "\0", "x" * 5000):
        with pytest.raises((BucketNotFound, Invalid)):
            await buckets.get(OURS, name)


async def test_a_token_without_a_project_has_no_buckets(buckets: Buckets) -> None:
    nobody = structs.replace(OURS, project_id=None)

    with pytest.raises(Forbidden):
        await buckets.list(nobody)


# --- objects ----------------------------------------------------------------------------------------------------------


async def test_an_object_is_put_read_listed_and_deleted(buckets: Buckets, budget: BufferBudget) -> None:
    await buckets.create(OURS, "images")
    data = os.urandom(3_000_000)

    made = await buckets.put(
        OURS,
        "images",
        "disks/web.qcow2",
        pieces(data[:1_000_001], data[1_000_001:]),
        budget=budget,
        most_bytes=len(data),
        announced=len(data),
        expected_md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )

    assert (made.key, made.size) == ("disks/web.qcow2", len(data))
    assert await buckets.stat(OURS, "images", "disks/web.qcow2") == made
    assert await get(buckets, "images", "disks/web.qcow2") == data
    page = await buckets.objects(OURS, "images", prefix="disks/", limit=10, marker="")
    assert (page.objects, page.next_marker) == ([made], None)
    await buckets.delete_object(OURS, "images", "disks/web.qcow2")
    with pytest.raises(ObjectNotFound):
        await buckets.stat(OURS, "images", "disks/web.qcow2")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"announced": 6}, UploadCut),
        ({"announced": 4}, UploadCut),
        ({"most_bytes": 4}, ImageTooLarge),
        ({"expected_md5": "0" * 32}, DigestMismatch),
        ({"overwrite": False}, ObjectExists),
    ],
)
async def test_a_put_that_fails_leaves_the_old_bytes(
    buckets: Buckets, budget: BufferBudget, options: dict[str, Any], error: type[CalotypeError], tmp_path: Path
) -> None:
    await buckets.create(OURS, "images")
    await put(buckets, budget, "images", "disk", b"old")

    with pytest.raises(error):
        await put(buckets, budget, "images", "disk", b"bytes", **options)

    assert await get(buckets, "images", "disk") == b"old"
    assert await keys(buckets, "images") == ["disk"]
    assert list((folders(tmp_path)[0] / ".calotype-tmp").iterdir()) == []
    assert budget.held_bytes == 0


@pytest.mark.parametrize(
    ("key", "options", "error"),
    [
        ("disk", {"overwrite": False}, ObjectExists),
        ("disk/below", {}, ObjectIsFolder),
        ("../disk", {}, InvalidObjectKey),
    ],
)
async def test_what_can_be_refused_is_before_a_byte_is_read(
    buckets: Buckets, budget: BufferBudget, key: str, options: dict[str, Any], error: type[CalotypeError]
) -> None:
    await buckets.create(OURS, "images")
    await put(buckets, budget, "images", "disk", b"old")
    asked = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        asked = True
        yield b"bytes"

    with pytest.raises(error):
        await buckets.put(OURS, "images", key, body(), budget=budget, most_bytes=100, **options)

    assert not asked


async def test_a_cancelled_put_leaves_nothing(buckets: Buckets, budget: BufferBudget, tmp_path: Path) -> None:
    await buckets.create(OURS, "images")
    halfway = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"bytes"
        halfway.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(buckets.put(OURS, "images", "disk", stuck(), budget=budget, most_bytes=100))
    await halfway.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert await keys(buckets, "images") == []
    assert list((folders(tmp_path)[0] / ".calotype-tmp").iterdir()) == []


async def test_deleting_the_bucket_ends_an_upload_to_it(buckets: Buckets, budget: BufferBudget, tmp_path: Path) -> None:
    await buckets.create(OURS, "images")

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await buckets.delete(OURS, "images")
        yield b"last"

    with pytest.raises(BucketNotFound):
        await buckets.put(OURS, "images", "disk", body(), budget=budget, most_bytes=100)

    assert folders(tmp_path) == []


async def test_of_many_who_put_one_key_exclusively_one_succeeds(buckets: Buckets, budget: BufferBudget) -> None:
    await buckets.create(OURS, "images")
    puts = [put(buckets, budget, "images", "a/disk", bytes([n]) * 1000, overwrite=False) for n in range(8)]

    done = await asyncio.gather(*puts, return_exceptions=True)

    winner = done.index(None)
    assert sum(isinstance(one, ObjectExists) for one in done) == 7
    assert await get(buckets, "images", "a/disk") == bytes([winner]) * 1000


# --- mapped folders ---------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "disk").write_bytes(b"mapped")
    return tmp_path / "outside"


async def test_a_mapped_folder_is_a_bucket_of_every_project(
    db: Database, tmp_path: Path, outside: Path, budget: BufferBudget
) -> None:
    buckets = with_mapped(db, tmp_path, shared=BucketMapping(folder=str(outside), read_only=True))

    for who in (OURS, THEIRS):
        assert await names(buckets, who) == ["shared"]
        assert await get(buckets, "shared", "disk", who) == b"mapped"
    shown = await buckets.get(OURS, "shared")
    assert (shown.project_id, shown.created_at, shown.mapped, shown.read_only) == (None, None, True, True)
    with pytest.raises(BucketReadOnly):
        await put(buckets, budget, "shared", "new", b"")
    with pytest.raises(BucketReadOnly):
        await buckets.delete_object(OURS, "shared", "disk")
    with pytest.raises(BucketReadOnly):
        await buckets.resolve(OWNER, "shared", writable=True)
    with pytest.raises(BucketMapped):
        await buckets.delete(OURS, "shared")
    with pytest.raises(BucketExists):
        await buckets.create(OURS, "shared")
    assert files(outside) == ["disk"]


async def test_a_folder_that_is_mapped_for_writing_is_written_to(
    db: Database, tmp_path: Path, outside: Path, budget: BufferBudget
) -> None:
    buckets = with_mapped(db, tmp_path, drop=BucketMapping(folder=str(outside), project=OWNER, read_only=False))

    await put(buckets, budget, "drop", "out/disk", b"written")

    assert (outside / "out" / "disk").read_bytes() == b"written"
    await buckets.delete_object(OURS, "drop", "out/disk")
    assert not (outside / "out").exists()


async def test_a_folder_that_is_mapped_for_a_project_is_seen_by_no_other(
    db: Database, tmp_path: Path, outside: Path
) -> None:
    with db.writing() as c:
        c.execute(text("INSERT INTO domains (id, name) VALUES ('default', 'Default')"))
        for project_id, name in ((OWNER, "films"), (OTHER, "stills")):
            values = {"id": project_id, "name": name}
            c.execute(text("INSERT INTO projects (id, domain_id, name) VALUES (:id, 'default', :name)"), values)
    by_id = BucketMapping(folder=str(outside), project=OWNER)
    by_name = BucketMapping(folder=str(outside), project="films")
    buckets = with_mapped(db, tmp_path, by_id=by_id, by_name=by_name)

    assert await names(buckets) == ["by-id", "by-name"]
    assert await names(buckets, THEIRS) == []
    for name in ("by-id", "by-name"):
        assert (await buckets.resolve(OWNER, name)).stat("disk").size == 6
        with pytest.raises(BucketNotFound):
            await buckets.resolve(OTHER, name)
        await buckets.create(THEIRS, name)  # the name is free where the mapped one is not seen


async def test_a_mapped_bucket_wins_over_a_created_one(
    buckets: Buckets, db: Database, tmp_path: Path, outside: Path, budget: BufferBudget
) -> None:
    await buckets.create(OURS, "shared")
    await put(buckets, budget, "shared", "disk", b"created")

    mapped = with_mapped(db, tmp_path, shared=BucketMapping(folder=str(outside)))

    assert await get(mapped, "shared", "disk") == b"mapped"
    assert await names(mapped) == ["shared"]
    assert await get(buckets, "shared", "disk") == b"created"


async def test_a_mapped_folder_that_is_missing_is_no_bucket(db: Database, tmp_path: Path) -> None:
    buckets = with_mapped(db, tmp_path, shared=BucketMapping(folder=str(tmp_path / "unmounted")))

    assert await names(buckets) == []
    with pytest.raises(BucketNotFound):
        await buckets.get(OURS, "shared")
    assert not (tmp_path / "unmounted").exists()


# --- sweeping ---------------------------------------------------------------------------------------------------------


async def test_what_dead_processes_left_is_swept_and_nothing_else(
    buckets: Buckets, budget: BufferBudget, tmp_path: Path
) -> None:
    await buckets.create(OURS, "images")
    await put(buckets, budget, "images", "disk", b"bytes")
    folder = await buckets.resolve(OWNER, "images")
    assert isinstance(folder, FolderStore)
    incoming = folder.incoming()
    incoming.open()
    never_a_bucket = tmp_path / "data" / "buckets" / ("f" * 32)
    with_object = tmp_path / "data" / "buckets" / ("e" * 32)
    never_a_bucket.mkdir()
    with_object.mkdir()
    (with_object / "disk").write_bytes(b"bytes that are nobody's, but bytes")

    await asyncio.to_thread(buckets.sweep, now_ms())
    assert never_a_bucket.exists()  # it may just become one

    await asyncio.to_thread(buckets.sweep, now_ms() + LEFT_AFTER_MS + 60_000)
    assert not never_a_bucket.exists()
    assert (with_object / "disk").exists()
    assert await get(buckets, "images", "disk") == b"bytes"
    incoming.publish("late", exclusive=False)
    assert await keys(buckets, "images") == ["disk", "late"]


def test_sweeping_before_the_first_bucket_is_nothing(buckets: Buckets, tmp_path: Path) -> None:
    buckets.sweep(now_ms())

    assert folders(tmp_path) == []


# --- the header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["1B2M2Y8AsgTpgAmY7PhCfg==", EMPTY_MD5, EMPTY_MD5.upper()])
def test_an_md5_is_announced_in_base64_or_hex(header: str) -> None:
    assert md5_of_header(header) == EMPTY_MD5


@pytest.mark.parametrize("header", ["", "x", "1B2M2Y8AsgTpgAmY7PhCfg=", "AAAA", "0" * 31, "é" * 24, "\u0661" * 32])
def test_another_md5_is_refused(header: str) -> None:
    with pytest.raises(Invalid):
        md5_of_header(header)


def test_no_md5_is_none() -> None:
    assert md5_of_header(None) is None
