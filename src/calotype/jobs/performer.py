"""Performs one job: claims it, runs its steps under watch, and records how it ended. Knows nothing of DBOS.

Each execution (the first, and each after a worker's death) is a new attempt. All it writes to the record names the
attempt, so that one that was thought dead and comes back finds that nothing of its writing counts any more.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.errors import CalotypeError, JobCancelled, JobInterrupted, NoSpace, ScratchFull, Unavailable
from calotype.jobs import sql
from calotype.jobs.families import sum_up_in
from calotype.jobs.model import Job, JobType
from calotype.jobs.run import Kind, Result, Run, Superseded
from calotype.jobs.scratch import ScratchSpace
from calotype.jobs.service import Jobs, expiry

log = structlog.get_logger()
T = TypeVar("T")

WATCH_EVERY_S: Final = 1.0  # how often progress is written, and a wish to cancel seen
RETRIES: Final = 4  # of a step, when a part of the service was away or its disk full
RETRY_AFTER_S: Final = 1.0  # doubles each time
RECORD_TRIES: Final = 60  # of writing the outcome while the database is away, a wait between 1 and 15 s each

# Runs one step durably: gives back the kept result if the step was done before, else runs it and keeps the result.
Durable = Callable[[str, Callable[[], Awaitable[Result]]], Awaitable[Result]]
# Told before and after each step; for tests that stop a worker at an exact point.
Observer = Callable[[str, str], None]
ENDED: Final[Result] = {"ended": True}


def _unobserved(_step: str, _moment: str) -> None:
    return None


class Performer:
    def __init__(
        self,
        *,
        db: Database,
        jobs: Jobs,
        kinds: Mapping[JobType, Kind],
        space: ScratchSpace,
        worker: str,
        observer: Observer = _unobserved,
    ) -> None:
        self.db = db
        self.jobs = jobs
        self.kinds = kinds
        self.space = space
        self.worker = worker
        self.observer = observer

    async def perform(self, job_id: str, durable: Durable) -> None:
        """Bring the job to its end. Returns when it has ended, whoever ended it; raises only when the worker stops."""
        job = await self._recording(lambda c: self._claim(c, job_id))
        if job is None:
            await self._clean_ended(job_id)
            return
        run = Run(job, self.space, lambda now: expiry(self.jobs.settings, now))
        with structlog.contextvars.bound_contextvars(job_id=job.id, project_id=job.project_id, attempt=job.attempt):
            log.info("job_attempt_started", kind=job.kind)
            try:
                await self._steps(run, durable)
            except Superseded:
                log.warning("job_attempt_superseded")
                return
            await asyncio.to_thread(self._clean, job)

    def _claim(self, c: Connection, job_id: str) -> Job | None:
        job = sql.claim(c, job_id, self.worker)
        if job is None or (job.attempt <= self.jobs.settings.attempts and not job.cancel_requested):
            if job is not None:
                self._sum_up(c, job)
            return job
        error: CalotypeError = JobCancelled(job.cancel_reason or "cancelled")
        if not job.cancel_requested:
            error = JobInterrupted(f"begun {job.attempt - 1} times, and each time its worker died; submit it again")
        self.jobs.fail_in(c, job, error, now_ms())
        return None

    async def _steps(self, run: Run, durable: Durable) -> None:
        for position, plan in enumerate(run.plan.steps):
            result = await durable(plan.name, lambda position=position: self._step(run, position))  # type: ignore[misc]
            if result == ENDED:
                return
            run.results[plan.name] = result

    async def _step(self, run: Run, position: int) -> Result:
        """One step with its retries. Whatever ends the job badly is recorded here and told as ENDED, so that the
        durable engine never sees an error: a second execution finds the same outcome."""
        plan = run.plan.steps[position]
        wait = RETRY_AFTER_S
        try:
            for remaining in reversed(range(RETRIES)):
                run.begin(position)
                await self._recording(lambda c: self._begin(c, run))
                self.observer(plan.name, "before")
                try:
                    result = await self._watched(run, plan.name)
                except (Unavailable, NoSpace) as error:
                    if remaining == 0 or isinstance(error, ScratchFull):  # that has waited long enough
                        raise
                    log.warning("job_step_retried", step=plan.name, reason=error.message)
                    await self._pause(run, wait)
                    wait *= 2
                    continue
                self.observer(plan.name, "after")
                if position + 1 < len(run.plan.steps):
                    await self._recording(lambda c: self._end(c, run))
                else:
                    log.info("job_handed_over" if run.handed_over else "job_succeeded")
                return result
        except Superseded:
            raise
        except CalotypeError as error:
            await self._fail(run, error)
        except Exception as error:
            log.exception("job_step_broke", step=plan.name)
            unknown = CalotypeError(f"the step {plan.name} broke ({type(error).__name__}); the service's log has more")
            await self._fail(run, unknown)
        return ENDED

    async def _watched(self, run: Run, name: str) -> Result:
        """Run the step; about once a second write its progress and see whether it is still wanted."""
        step = asyncio.ensure_future(self.kinds[run.job.kind].step(name, run))
        try:
            while True:
                done, _ = await asyncio.wait({step}, timeout=WATCH_EVERY_S)
                if done:
                    return step.result()
                with contextlib.suppress(Unavailable, NoSpace):  # the database is away: the step need not care
                    await self._look(run)
        finally:
            if not step.done():
                run.stop.set()
                step.cancel()
                await asyncio.wait({step})
            if not step.cancelled() and step.exception() is not None:
                log.debug("job_step_ended", step=name, error=type(step.exception()).__name__)

    async def _look(self, run: Run) -> None:
        row = await self.db.write(lambda c: self._progress(c, run))
        if row is None:
            if run.committing:
                return  # its own last write has ended the job
            raise Superseded
        wanted, reason = row
        if wanted and not run.committing:
            raise JobCancelled(reason or "cancelled")

    async def _pause(self, run: Run, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._look(run)

    def _progress(self, c: Connection, run: Run) -> tuple[bool, str | None] | None:
        task = run.plan.steps[run.position].task
        values = {"id": run.job.id, "attempt": run.job.attempt, "percent": run.percent, "task": task}
        row = c.execute(sql.PROGRESS, values).one_or_none()
        if run.total_bytes is not None:
            c.execute(
                sql.STEP_BYTES,
                {"id": run.job.id, "position": run.position, "done": run.done_bytes, "total": run.total_bytes},
            )
        if run.has_waited:
            waits_for = run.waits_for or None
            c.execute(sql.STEP_WAITS, {"id": run.job.id, "position": run.position, "waits_for": waits_for})
        if row is not None:
            self._sum_up(c, run.job)
        return None if row is None else (bool(row[0]), row[1])

    def _sum_up(self, c: Connection, job: Job) -> None:
        if job.parent_id is not None:
            now = now_ms()
            sum_up_in(c, job.parent_id, now, expiry(self.jobs.settings, now))

    def _begin(self, c: Connection, run: Run) -> None:
        row = self._progress(c, run)
        if row is None:
            raise Superseded
        if row[0]:
            raise JobCancelled(row[1] or "cancelled")
        c.execute(sql.BEGIN_STEP, {"id": run.job.id, "position": run.position, "now": now_ms()})

    def _end(self, c: Connection, run: Run) -> None:
        run.advance(1.0)
        self._progress(c, run)
        values = {
            "id": run.job.id,
            "position": run.position,
            "state": "done",
            "now": now_ms(),
            "done": run.done_bytes,
            "total": run.total_bytes,
        }
        c.execute(sql.END_STEP, values)

    async def _fail(self, run: Run, error: CalotypeError) -> None:
        recorded = await self._recording(lambda c: self.jobs.fail_in(c, run.job, error, now_ms()))
        if not recorded:
            raise Superseded
        log.info("job_failed", code=error.img, reason=error.message)

    async def _recording(self, work: Callable[[Connection], T]) -> T:
        """A write that the outcome depends on: tried again for minutes while the database is away."""
        for attempt in range(RECORD_TRIES):
            try:
                return await self.db.write(work)
            except (Unavailable, NoSpace) as error:
                log.warning("job_record_delayed", reason=error.message)
                if attempt + 1 == RECORD_TRIES:
                    raise
                await asyncio.sleep(min(15.0, 1.0 + attempt))
        raise AssertionError("unreachable")

    def _clean(self, job: Job) -> None:
        self.kinds[job.kind].clean(job)
        with self.db.writing() as c:
            sql.give_back(c, job.id)
        shutil.rmtree(self.space.folder / job.id, ignore_errors=True)

    async def _clean_ended(self, job_id: str) -> None:
        """The job had ended before this execution: what its last attempt had no time to remove is removed now."""
        job = await self.db.read(lambda c: sql.by_id(c, job_id))
        if job is not None and not job.is_open:
            await asyncio.to_thread(self._clean, job)
