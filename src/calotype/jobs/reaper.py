"""What every worker looks after now and then: jobs of dead workers, jobs that the engine lost, leftovers, old records.

Any number of workers may do it at once; each action is guarded in the database and harmless when done twice.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from dbos import DBOS, DBOSClient

from calotype.db.engine import Database, database_url, now_ms
from calotype.errors import JobInterrupted
from calotype.jobs import sql
from calotype.jobs.engine import APPLICATION
from calotype.jobs.model import JobType
from calotype.jobs.run import Kind
from calotype.jobs.service import Jobs
from calotype.settings import Settings

log = structlog.get_logger()

SWEEP_EVERY_S: Final = 60.0
LOST_AFTER_MS: Final = 120_000  # an open job that the engine holds for ended since its beginning so long ago is lost
GRACE_MS: Final = 600_000  # leftovers younger than this are left alone
FORGET_AFTER_MS: Final = 7 * 86_400_000  # rows of workers that are gone
KEYS_KEPT_MS: Final = 7 * 86_400_000  # idempotency keys of requests
ENGINE_ENDED: Final = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


class Reaper:
    def __init__(
        self,
        *,
        settings: Settings,
        db: Database,
        jobs: Jobs,
        kinds: Mapping[JobType, Kind],
        scratch: Path,
        worker: str,
        sweeps: tuple[Callable[[int], None], ...] = (),
    ) -> None:
        """`sweeps`: what other parts want done once a minute, given the time in ms."""
        self.settings = settings
        self.db = db
        self.jobs = jobs
        self.kinds = kinds
        self.scratch = scratch
        self.worker = worker
        self.sweeps = sweeps
        self._client = DBOSClient(
            system_database_url=database_url(settings),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )
        self._swept = time.monotonic() - SWEEP_EVERY_S

    def look(self) -> None:
        """Called after each heartbeat, from the heartbeat's thread."""
        self.take_over()
        if time.monotonic() - self._swept >= SWEEP_EVERY_S:
            self._swept = time.monotonic()
            self.sweep(now_ms())

    def take_over(self) -> None:
        """Give the jobs of workers that are silent or gone back to the queues."""
        now = now_ms()
        before = now - int(self.settings.jobs.dead_after_s * 1000)
        with self.db.writing() as c:
            gone = [str(row[0]) for row in c.execute(sql.SILENT, {"me": self.worker, "before": before})]
            for worker in gone:
                if c.execute(sql.DECLARE_DEAD, {"executor_id": worker, "before": before}).rowcount:
                    log.warning("worker_declared_dead", worker=worker)
        if gone and self._pending_of(gone):
            # Private to DBOS, hence its pinned version and a test: it keeps the queue, counts the attempt, and gives
            # a job to exactly one worker however many ask for it.
            taken = DBOS._recover_pending_workflows(gone)  # noqa: SLF001
            log.warning("jobs_taken_over", workers=gone, jobs=[handle.workflow_id for handle in taken])

    def _pending_of(self, workers: list[str]) -> bool:
        found = self._client.list_workflows(
            status="PENDING", executor_id=workers, limit=1, load_input=False, load_output=False
        )
        return bool(found)

    def sweep(self, now: int) -> None:
        self._end_lost_jobs(now)
        self._clean_scratch(now)
        with self.db.writing() as c:
            expired = [str(row[0]) for row in c.execute(sql.EXPIRE, {"now": now})]
            c.execute(sql.FORGET_WORKERS, {"before": now - FORGET_AFTER_MS})
            c.execute(sql.GIVE_BACK_ENDED)
            c.execute(sql.FORGET_KEYS, {"before": now - KEYS_KEPT_MS})
        if expired:
            self._client.delete_workflows(expired)
        for sweep in self.sweeps:
            sweep(now)

    def _end_lost_jobs(self, now: int) -> None:
        """An open job whose execution the engine thinks over would stay open for ever: say that it failed."""
        with self.db.reading() as c:
            rows = c.execute(sql.OPEN_SINCE, {"before": now - LOST_AFTER_MS}).all()
        ids = [str(row[0]) for row in rows]
        if not ids:
            return
        known = {
            status.workflow_id: status.status
            for status in self._client.list_workflows(workflow_ids=ids, load_input=False, load_output=False)
        }
        for job_id in ids:
            if known.get(job_id, "SUCCESS") not in ENGINE_ENDED:
                continue
            with self.db.writing() as c:
                job = sql.by_id(c, job_id)
                if job is not None and job.is_open:
                    error = JobInterrupted("its execution broke off and cannot be gone on with; submit it again")
                    self.jobs.fail_in(c, job, error, now)
            log.error("job_was_lost", job_id=job_id, engine=known.get(job_id, "unknown"))
            if job is not None:
                self.kinds[job.kind].clean(job)

    def _clean_scratch(self, now: int) -> None:
        """Folders of jobs that have ended or that nobody knows."""
        if not self.scratch.exists():
            return
        old = []
        for folder in self.scratch.iterdir():
            with suppress(FileNotFoundError):  # its job has just ended
                if folder.is_dir() and folder.stat().st_mtime * 1000 < now - GRACE_MS:
                    old.append(folder)
        with self.db.reading() as c:
            still_open = sql.open_among(c, [f.name for f in old])
        for folder in old:
            if folder.name not in still_open:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("scratch_removed", job_id=folder.name)

    def close(self) -> None:
        self._client.destroy()
