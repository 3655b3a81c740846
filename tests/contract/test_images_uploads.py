"""Uploads with real files and the real gate: what they end in, and that a failed one leaves nothing."""

import asyncio
import hashlib
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from calotype.blobs.budget import BufferBudget
from calotype.db.engine import now_ms
from calotype.errors import (
    CalotypeError,
    FormatMismatch,
    ImageNotFound,
    ImageTooLarge,
    Invalid,
    InvalidSize,
    MalformedBody,
    NotImageOwner,
    StorageQuotaExceeded,
    UnsafeDisk,
    UploadCut,
    WrongStatus,
)
from calotype.images.model import Image, ImageStatus, Visibility
from calotype.images.sweep import BLOBS_EVERY_MS, STAGED_BY_JOB_MS, STAGED_MS, STALE_MS, STRAY_MS
from tests.contract.catalogue import ADMIN, OTHER, Catalogue, blob_of, caller, opened

RAW = b"\x33\xc0 a boot loader, nearly" + bytes(range(256)) * 300
Chunks = AsyncIterator[bytes]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with opened("sqlite", tmp_path, stored_bytes_per_project=1_000_000, file_bytes=500_000) as made:
        yield made


@pytest.fixture
def lenient(tmp_path: Path) -> Iterator[Catalogue]:
    with opened("sqlite", tmp_path, format_enforcement=False) as made:
        yield made


@pytest.fixture
def budget() -> Iterator[BufferBudget]:
    made = BufferBudget(8 * 1024 * 1024)
    yield made
    made.close()


async def pieces(data: bytes, size: int = 10_000) -> Chunks:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def untouched() -> Chunks:
    raise AssertionError("a byte of the body was asked for")
    yield b""


def files(catalogue: Catalogue) -> list[str]:
    return sorted(path.name for path in catalogue.blobs.folder.rglob("*") if path.is_file())


def qcow2(*, backing_file: bytes = b"") -> bytes:
    """The smallest qcow2 (version 2): a header, refcounts, and a first-level table that says nothing is allocated."""
    cluster = 65536
    named = (72, len(backing_file)) if backing_file else (0, 0)
    fields = (2, *named, 16, 2**20, 0, 1, cluster * 3, cluster, 1, 0, 0)  # the virtual size is 1 MiB
    header = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", *fields)
    refcounts = struct.pack(">Q", cluster * 2).ljust(cluster, b"\0")
    counted = struct.pack(">4H", 1, 1, 1, 1).ljust(cluster, b"\0")
    return (header + backing_file).ljust(cluster, b"\0") + refcounts + counted + bytes(cluster)


async def nothing_left(catalogue: Catalogue, image: Image) -> None:
    after = catalogue.image(image.id)
    assert (after.status, after.upload_id, after.blob_id) == (ImageStatus.QUEUED, None, None)
    assert catalogue.usage() == (catalogue.count("images"), 0)
    assert files(catalogue) == []
    assert catalogue.count("blobs") == 0


@pytest.mark.parametrize("announced", [len(RAW), None])
async def test_an_upload_makes_the_image_active_with_the_digests_of_its_bytes(
    catalogue: Catalogue, budget: BufferBudget, announced: int | None
) -> None:
    image = catalogue.queued()

    await catalogue.images.upload(caller(), image.id, pieces(RAW), announced=announced, budget=budget)

    active = catalogue.image(image.id)
    assert (active.status, active.size, active.disk_format) == (ImageStatus.ACTIVE, len(RAW), "raw")
    assert active.checksum == hashlib.md5(RAW, usedforsecurity=False).hexdigest()
    assert active.hash_value == hashlib.sha512(RAW).hexdigest()
    assert files(catalogue) == [active.blob_id]
    assert catalogue.usage() == (1, len(RAW))
    _, reader = await catalogue.images.open(caller(), image.id)
    assert reader is not None
    with reader:
        assert reader.read_at(0, len(RAW)) == RAW


