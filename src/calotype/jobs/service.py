"""Jobs as callers see them: submit, show, list, wait, cancel. And how one ends badly, whoever ends it."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.errors import (
    CalotypeError,
    ImageInUse,
    JobCancelled,
    JobFinished,
    JobNotFound,
    KeyReused,
    RequestRepeated,
    TooManyJobs,
)
from calotype.identity.model import Caller, RequestKey
from calotype.jobs import families, sql
from calotype.jobs.engine import Enqueuer
from calotype.jobs.families import SUB_JOBS, SubJob
from calotype.jobs.model import BRINGING, COPIES, CREATIONS, SHARING, TASK_TYPES, Job, JobId, JobStatus, JobType, Step
from calotype.jobs.plan import PLANS
from calotype.settings import JobSettings

# What a job type takes back in the transaction that records its failure: its image, its reservations.
Undo = Callable[[Connection, Job, int], None]
MOST_PAGE: Final = 1000
DAY_MS: Final = 86_400_000


class Jobs:
    def __init__(self, db: Database, settings: JobSettings, enqueuer: Enqueuer, undo: Mapping[JobType, Undo]) -> None:
        self.db = db
        self.settings = settings
        self._undo = undo
        self._enqueuer = enqueuer
        self._waiting = Waiting(db)

    def submit_in(
        self,
        c: Connection,
        caller: Caller,
        kind: JobType,
        *,
        request: Mapping[str, Any],
        entities: Mapping[str, Any],
        image_id: str | None,
        priority: int = 5,
    ) -> JobId:
        """Write the job and its place in the queue, in the transaction of what makes it necessary.

        Raises `TooManyJobs` when the project has as many of the sort under way as it may.
        """
        assert caller.project_id is not None, "routes that submit jobs want a project-scoped token"  # noqa: S101
        job_id = JobId(uuid.uuid4().hex)
        self._check_flow(c, caller.project_id, kind)
        sql.insert(
            c,
            job_id=job_id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            kind=kind,
            entities=entities,
            request=request,
            image_id=image_id,
            request_id=None,
            priority=priority,
            steps=PLANS[kind].names,
            now=now_ms(),
        )
        self._keep_key_in(c, caller, job_id)
        self._enqueuer.enqueue_in(c, job_id, kind, project_id=caller.project_id, priority=priority)
        return job_id

    def submit_family_in(
        self, c: Connection, caller: Caller, kind: JobType, *, request: Mapping[str, Any], children: Sequence[SubJob]
    ) -> JobId:
        """Write a parent that only sums up its sub jobs, and these with their places in the queue. It is told of with
        the image of the first. Raises `TooManyJobs`."""
        assert caller.project_id is not None, "routes that submit jobs want a project-scoped token"  # noqa: S101
        job_id, now = JobId(uuid.uuid4().hex), now_ms()
        sql.insert(
            c,
            job_id=job_id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            kind=kind,
            entities={},
            request=request,
            image_id=None,
            request_id=None,
            priority=5,
            steps=(),
            now=now,
        )
        self._keep_key_in(c, caller, job_id)
        for child in children:
            self._check_flow(c, caller.project_id, child.kind)
        made = [self._adopt_in(c, job_id, caller.project_id, caller.user_id, child, now) for child in children]
        sql.sum_up(
            c,
            job_id,
            status=JobStatus.INIT,
            entities={**children[0].entities, SUB_JOBS: made},
            percent=0,
            current_task="",
        )
        return job_id

    def spawn_in(self, c: Connection, job: Job, position: int, children: Sequence[SubJob], now: int) -> bool:
        """Make the running job the parent of `children`, which are queued: its last step, `position`, is done then.

        False, and nothing done, when another attempt has the job. Done again by a later attempt it changes nothing.
        """
        if sql.children(c, job.id):
            return True
        present = sql.locked_open(c, job.id)
        if present is None or present.attempt != job.attempt:
            return False
        made = [self._adopt_in(c, job.id, job.project_id, job.user_id, child, now) for child in children]
        entities = {**children[0].entities, SUB_JOBS: made}
        c.execute(sql.HAND_OVER, {"id": job.id, "entities": sql.as_text(entities)})
        done = {"id": job.id, "position": position, "state": "done", "now": now, "done": None, "total": None}
        c.execute(sql.END_STEP, done)
        return True

    def _adopt_in(
        self, c: Connection, parent_id: str, project_id: str, user_id: str, child: SubJob, now: int
    ) -> Mapping[str, Any]:
        job_id = JobId(uuid.uuid4().hex)
        sql.insert(
            c,
            job_id=job_id,
            project_id=project_id,
            user_id=user_id,
            kind=child.kind,
            entities=child.entities,
            request=child.request,
            image_id=child.image_id,
            request_id=None,
            priority=5,
            steps=PLANS[child.kind].names,
            now=now,
            parent_id=parent_id,
        )
        self._enqueuer.enqueue_in(c, job_id, child.kind, project_id=project_id, priority=5)
        made = sql.by_id(c, job_id)
        assert made is not None, "it was written above"  # noqa: S101
        return families.kept(made)

    def _keep_key_in(self, c: Connection, caller: Caller, job_id: JobId) -> None:
        if caller.request_key is None:
            return
        values = {**_names(caller, caller.request_key), "job_id": job_id, "now": now_ms()}
        if not c.execute(sql.KEEP_KEY, values).rowcount:
            raise RequestRepeated("the same request was accepted a moment ago")

    async def accepted_before(self, caller: Caller, key: RequestKey) -> JobId | None:
        """The job that the caller's request of that name began; None: there was no such request, or it was refused.

        Raises `KeyReused` when it was another request.
        """
        found = await self.db.read(lambda c: c.execute(sql.KEY, _names(caller, key)).one_or_none())
        if found is None:
            return None
        if found.fingerprint != key.fingerprint:
            raise KeyReused("the idempotency key is that of another request; use a new one for what is new")
        return JobId(found.job_id)

    def _check_flow(self, c: Connection, project_id: str, kind: JobType) -> None:
        for kinds, most in (
            (CREATIONS, self.settings.creations_per_project),
            (COPIES, self.settings.copies_per_project),
            (SHARING, self.settings.creations_per_project),
        ):
            if kind not in kinds:
                continue
            if c.dialect.name == "postgresql":
                sql.lock_project(c, project_id)
            if sql.count_open(c, project_id, kinds) >= most:
                raise TooManyJobs(f"{most} jobs of this sort are under way; wait until one has ended")

    @staticmethod
    def refuse_second_in(c: Connection, image_id: str) -> None:
        """Raises `ImageInUse` when a job that brings bytes is under way on the image."""
        if sql.open_on_image(c, image_id, BRINGING):
            raise ImageInUse("a job is bringing the image's bytes already; wait until it has ended")

    async def give_up_on(self, image_id: str, reason: str) -> None:
        """Cancel the jobs that bring bytes to an image that is gone. One that is at its last step finds out itself."""

        def work(c: Connection) -> None:
            for job_id in sql.open_on_image(c, image_id, BRINGING):
                self._cancel_in(c, job_id, reason)

        if await self.db.read(lambda c: sql.open_on_image(c, image_id, BRINGING)):
            await self.db.write(work)

    async def get(self, caller: Caller, job_id: str) -> Job:
        """Raises `JobNotFound`, for a foreign job too."""
        return self.own(caller, await self.db.read(lambda c: sql.by_id(c, job_id)))

    @staticmethod
    def own(caller: Caller, job: Job | None) -> Job:
        if job is None or job.project_id != caller.project_id:
            raise JobNotFound
        return job

    async def show(self, caller: Caller, job_id: str) -> tuple[Job, list[Step]]:
        def both(c: Connection) -> tuple[Job | None, list[Step]]:
            return sql.by_id(c, job_id), sql.steps(c, job_id)

        job, steps = await self.db.read(both)
        return self.own(caller, job), steps

    async def list(
        self,
        caller: Caller,
        *,
        statuses: Sequence[str] = (),
        kinds: Sequence[str] = (),
        image_id: str | None = None,
        marker: str | None = None,
        limit: int = 25,
    ) -> list[Job]:
        """The project's jobs, newest first, after the job `marker`. Raises `JobNotFound` for an unknown marker."""

        def work(c: Connection) -> list[Job]:
            after = None
            if marker is not None:
                last = self.own(caller, sql.by_id(c, marker))
                after = (last.begin_time, last.id)
            return sql.page(
                c,
                str(caller.project_id),
                statuses=statuses,
                kinds=kinds,
                image_id=image_id,
                after=after,
                limit=min(limit, MOST_PAGE),
            )

        return await self.db.read(work)

    async def of_image(self, image_id: str, project_id: str | None) -> Sequence[Job]:
        """The jobs on an image, the newest first: those of one project, or of all. The caller knows who may see it."""
        return await self.db.read(lambda c: sql.of_image(c, image_id, project_id, MOST_PAGE))

    async def task(self, job_id: str) -> Job:
        """A job of any project, for an admin. Raises `JobNotFound`."""
        job = await self.db.read(lambda c: sql.by_id(c, job_id))
        if job is None:
            raise JobNotFound
        return job

    async def tasks(
        self,
        *,
        statuses: Sequence[str] = (),
        kinds: Sequence[str] = (),
        order: str = "created_at",
        ascending: bool = False,
        marker: str | None = None,
        limit: int = 25,
    ) -> Sequence[Job]:
        """Of all projects, for an admin. `order` is one of `sql.ORDERS`. Raises `JobNotFound` for an unknown marker."""

        def work(c: Connection) -> list[Job]:
            after = None
            if marker is not None:
                last = sql.by_id(c, marker)
                if last is None:
                    raise JobNotFound
                values = {
                    "created_at": last.begin_time,
                    "status": last.status.value,
                    "type": TASK_TYPES[last.kind],
                    "id": last.id,
                }
                after = (values[order], last.id)
            return sql.page(
                c,
                None,
                statuses=statuses,
                kinds=kinds,
                order=order,
                ascending=ascending,
                after=after,
                limit=min(limit, MOST_PAGE),
            )

        return await self.db.read(work)

    async def cancel(self, caller: Caller, job_id: str, reason: str = "") -> Job:
        """End an open job: at once when it waits in the queue, else within about a second, when its worker sees it.
        Again on a job being cancelled: nothing new. Raises `JobNotFound`, `JobFinished`.
        """
        why = f"cancelled by {caller.user_name}" + (f": {reason}" if reason else "")

        def work(c: Connection) -> Job | None:
            job = self.own(caller, sql.by_id(c, job_id))
            if not job.is_open:
                raise JobFinished(f"the job has ended: {job.status}")
            return self._cancel_in(c, job_id, why)

        return self.own(caller, await self.db.write(work))

    def _cancel_in(self, c: Connection, job_id: str, why: str) -> Job | None:
        sql.lock_children(c, job_id)
        c.execute(sql.REQUEST_CANCEL, {"id": job_id, "reason": why})
        job = sql.by_id(c, job_id)
        if job is not None and families.is_parent(job):
            for child in sql.children(c, job_id):
                if child.is_open:
                    self._cancel_in(c, child.id, why)
        elif job is not None and job.status is JobStatus.INIT:
            self.fail_in(c, job, JobCancelled(why), now_ms())
        return sql.by_id(c, job_id)

    def fail_in(self, c: Connection, job: Job, error: CalotypeError, now: int) -> bool:
        """Record the failure of `job.attempt` and take back what the job had done, in one transaction.

        False, and nothing done, when the job has ended or another attempt has it.
        """
        detail = error.message
        entities = {key: job.entities[key] for key in ("image_name",) if key in job.entities}
        values = {
            "id": job.id,
            "attempt": job.attempt,
            "now": now,
            "error_code": error.img,
            "fail_reason": detail,
            "entities": sql.as_text({**entities, "error_code": error.img, "error": detail}),
            "expires_at": expiry(self.settings, now),
        }
        if c.execute(sql.FAIL, values).rowcount == 0:
            return False
        c.execute(sql.END_OPEN_STEPS, {"id": job.id, "now": now})
        self._undo[job.kind](c, job, now)
        if job.parent_id is not None:
            families.sum_up_in(c, job.parent_id, now, expiry(self.settings, now))
        return True

    async def wait(self, caller: Caller, job_id: str, seconds: float) -> Job:
        """The job, when it has ended or `seconds` have passed, whichever is first."""
        job = await self.get(caller, job_id)
        if job.is_open and seconds > 0:
            await self._waiting.until_finished(job.id, seconds)
            job = await self.get(caller, job_id)
        return job


