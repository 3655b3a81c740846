"""Pages of tasks over all projects, on both databases: whole, in order, each once, and by an index."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from calotype.jobs import sql
from calotype.jobs.model import JobId, JobStatus, JobType
from calotype.jobs.plan import PLANS
from tests.contract.catalogue import DATABASES, OTHER, OWNER, Catalogue, opened

KINDS = [JobType.IMPORT, JobType.INTEROPERABLE, JobType.EXPORT, JobType.COPY, JobType.REPLICATE]


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path) as made:
        made.write(_fill)
        yield made


def _fill(c: Connection) -> None:
    """60 jobs of two projects, several at one moment; every third has failed."""
    for number in range(60):
        job_id = JobId(f"{(number * 7919) % 60:032x}")
        sql.insert(
            c,
            job_id=job_id,
            project_id=(OWNER, OTHER)[number % 2],
            user_id="e" * 32,
            kind=KINDS[number % len(KINDS)],
            entities={},
            request={},
            image_id=f"image-{number % 4}",
            request_id=None,
            priority=5,
            steps=PLANS[KINDS[number % len(KINDS)]].names,
            now=1000 + number // 4,
        )
        if number % 3 == 0:
            values = {"id": job_id, "attempt": 0, "now": 5000, "error_code": "IMG.0061", "fail_reason": "x"}
            c.execute(sql.FAIL, {**values, "entities": "{}", "expires_at": 9000})


@pytest.mark.parametrize("order", sql.ORDERS)
@pytest.mark.parametrize("ascending", [True, False])
def test_pages_make_up_the_whole_in_order(catalogue: Catalogue, order: str, ascending: bool) -> None:
    whole = catalogue.read(lambda c: sql.page(c, None, order=order, ascending=ascending, limit=1000))
    column = text(f"SELECT id, {sql.ORDERS[order]} FROM jobs")  # noqa: S608 - constants
    value = dict(tuple(row) for row in catalogue.read(lambda c: c.execute(column).all()))

    paged, after = [], None
    while page := catalogue.read(
        lambda c, after=after: sql.page(c, None, order=order, ascending=ascending, after=after, limit=7)  # type: ignore[misc]
    ):
        paged += page
        after = (value[page[-1].id], page[-1].id)

    assert paged == whole
    assert len({job.id for job in whole}) == 60


def test_filters_hold_on_every_page(catalogue: Catalogue) -> None:
    given = {"statuses": [JobStatus.FAIL.value], "kinds": [JobType.COPY.value]}

    found = catalogue.read(lambda c: sql.page(c, None, **given, limit=1000))  # type: ignore[arg-type]
    own = catalogue.read(lambda c: sql.page(c, OWNER, **given, limit=1000))  # type: ignore[arg-type]

    assert found
    assert {(job.status, job.kind) for job in found} == {(JobStatus.FAIL, JobType.COPY)}
    assert {job.project_id for job in own} == {OWNER}


def test_the_jobs_of_an_image_are_all_or_those_of_one_project(catalogue: Catalogue) -> None:
    every = catalogue.read(lambda c: sql.of_image(c, "image-1", None, 1000))
    own = catalogue.read(lambda c: sql.of_image(c, "image-1", OTHER, 1000))
    none = catalogue.read(lambda c: sql.of_image(c, "image-1", "f" * 32, 1000))

    assert len(every) == 15
    assert own == [job for job in every if job.project_id == OTHER]
    assert none == []
    assert every == sorted(every, key=lambda job: (job.begin_time, job.id), reverse=True)


def test_a_page_over_all_projects_walks_an_index(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as catalogue:
        values = {"limit": 25, "after": 5, "after_id": "x"}
        for conditions in ("1 = 1", "1 = 1 AND (begin_time, id) < (:after, :after_id)"):
            query = sql.PAGE.format(conditions=conditions, key=sql.ORDERS["created_at"], direction="DESC")
            rows = catalogue.read(lambda c, q=query: c.execute(text(f"EXPLAIN QUERY PLAN {q}"), values).all())  # type: ignore[misc]
            plan = " ".join(str(row[-1]) for row in rows)

            assert "ix_jobs_page" in plan
            assert "TEMP B-TREE" not in plan