async def test_a_qcow2_is_kept_byte_for_byte_and_its_virtual_size_is_known(
    catalogue: Catalogue, budget: BufferBudget
) -> None:
    image = catalogue.queued(disk_format="qcow2")

    await catalogue.images.upload(caller(), image.id, pieces(qcow2()), announced=None, budget=budget)

    assert catalogue.image(image.id).virtual_size == 2**20
    assert catalogue.image(image.id).size == len(qcow2())


async def test_equal_bytes_are_one_file(catalogue: Catalogue, budget: BufferBudget) -> None:
    first, second = catalogue.queued(), catalogue.queued(OTHER)

    await catalogue.images.upload(caller(), first.id, pieces(RAW), announced=None, budget=budget)
    await catalogue.images.upload(caller(OTHER), second.id, pieces(RAW), announced=None, budget=budget)

    blob_id = catalogue.image(first.id).blob_id
    assert files(catalogue) == [blob_id]
    await catalogue.images.delete(caller(), first.id)
    assert files(catalogue) == [blob_id]
    await catalogue.images.delete(caller(OTHER), second.id)
    assert files(catalogue) == []


Made = Callable[[Catalogue], Image]


@pytest.mark.parametrize(
    ("make", "announced", "error"),
    [
        (lambda c: c.active(), 10, WrongStatus),
        (lambda c: c.queued(disk_format=None), 10, MalformedBody),
        (lambda c: c.queued(container_format=None), 10, MalformedBody),
        (lambda c: c.queued(), 500_001, ImageTooLarge),
        (lambda c: (c.active(size=900_000), c.queued())[1], 100_001, StorageQuotaExceeded),
        (lambda c: c.queued(OTHER), 10, ImageNotFound),
        (lambda c: c.queued(OTHER, visibility=Visibility.PUBLIC), 10, NotImageOwner),
    ],
)
async def test_what_can_be_refused_is_refused_before_a_byte_is_read(
    catalogue: Catalogue, budget: BufferBudget, make: Made, announced: int, error: type[CalotypeError]
) -> None:
    image = make(catalogue)
    before = (catalogue.image(image.id), catalogue.usage())

    with pytest.raises(error):
        await catalogue.images.upload(caller(), image.id, untouched(), announced=announced, budget=budget)

    assert (catalogue.image(image.id), catalogue.usage()) == before
    assert files(catalogue) == []


async def test_an_admin_may_bring_the_bytes_of_another_projects_image(
    catalogue: Catalogue, budget: BufferBudget
) -> None:
    image = catalogue.queued(OTHER)

    await catalogue.images.upload(ADMIN, image.id, pieces(RAW), announced=None, budget=budget)

    assert catalogue.usage(OTHER) == (1, len(RAW))


async def broken() -> Chunks:
    yield RAW
    raise ClientDisconnect


@pytest.mark.parametrize(
    ("chunks", "announced", "spec", "error"),
    [
        (broken, None, {}, UploadCut),
        (lambda: pieces(RAW), len(RAW) + 1, {}, UploadCut),
        (lambda: pieces(RAW), len(RAW) - 1, {}, UploadCut),
        (lambda: pieces(bytes(500_001)), None, {}, ImageTooLarge),
        (lambda: pieces(qcow2()), None, {}, FormatMismatch),
        (lambda: pieces(RAW), None, {"disk_format": "qcow2"}, FormatMismatch),
        (lambda: pieces(qcow2(backing_file=b"/etc/passwd")), None, {"disk_format": "qcow2"}, UnsafeDisk),
        (lambda: pieces(qcow2(backing_file=b"/etc/passwd")), None, {"disk_format": "raw"}, Invalid),
    ],
)
async def test_a_failed_upload_leaves_a_queued_image_and_no_bytes(
    catalogue: Catalogue,
    budget: BufferBudget,
    chunks: Callable[[], Chunks],
    announced: int | None,
    spec: dict[str, Any],
    error: type[CalotypeError],
) -> None:
    image = catalogue.queued(**spec)

    with pytest.raises(error):
        await catalogue.images.upload(caller(), image.id, chunks(), announced=announced, budget=budget)

    await nothing_left(catalogue, image)


