"""Jobs that consist of others. Once its sub jobs are there a parent has no execution of its own: it sums them up, in
the transaction that changes one of them, so that its record is as true as theirs and is read as one row.

Rows are locked sub job first, then parent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, to_builtins
from sqlalchemy import Connection

from calotype.jobs import sql
from calotype.jobs.model import Job, JobId, JobStatus, JobType

SUB_JOBS: Final = "sub_jobs"  # under this name a parent's entities hold its sub jobs as they are


class SubJob(Struct, frozen=True, kw_only=True):
    """One to be made."""

    kind: JobType
    request: Mapping[str, Any]
    entities: Mapping[str, Any]  # image_id and image_name
    image_id: str


class Kept(Struct, frozen=True, kw_only=True):
    """A sub job as its parent's record holds it."""

    id: str
    kind: str
    status: str
    begin_time: int
    end_time: int | None = None
    error_code: str | None = None
    fail_reason: str | None = None
    entities: Mapping[str, Any] = {}
    percent: int = 0
    current_task: str = ""


def kept(job: Job) -> dict[str, Any]:
    made: dict[str, Any] = to_builtins(
        Kept(
            id=job.id,
            kind=job.kind.value,
            status=job.status.value,
            begin_time=job.begin_time,
            end_time=job.end_time,
            error_code=job.error_code,
            fail_reason=job.fail_reason,
            entities=job.entities,
            percent=job.percent,
            current_task=job.current_task,
        )
    )
    return made


def sub_jobs(parent: Job) -> list[Job]:
    """As the parent's record tells of them; none for a job that has none."""
    return [
        Job(
            id=JobId(entry["id"]),
            project_id=parent.project_id,
            user_id=parent.user_id,
            kind=JobType(entry["kind"]),
            status=JobStatus(entry["status"]),
            begin_time=entry["begin_time"],
            end_time=entry["end_time"],
            error_code=entry["error_code"],
            fail_reason=entry["fail_reason"],
            entities=entry["entities"],
            image_id=entry["entities"].get("image_id"),
            parent_id=parent.id,
            percent=entry["percent"],
            current_task=entry["current_task"],
        )
        for entry in parent.entities.get(SUB_JOBS, ())
    ]


def is_parent(job: Job) -> bool:
    return bool(job.entities.get(SUB_JOBS))


def sum_up_in(c: Connection, parent_id: str, now: int, expires_at: int) -> None:
    """Bring the parent's record up to what its sub jobs are now, and end it when all have ended: with success if all
    succeeded, else with the failure of the first, in their order, that failed."""
    parent = sql.locked_open(c, parent_id)
    if parent is None:
        return
    found = {job.id: job for job in sql.children(c, parent_id)}
    children = [found[JobId(entry["id"])] for entry in parent.entities[SUB_JOBS]]
    entities = {**parent.entities, SUB_JOBS: [kept(job) for job in children]}
    if any(job.is_open for job in children):
        running = next((job for job in children if job.status is JobStatus.RUNNING), None)
        begun = running is not None or any(not job.is_open for job in children)
        sql.sum_up(
            c,
            parent_id,
            status=JobStatus.RUNNING if begun else parent.status,
            entities=entities,
            percent=max(parent.percent, min(9999, _mean(children))),
            current_task=running.current_task if running else "",
        )
        return
    failed = next((job for job in children if job.status is JobStatus.FAIL), None)
    if failed is not None:
        names: dict[str, Any] = {key: entities[key] for key in ("image_name", SUB_JOBS) if key in entities}
        entities = {**names, "error_code": failed.error_code, "error": failed.fail_reason}
    sql.sum_up(
        c,
        parent_id,
        status=JobStatus.SUCCESS if failed is None else JobStatus.FAIL,
        entities=entities,
        percent=10000 if failed is None else parent.percent,
        current_task="",
        end_time=now,
        error_code=None if failed is None else failed.error_code,
        fail_reason=None if failed is None else failed.fail_reason,
        expires_at=expires_at,
    )


def _mean(children: Sequence[Job]) -> int:
    return sum(10000 if not job.is_open else job.percent for job in children) // len(children)