def _names(caller: Caller, key: RequestKey) -> Mapping[str, str]:
    return {
        "project_id": str(caller.project_id),
        "user_id": caller.user_id,
        "key": key.key,
        "fingerprint": key.fingerprint,
    }


class Waiting:
    """All who wait for jobs in this process: one query every 200 ms for all together, none when nobody waits."""

    EVERY_S: Final = 0.2
    MOST: Final = 2000  # at once; who comes after that is answered at once

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiters: dict[JobId, set[asyncio.Future[None]]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def until_finished(self, job_id: JobId, seconds: float) -> None:
        if sum(map(len, self._waiters.values())) >= self.MOST:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            remaining = self._waiters.get(job_id, set())
            remaining.discard(future)
            if not remaining:
                self._waiters.pop(job_id, None)

    async def _look(self) -> None:
        while self._waiters:
            try:
                finished = await self._db.read(partial(sql.finished, ids=list(self._waiters)))
            except CalotypeError:
                finished = []  # the database is away: who waits is answered at the latest when his time is up
            for job_id in finished:
                for future in self._waiters.get(job_id, ()):
                    if not future.done():
                        future.set_result(None)
            await asyncio.sleep(self.EVERY_S)


def expiry(settings: JobSettings, now: int) -> int:
    """When a job that ends now may be forgotten."""
    return now + settings.retention_days * DAY_MS