async def test_an_upload_of_nothing_leaves_a_queued_image(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()

    await catalogue.images.upload(caller(), image.id, pieces(b""), announced=None, budget=budget)

    after = catalogue.image(image.id)
    assert (after.status, after.upload_id, after.size) == (ImageStatus.QUEUED, None, None)
    assert not list(catalogue.blobs.list_blobs())


async def test_a_disk_that_min_disk_cannot_hold_is_refused(tmp_path: Path, budget: BufferBudget) -> None:
    with opened("sqlite", tmp_path) as catalogue:
        image = catalogue.queued(min_disk=1, disk_format="qcow2")
        large = bytearray(qcow2())
        large[24:32] = struct.pack(">Q", 2**30 + 512)  # the virtual size
        large[36:40] = struct.pack(">I", 3)  # entries of the first-level table

        with pytest.raises(InvalidSize, match="2 GB"):
            await catalogue.images.upload(caller(), image.id, pieces(bytes(large)), announced=None, budget=budget)

        await nothing_left(catalogue, image)


async def test_bytes_beyond_the_quota_end_an_upload_that_did_not_say_its_size(
    tmp_path: Path, budget: BufferBudget
) -> None:
    with opened("sqlite", tmp_path, stored_bytes_per_project=len(RAW) - 1) as catalogue:
        image = catalogue.queued()

        with pytest.raises(StorageQuotaExceeded):
            await catalogue.images.upload(caller(), image.id, pieces(RAW), announced=None, budget=budget)

        await nothing_left(catalogue, image)


async def test_with_warnings_only_another_format_is_taken_and_hostile_content_is_not(
    lenient: Catalogue, budget: BufferBudget
) -> None:
    raw_in_name, qcow2_in_name, hostile = (lenient.queued(disk_format=f) for f in ("raw", "qcow2", "qcow2"))

    await lenient.images.upload(caller(), raw_in_name.id, pieces(qcow2()), announced=None, budget=budget)
    await lenient.images.upload(caller(), qcow2_in_name.id, pieces(RAW), announced=None, budget=budget)
    bad = pieces(qcow2(backing_file=b"/etc/passwd"))
    with pytest.raises(UnsafeDisk):
        await lenient.images.upload(caller(), hostile.id, bad, announced=None, budget=budget)

    assert lenient.image(raw_in_name.id).disk_format == "raw"
    assert lenient.image(qcow2_in_name.id).disk_format == "qcow2"
    assert lenient.image(hostile.id).status is ImageStatus.QUEUED


async def test_deleting_the_image_wins_over_its_upload(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()

    async def deleted_half_way() -> Chunks:
        yield RAW[:1000]
        await catalogue.images.delete(caller(), image.id)
        yield RAW[1000:]

    with pytest.raises(WrongStatus, match="deleted"):
        await catalogue.images.upload(caller(), image.id, deleted_half_way(), announced=len(RAW), budget=budget)

    assert catalogue.read(lambda c: catalogue.images.by_id_in(c, image.id)) is None
    assert catalogue.usage() == (0, 0)
    assert files(catalogue) == []


async def test_a_second_upload_is_refused_while_the_first_goes_on(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()

    async def interrupted() -> Chunks:
        yield RAW[:1000]
        with pytest.raises(WrongStatus):
            await catalogue.images.upload(caller(), image.id, untouched(), announced=5, budget=budget)
        yield RAW[1000:]

    await catalogue.images.upload(caller(), image.id, interrupted(), announced=len(RAW), budget=budget)

    assert catalogue.image(image.id).checksum == hashlib.md5(RAW, usedforsecurity=False).hexdigest()


async def test_a_cancelled_upload_leaves_nothing(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()
    begun = asyncio.Event()

    async def endless() -> Chunks:
        yield RAW
        begun.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(catalogue.images.upload(caller(), image.id, endless(), announced=None, budget=budget))
    await begun.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    await nothing_left(catalogue, image)


async def test_many_uploads_at_once_never_store_more_than_the_quota(tmp_path: Path, budget: BufferBudget) -> None:
    with opened("sqlite", tmp_path, stored_bytes_per_project=3 * len(RAW)) as catalogue:
        images = [catalogue.queued() for _ in range(8)]

        async def upload(number: int, image: Image) -> bool:
            data = RAW[:-1] + bytes([number])
            try:
                await catalogue.images.upload(caller(), image.id, pieces(data), announced=None, budget=budget)
            except StorageQuotaExceeded:
                return False
            return True

        done = await asyncio.gather(*(upload(number, image) for number, image in enumerate(images)))

        assert done.count(True) == 3
        assert catalogue.usage() == (8, 3 * len(RAW))
        assert len(files(catalogue)) == 3


# --- what a dead process leaves ---------------------------------------------------------------------------------------


def dead_upload(catalogue: Catalogue, now: int) -> tuple[Image, str]:
    """As after kill -9 in the middle: a saving image, a reservation, staged bytes."""
    image, upload_id = catalogue.queued(), "u" + "5" * 32
    catalogue.write(lambda c: catalogue.images.begin_bytes_in(c, image.id, upload_id, reserve=100, now=now))
    catalogue.blobs.staging_path(upload_id).write_bytes(b"half")
    return image, upload_id


async def test_the_image_of_a_dead_upload_is_queued_again(catalogue: Catalogue) -> None:
    now = now_ms()
    image, _ = dead_upload(catalogue, now - STALE_MS - 1)

    catalogue.images.sweep(now)

    await nothing_left(catalogue, image)


def test_an_upload_that_is_alive_keeps_its_image_and_its_bytes(catalogue: Catalogue) -> None:
    now = now_ms()
    image, upload_id = dead_upload(catalogue, now - 1000)
    aged(catalogue.blobs.staging_path(upload_id), now - STAGED_MS - 1000)

    catalogue.images.sweep(now)

    assert catalogue.image(image.id).status is ImageStatus.SAVING
    assert files(catalogue) == [upload_id]


def test_the_image_of_a_job_is_left_to_the_job(catalogue: Catalogue) -> None:
    now = now_ms()
    image, job = catalogue.queued(), "j" + "6" * 32
    catalogue.write(lambda c: catalogue.images.begin_bytes_in(c, image.id, job, reserve=100, now=0))
    staged = catalogue.blobs.staging_path(f"{job}-1")
    staged.write_bytes(b"half")
    aged(staged, now - STAGED_BY_JOB_MS - 1000)

    catalogue.images.sweep(now)

    assert catalogue.image(image.id).status is ImageStatus.SAVING
    assert files(catalogue) == [f"{job}-1"]


def test_staged_bytes_that_nobody_waits_for_are_removed_when_they_are_old(catalogue: Catalogue) -> None:
    now = now_ms()
    ages = {"u" + "7" * 32: STAGED_MS, "u" + "8" * 32: 0, f"j{'7' * 32}-2": STAGED_BY_JOB_MS, f"j{'8' * 32}-1": 0}
    for token, age in ages.items():
        catalogue.blobs.staging_path(token).write_bytes(b"left")
        aged(catalogue.blobs.staging_path(token), now - age - (1000 if age else 0))

    catalogue.images.sweep(now)

    assert files(catalogue) == [f"j{'8' * 32}-1", "u" + "8" * 32]


async def test_a_blob_without_a_row_goes_after_it_was_seen_so_for_long(
    catalogue: Catalogue, budget: BufferBudget
) -> None:
    now = now_ms()
    image = catalogue.queued()
    await catalogue.images.upload(caller(), image.id, pieces(RAW), announced=None, budget=budget)
    stray = blob_of("stray").id
    catalogue.blobs.staging_path("u" + "9" * 32).write_bytes(b"stray")
    catalogue.blobs.publish("u" + "9" * 32, stray)
    kept = [str(catalogue.image(image.id).blob_id)]

    for later in (0, BLOBS_EVERY_MS):
        catalogue.images.sweep(now + later)
        assert files(catalogue) == sorted([*kept, stray])
    catalogue.images.sweep(now + STRAY_MS)

    assert files(catalogue) == kept


def aged(path: Path, modified_ms: int) -> None:
    os.utime(path, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))
