"""Staging and the marks of imports in the catalogue, with real files: quotas to the byte, and what is swept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from calotype.blobs.budget import BufferBudget
from calotype.db.engine import now_ms
from calotype.errors import EmptyDisk, ImageTooLarge, StorageQuotaExceeded, UploadCut, WrongStatus
from calotype.images import marks, quota
from calotype.images.model import Image, ImageStatus
from calotype.images.sweep import HOUR_MS, STAGED_MS
from tests.contract.catalogue import DATABASES, OWNER, Catalogue, caller, opened

RAW = b"\x33\xc0 a boot loader, nearly" + bytes(range(256)) * 100
JOB = "j" + "1" * 32
TASK = "11111111-1111-1111-1111-111111111111"


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    limits = {"staged_bytes_per_project": 100_000, "file_bytes": 90_000, "staged_hours": 2}
    with opened(request.param, tmp_path, **limits) as made:
        yield made


@pytest.fixture
def budget() -> Iterator[BufferBudget]:
    made = BufferBudget(8 * 1024 * 1024)
    yield made
    made.close()


async def pieces(data: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]
    if error is not None:
        raise error


async def stage(catalogue: Catalogue, image: Image, budget: BufferBudget, data: bytes = RAW, **given: Any) -> None:
    arguments = {"announced": None, "budget": budget, **given}
    await catalogue.images.stage(caller(), image.id, pieces(data, arguments.pop("error", None)), **arguments)


def used(catalogue: Catalogue) -> tuple[int, int]:
    """Bytes stored and staged, as the quota counts them."""
    usage = catalogue.read(lambda c: quota.usage(c, OWNER))
    return usage.stored_bytes, usage.staged_bytes


def waiting(catalogue: Catalogue) -> list[str]:
    return [staged.token for staged in catalogue.images.blobs.list_staging()]


async def test_staged_bytes_wait_with_their_digests_and_count(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()

    await stage(catalogue, image, budget)

    after = catalogue.image(image.id)
    assert after.status is ImageStatus.UPLOADING
    assert after.staged is not None
    assert after.staged.digests.size == len(RAW)
    assert waiting(catalogue) == [after.staged.token]
    assert used(catalogue) == (0, len(RAW))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"data": b""}, EmptyDisk),
        ({"data": bytes(90_001)}, ImageTooLarge),
        ({"announced": 90_001}, ImageTooLarge),
        ({"announced": 5}, UploadCut),
        ({"error": ClientDisconnect()}, UploadCut),
    ],
)
async def test_a_stage_that_fails_gives_everything_back(
    catalogue: Catalogue, budget: BufferBudget, given: dict[str, Any], error: type[Exception]
) -> None:
    image = catalogue.queued()

    with pytest.raises(error):
        await stage(catalogue, image, budget, **given)

    assert catalogue.image(image.id).status is ImageStatus.QUEUED
    assert (waiting(catalogue), used(catalogue)) == ([], (0, 0))


async def test_the_quota_of_staged_bytes_holds(catalogue: Catalogue, budget: BufferBudget) -> None:
    for _ in range(3):
        await stage(catalogue, catalogue.queued(), budget)
    image = catalogue.queued()

    with pytest.raises(StorageQuotaExceeded):
        await stage(catalogue, image, budget, announced=len(RAW))
    with pytest.raises(StorageQuotaExceeded):
        await stage(catalogue, image, budget)

    assert catalogue.image(image.id).status is ImageStatus.QUEUED
    assert used(catalogue) == (0, 3 * len(RAW))


async def test_of_two_that_stage_one_goes_on(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()

    both = await asyncio.gather(*(stage(catalogue, image, budget) for _ in range(2)), return_exceptions=True)

    assert [type(one) for one in both if one is not None] == [WrongStatus]
    assert (len(waiting(catalogue)), used(catalogue)) == (1, (0, len(RAW)))


async def test_deleting_removes_what_was_staged(catalogue: Catalogue, budget: BufferBudget) -> None:
    image = catalogue.queued()
    await stage(catalogue, image, budget)

    await catalogue.images.delete(caller(), image.id)

    assert (waiting(catalogue), used(catalogue)) == ([], (0, 0))


async def test_staged_bytes_that_nobody_imports_are_swept_after_their_time(
    catalogue: Catalogue, budget: BufferBudget
) -> None:
    image, now = catalogue.queued(), now_ms()
    await stage(catalogue, image, budget)

    catalogue.images.sweep(now + 2 * HOUR_MS - 60_000)
    before = (catalogue.image(image.id).status, len(waiting(catalogue)))
    catalogue.images.sweep(now + 2 * HOUR_MS + 60_000)

    assert before == (ImageStatus.UPLOADING, 1)
    assert catalogue.image(image.id).status is ImageStatus.QUEUED
    assert (waiting(catalogue), used(catalogue)) == ([], (0, 0))


async def test_what_an_import_has_taken_is_not_swept(catalogue: Catalogue, budget: BufferBudget) -> None:
    image, now = catalogue.queued(), now_ms()
    await stage(catalogue, image, budget)
    catalogue.write(lambda c: catalogue.images.begin_import_in(c, image.id, JOB, reserve=7, now=now))

    catalogue.images.sweep(now + 48 * HOUR_MS)

    assert catalogue.image(image.id).status is ImageStatus.IMPORTING
    assert len(waiting(catalogue)) == 1
    assert used(catalogue) == (7, len(RAW))


async def test_an_import_that_is_given_up_leaves_a_queued_image_and_no_bytes(
    catalogue: Catalogue, budget: BufferBudget
) -> None:
    image, now = catalogue.queued(), now_ms()
    await stage(catalogue, image, budget)
    catalogue.write(lambda c: catalogue.images.begin_import_in(c, image.id, JOB, reserve=7, now=now))

    catalogue.write(lambda c: catalogue.images.abandon_in(c, image.id, JOB, to="queued", now=now))
    catalogue.images.sweep(now + STAGED_MS + 60_000)

    assert catalogue.image(image.id).status is ImageStatus.QUEUED
    assert (waiting(catalogue), used(catalogue)) == ([], (0, 0))


# --- marks ------------------------------------------------------------------------------------------------------------


def shown(catalogue: Catalogue, image: Image) -> dict[str, str]:
    found = catalogue.image(image.id).properties
    return {name: found[name] for name in sorted(marks.ALL & found.keys())}


def begun(catalogue: Catalogue) -> Image:
    image = catalogue.active()
    catalogue.write(lambda c: marks.begin_in(c, image.id, TASK, ["a", "b"], 2000))
    return image


def test_marks_follow_an_import_from_store_to_store(catalogue: Catalogue) -> None:
    image = begun(catalogue)
    first = shown(catalogue, image)

    catalogue.write(lambda c: marks.stored_in(c, image.id, TASK, "a", ("a", "local"), 2001))
    catalogue.write(lambda c: marks.failed_in(c, image.id, TASK, "b", 2002))
    second = shown(catalogue, image)
    catalogue.write(lambda c: marks.end_in(c, image.id, TASK, ["b"], 2003))

    assert first == {marks.FAILED: "", marks.TASK: TASK, marks.IMPORTING: "a,b"}
    assert second == {marks.FAILED: "b", marks.TASK: TASK, marks.IMPORTING: ""}
    assert shown(catalogue, image) == {marks.FAILED: "b", marks.IMPORTING: ""}
    assert catalogue.image(image.id).stores == ("a", "local")
    assert catalogue.count("image_props", f"image_id = '{image.id}' AND name LIKE 'os_glance%'") == 2


def test_an_import_that_breaks_tells_the_stores_it_had_still_to_serve(catalogue: Catalogue) -> None:
    image = begun(catalogue)

    catalogue.write(lambda c: marks.stored_in(c, image.id, TASK, "a", ("a", "local"), 2001))
    catalogue.write(lambda c: marks.break_in(c, image.id, TASK, 2002))

    assert shown(catalogue, image) == {marks.FAILED: "b", marks.IMPORTING: ""}


def test_another_tasks_marks_are_left_alone(catalogue: Catalogue) -> None:
    image = begun(catalogue)
    before = shown(catalogue, image)
    other = TASK.replace("1", "2")

    done = catalogue.write(lambda c: marks.stored_in(c, image.id, other, "a", ("a",), 2001))
    for work in (
        lambda c: marks.failed_in(c, image.id, other, "a", 2001),
        lambda c: marks.end_in(c, image.id, other, [], 2001),
        lambda c: marks.break_in(c, image.id, other, 2001),
    ):
        catalogue.write(work)

    assert (done, shown(catalogue, image)) == (False, before)


async def test_a_deleted_image_is_not_marked(catalogue: Catalogue) -> None:
    image = begun(catalogue)
    await catalogue.images.delete(caller(), image.id)

    assert catalogue.write(lambda c: marks.stored_in(c, image.id, TASK, "a", ("a",), 2001)) is False
