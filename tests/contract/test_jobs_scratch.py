"""The account of scratch space, on both databases: what is promised is there, however many ask at once."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calotype.blobs.stores import Stores
from calotype.db.engine import Database, open_engine
from calotype.db.migrate import migrate
from calotype.errors import ConversionFailed, ScratchFull
from calotype.images.model import ImageCreate
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.engine import Enqueuer
from calotype.jobs.kinds.undo import undo_table
from calotype.jobs.model import JobId, JobType
from calotype.jobs.scratch import Account, Disk, ScratchSpace
from calotype.jobs.service import Jobs
from calotype.settings import ImageSettings, JobSettings, Settings
from tests.contract.catalogue import DATABASES, OWNER, _settings, caller

KIB = 1024
LIMIT = 1024 * KIB


class Place:
    """A folder that jobs may write 1 MiB to, and jobs that are open."""

    def __init__(self, settings: Settings, db: Database, jobs: Jobs, images: Images, folder: Path) -> None:
        self.db, self.jobs, self.images, self.folder = db, jobs, images, folder
        self.settings = replace(settings.jobs, scratch_bytes=LIMIT, scratch_keep_free_bytes=0, scratch_wait_s=0.0)
        self.told: list[str] = []

    def space(self, **changed: float) -> ScratchSpace:
        settings = replace(self.settings, **changed)
        return ScratchSpace(self.db, settings, self.folder / "scratch", self.folder / "staging")

    def job(self) -> JobId:
        with self.db.writing() as c:
            image = self.images.create_in(c, project_id=OWNER, spec=ImageCreate(name="i"), now=1000)
            return self.jobs.submit_in(c, caller(), JobType.COPY_VOLUME, request={}, entities={}, image_id=image.id)

    def end(self, job_id: str) -> None:
        with self.db.writing() as c:
            job = sql.by_id(c, job_id)
            assert job is not None
            assert self.jobs.fail_in(c, job, ConversionFailed("it was over"), 2000)

    def write(self, name: str, size: int) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.sync()
        return path

    async def takes(self, job_id: str, *, scratch: int = 0, staging: int = 0, **changed: float) -> bool:
        try:
            await self.space(**changed).reserve(job_id, self.told.append, scratch=scratch, staging=staging)
        except ScratchFull:
            return False
        return True


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with _settings(request.param, tmp_path, ImageSettings(count_per_project=200)) as settings:
        migrate(settings)
        db, enqueuer = Database(open_engine(settings)), Enqueuer(settings)
        images = Images(db, Stores(settings), settings)
        try:
            yield Place(settings, db, Jobs(db, settings.jobs, enqueuer, undo_table(images)), images, tmp_path)
        finally:
            enqueuer.close()
            db.close()


async def test_what_a_job_has_reserved_is_kept_for_it_until_it_has_ended(place: Place) -> None:
    one, other = place.job(), place.job()
    assert await place.takes(one, scratch=600 * KIB)
    assert not await place.takes(other, scratch=600 * KIB)
    assert await place.takes(other, scratch=400 * KIB)
    place.end(one)
    assert await place.takes(other, scratch=600 * KIB)


async def test_the_last_reservation_of_a_job_replaces_the_one_before(place: Place) -> None:
    one, other = place.job(), place.job()
    assert await place.takes(one, scratch=LIMIT)
    assert await place.takes(one, scratch=100 * KIB)
    assert await place.takes(other, scratch=900 * KIB)


async def test_scratch_and_staging_on_one_disk_are_one_account(place: Place) -> None:
    one, other = place.job(), place.job()
    assert await place.takes(one, scratch=300 * KIB, staging=300 * KIB)
    assert not await place.takes(other, staging=600 * KIB)
    assert await place.takes(other, staging=400 * KIB)


async def test_what_a_job_has_on_the_disk_counts_beside_what_it_asks_for(place: Place) -> None:
    one, other = place.job(), place.job()
    place.write(f"scratch/{one}/deep/source", 300 * KIB)
    place.write(f"staging/j{one}-1", 200 * KIB)
    assert not await place.takes(one, scratch=600 * KIB)
    assert await place.takes(one, scratch=400 * KIB)
    assert not await place.takes(other, scratch=200 * KIB)
    assert await place.takes(other, scratch=50 * KIB)


async def test_a_hard_link_takes_no_room(place: Place) -> None:
    one = place.job()
    blob = place.write("blob", 900 * KIB)
    source = place.folder / "scratch" / one / "source"
    source.parent.mkdir(parents=True)
    source.hardlink_to(blob)
    assert await place.takes(one, scratch=LIMIT)


async def test_what_could_never_be_is_refused_at_once(place: Place) -> None:
    one = place.job()
    with pytest.raises(ScratchFull, match=r"needs 1048577 bytes of scratch space.*allows 1048576"):
        await place.space(scratch_wait_s=3600.0).reserve(one, place.told.append, scratch=LIMIT + 1)
    more_than_any_disk = 2**60
    with pytest.raises(ScratchFull, match=r"the disk has \d+ in all$"):
        await place.space(scratch_wait_s=3600.0, scratch_bytes=0).reserve(
            one, place.told.append, scratch=more_than_any_disk
        )
    assert set(place.told) == {""}


async def test_who_waits_says_for_what_and_goes_on_when_there_is_room(place: Place) -> None:
    one, other = place.job(), place.job()
    assert await place.takes(one, scratch=LIMIT)
    asked = asyncio.Event()

    def tell(what: str) -> None:
        place.told.append(what)
        asked.set()

    waiting = asyncio.create_task(place.space(scratch_wait_s=120.0).reserve(other, tell, scratch=100 * KIB))
    async with asyncio.timeout(60):
        await asked.wait()
        assert place.told[-1] == f"{100 * KIB} bytes more of scratch space"
        place.end(one)
        await waiting
    assert place.told[-1] == ""
    assert not await place.takes(place.job(), scratch=LIMIT)


async def test_who_has_waited_long_enough_is_told_how_much_there_is_too_little(place: Place) -> None:
    one, other = place.job(), place.job()
    assert await place.takes(one, scratch=LIMIT)
    with pytest.raises(ScratchFull, match=r"needs 1024 bytes of scratch space, 1024 more than are free") as raised:
        await place.space().reserve(other, place.told.append, scratch=KIB)
    assert raised.value.img == "IMG.0014"


async def test_not_more_is_promised_than_there_is_however_many_ask_at_once(place: Place) -> None:
    jobs = [place.job() for _ in range(8)]
    taken = await asyncio.gather(*(place.takes(job, scratch=300 * KIB) for job in jobs))
    assert sum(taken) == 3


async def test_workers_that_share_the_folder_share_the_account(place: Place) -> None:
    one, other = place.job(), place.job()
    first, second = place.space(), place.space()
    await first.reserve(one, place.told.append, scratch=LIMIT)
    with pytest.raises(ScratchFull):
        await second.reserve(other, place.told.append, scratch=1)
    assert len(list((place.folder / "scratch").glob(".place*"))) == 1


SIZES = st.integers(0, 2**50)


@given(SIZES, SIZES, SIZES, SIZES, st.dictionaries(st.sampled_from("abcd"), SIZES), SIZES)
def test_what_is_promised_fits_beside_what_others_were_promised(
    free: int, more: int, keep: int, limit: int, reserved: dict[str, int], own: int
) -> None:
    used = {name: size // 2 for name, size in reserved.items()} | {"me": own}
    account = Account(disk=Disk(size=2**60, free=free), used=used, reserved=reserved)
    settings = JobSettings(scratch_bytes=limit, scratch_keep_free_bytes=keep)
    outstanding = sum(size - used[name] for name, size in reserved.items())
    may = account.missing("me", more, settings) <= 0
    fits = more + outstanding + keep <= free
    allowed = not limit or own + more + sum(reserved.values()) <= limit
    assert may == (fits and allowed)
    if account.never("me", more, settings):
        assert own + more > min(2**60 - keep, limit or 2**60)
