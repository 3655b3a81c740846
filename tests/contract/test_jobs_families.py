"""Parents sum up their sub jobs, on both databases: exactly once, whoever ends last, and as true as they are."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection

from calotype.blobs.stores import Stores
from calotype.db.engine import Database, open_engine
from calotype.db.migrate import migrate
from calotype.errors import ConversionFailed, JobFinished, TooManyJobs
from calotype.images.model import ImageCreate
from calotype.images.service import Images
from calotype.jobs import sql, view
from calotype.jobs.engine import Enqueuer
from calotype.jobs.families import SubJob, sub_jobs
from calotype.jobs.kinds.undo import undo_table
from calotype.jobs.model import Job, JobId, JobStatus, JobType
from calotype.jobs.performer import Performer
from calotype.jobs.run import Run
from calotype.jobs.scratch import ScratchSpace
from calotype.jobs.service import Jobs
from calotype.settings import ImageSettings
from tests.contract.catalogue import DATABASES, OWNER, _settings, caller

END = 9_000_000


class Families:
    def __init__(self, images: Images, jobs: Jobs, db: Database, space: ScratchSpace) -> None:
        self.images, self.jobs, self.db = images, jobs, db
        self.performer = Performer(db=db, jobs=jobs, kinds={}, space=space, worker="w-0")

    def child(self, c: Connection, name: str) -> SubJob:
        image = self.images.create_in(c, project_id=OWNER, spec=ImageCreate(name=name), now=1000)
        return SubJob(
            kind=JobType.COPY_VOLUME,
            request={"volume": name},
            entities={"image_name": name, "image_id": image.id},
            image_id=image.id,
        )

    def family(self, count: int) -> tuple[JobId, list[JobId]]:
        def work(c: Connection) -> JobId:
            children = [self.child(c, f"n{number}") for number in range(count)]
            return self.jobs.submit_family_in(c, caller(), JobType.FROM_VOLUMES, request={}, children=children)

        with self.db.writing() as c:
            parent = work(c)
        return parent, [job.id for job in sub_jobs(self.job(parent))]

    def job(self, job_id: str) -> Job:
        with self.db.reading() as c:
            found = sql.by_id(c, job_id)
        assert found is not None
        return found

    def begin(self, job_id: str) -> Run:
        with self.db.writing() as c:
            job = self.performer._claim(c, job_id)
        assert job is not None
        return Run(job, self.performer.space, lambda now: now + 1)

    def succeed(self, run: Run) -> None:
        with self.db.writing() as c:
            run.succeed_in(c, entities=run.job.entities, image_id=run.job.image_id, now=END)

    def fail(self, run: Run, why: str) -> None:
        with self.db.writing() as c:
            assert self.jobs.fail_in(c, run.job, ConversionFailed(why), END)


@pytest.fixture(params=DATABASES)
def families(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Families]:
    with _settings(request.param, tmp_path, ImageSettings(count_per_project=200)) as settings:
        migrate(settings)
        db, enqueuer = Database(open_engine(settings)), Enqueuer(settings)
        images = Images(db, Stores(settings), settings)
        try:
            yield Families(
                images,
                Jobs(db, settings.jobs, enqueuer, undo_table(images)),
                db,
                ScratchSpace(db, settings.jobs, tmp_path / "scratch", tmp_path / "staging"),
            )
        finally:
            enqueuer.close()
            db.close()


def test_a_parent_runs_with_its_first_sub_job_and_ends_with_its_last(families: Families) -> None:
    parent, children = families.family(3)
    assert families.job(parent).status is JobStatus.INIT
    assert view.current(families.job(parent))["entities"] == {}

    runs = [families.begin(child) for child in children]
    assert families.job(parent).status is JobStatus.RUNNING
    versions = [families.job(parent).version]
    for run in runs[1:]:
        families.succeed(run)
        versions.append(families.job(parent).version)
        assert families.job(parent).status is JobStatus.RUNNING
    assert families.job(parent).percent == 6666
    families.succeed(runs[0])

    ended = families.job(parent)
    assert (ended.status, ended.end_time, ended.percent) == (JobStatus.SUCCESS, END, 10000)
    assert [job.id for job in sub_jobs(ended)] == children
    assert [view.current(job) for job in sub_jobs(ended)] == [view.current(families.job(child)) for child in children]
    assert ended.entities["image_name"] == "n0"
    assert versions == sorted(set(versions))


def test_a_parent_fails_as_the_first_sub_job_that_failed_whatever_ended_last(families: Families) -> None:
    parent, children = families.family(3)
    runs = [families.begin(child) for child in children]

    families.fail(runs[2], "third")
    families.fail(runs[1], "second")
    assert families.job(parent).status is JobStatus.RUNNING
    families.succeed(runs[0])

    ended = families.job(parent)
    assert (ended.status, ended.fail_reason) == (JobStatus.FAIL, "second")
    assert [job.status.value for job in sub_jobs(ended)] == ["SUCCESS", "FAIL", "FAIL"]
    told = view.current(ended)["entities"]
    assert (told["error_code"], told["error"]) == (ended.error_code, "second")
    assert "image_id" not in told
    assert told["sub_jobs_list"] == children


def test_sub_jobs_that_end_at_once_end_their_parent_once(families: Families) -> None:
    for _ in range(5):
        parent, children = families.family(6)
        runs = [families.begin(child) for child in children]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(families.succeed, runs))

        ended = families.job(parent)
        assert (ended.status, len(sub_jobs(ended))) == (JobStatus.SUCCESS, 6)
        assert all(job.status is JobStatus.SUCCESS for job in sub_jobs(ended))


async def test_cancelling_a_parent_that_waits_ends_it_and_takes_the_images_back(families: Families) -> None:
    parent, children = families.family(3)

    await families.jobs.cancel(caller(), parent, "no longer")

    ended = families.job(parent)
    assert (ended.status, ended.cancel_requested) == (JobStatus.FAIL, True)
    assert view.native(ended, now=END)["state"] == "cancelled"
    assert ended.fail_reason == "cancelled by someone: no longer"
    assert {families.job(child).status for child in children} == {JobStatus.FAIL}
    for child in children:
        with families.db.reading() as c:
            assert families.images.by_id_in(c, str(families.job(child).image_id)) is None
    with pytest.raises(JobFinished):
        await families.jobs.cancel(caller(), parent)


async def test_cancelling_a_parent_tells_the_sub_jobs_that_run(families: Families) -> None:
    parent, children = families.family(2)
    run = families.begin(children[0])

    told = await families.jobs.cancel(caller(), parent)

    assert (told.status, told.cancel_requested) == (JobStatus.RUNNING, True)
    assert families.job(children[0]).cancel_requested
    assert families.job(children[1]).status is JobStatus.FAIL
    families.succeed(run)  # it was too late for this one
    assert families.job(parent).status is JobStatus.FAIL


async def test_cancelling_one_sub_job_leaves_the_others(families: Families) -> None:
    parent, children = families.family(2)

    await families.jobs.cancel(caller(), children[1])

    assert families.job(parent).status is JobStatus.RUNNING
    families.succeed(families.begin(children[0]))
    assert families.job(parent).status is JobStatus.FAIL


def test_of_a_family_the_sub_jobs_count_as_creations_and_not_the_parent(families: Families) -> None:
    families.family(20)
    families.family(20)

    with pytest.raises(TooManyJobs):
        families.family(1)
    with families.db.reading() as c:
        assert sql.count_open(c, OWNER, {JobType.COPY_VOLUME, JobType.FROM_VOLUMES}) == 40


def test_a_parent_is_not_taken_for_lost(families: Families) -> None:
    parent, children = families.family(2)

    with families.db.reading() as c:
        open_since = {str(row[0]) for row in c.execute(sql.OPEN_SINCE, {"before": 2**50})}

    assert open_since == set(children)
    assert parent not in open_since


def test_a_running_job_becomes_a_parent_once_and_only_of_its_present_attempt(families: Families) -> None:
    with families.db.writing() as c:
        first = families.child(c, "system")
        job_id = families.jobs.submit_in(
            c, caller(), JobType.OVA, request={}, entities=first.entities, image_id=first.image_id
        )
    run = families.begin(job_id)
    with families.db.writing() as c:
        second = families.child(c, "data")
        assert families.jobs.spawn_in(c, run.job, 0, [first, second], END)
        assert families.jobs.spawn_in(c, run.job, 0, [first, second], END)

    again = families.begin(job_id)
    with families.db.writing() as c:
        assert families.jobs.spawn_in(c, again.job, 0, [first, second], END)
    parent = families.job(job_id)
    assert (parent.image_id, len(sub_jobs(parent))) == (None, 2)
    for child in sub_jobs(parent):
        families.succeed(families.begin(child.id))
    assert families.job(job_id).status is JobStatus.SUCCESS


def test_an_attempt_that_was_overtaken_spawns_nothing(families: Families) -> None:
    with families.db.writing() as c:
        first = families.child(c, "system")
        job_id = families.jobs.submit_in(
            c, caller(), JobType.OVA, request={}, entities=first.entities, image_id=first.image_id
        )
    stale = families.begin(job_id)
    families.begin(job_id)

    with families.db.writing() as c:
        assert not families.jobs.spawn_in(c, stale.job, 0, [first], END)

    assert sub_jobs(families.job(job_id)) == []
