"""The worker process: DBOS with its queues, the heartbeat, and an orderly end.

A worker that cannot write its heartbeat for as long as others wait before they call it dead stops its children and
ends itself at once, since its jobs are then someone else's.
"""

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import structlog
from dbos import DBOS, DBOSConfig

from calotype.db.engine import Database, database_url, now_ms
from calotype.errors import CalotypeError
from calotype.jobs import sql
from calotype.jobs.engine import APPLICATION, APPLICATION_VERSION, WORKFLOW
from calotype.jobs.performer import Performer
from calotype.jobs.reaper import Reaper
from calotype.jobs.run import Result
from calotype.settings import Settings

log = structlog.get_logger()

LIGHT_JOBS: Final = 8  # at once in a worker; they only write rows
REMOTE_JOBS: Final = 4  # at once in a worker; they move bytes to other services, and wait for these
MOST_SLOTS: Final = 64  # of worker processes on one host
PROJECT_SHARE: Final = 40  # running jobs of one project in one queue, over all workers
RECOVERIES: Final = 1_000_000  # of DBOS; how often a job is begun anew is our own setting `jobs.attempts`


@contextmanager
def slot(folder: Path) -> Iterator[str]:
    """A stable name for this worker, `host-n`, of which no other process on this host and data folder has the same.

    Stable, because a worker that starts again under its old name goes on with its jobs at once. The lock is the
    kernel's and ends with the process.
    """
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    for number in range(MOST_SLOTS):
        file = (run / f"worker-{number}.lock").open("w")
        if _locked(file):
            try:
                file.write(str(os.getpid()))
                file.flush()
                yield f"{socket.gethostname()}-{number}"
            finally:
                file.close()
            return
        file.close()
    raise RuntimeError(f"{MOST_SLOTS} workers run on this host already")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run_worker(settings: Settings, db: Database, performer: Performer, reaper: Reaper) -> None:
    """Work until SIGTERM or SIGINT; then take no new job, wait for those under way up to `jobs.drain_s`, and end.

    Jobs that are not done by then stay RUNNING and are gone on with by this worker's next start, or by another.
    """
    stopping = threading.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: stopping.set())
    _announce(db, performer.worker)
    heart = threading.Thread(
        target=_beat, args=(settings, db, performer.worker, reaper, stopping), name="heartbeat", daemon=True
    )
    heart.start()
    _launch(settings, performer)
    log.info("worker_ready", worker=performer.worker, slots=settings.slots)
    stopping.wait()
    log.info("worker_draining", worker=performer.worker)
    _set_state(db, performer.worker, "draining")
    DBOS.destroy(workflow_completion_timeout_sec=max(1, int(settings.jobs.drain_s)))
    _set_state(db, performer.worker, "stopped")
    log.info("worker_stopped", worker=performer.worker)


def _launch(settings: Settings, performer: Performer) -> None:
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_url": database_url(settings),
        "executor_id": performer.worker,
        "application_version": APPLICATION_VERSION,
        "run_migrations": False,
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    DBOS(config=config)
    steps: dict[tuple[str, str], Callable[[], Awaitable[Result]]] = {}

    @DBOS.step(name="calotype.step")
    async def step(job_id: str, name: str) -> Result:
        return await steps[job_id, name]()

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=RECOVERIES)
    async def job(job_id: str, _kind: str) -> None:
        async def durable(name: str, work: Callable[[], Awaitable[Result]]) -> Result:
            steps[job_id, name] = work
            try:
                return await step(job_id, name)
            finally:
                steps.pop((job_id, name), None)

        await performer.perform(job_id, durable)

    DBOS.listen_queues(["heavy", "light", "remote"])
    DBOS.launch()
    poll = settings.jobs.poll_s
    # Each look costs an idle worker about a millisecond; what goes to another region can wait for one.
    queues = (("heavy", settings.slots, poll), ("light", LIGHT_JOBS, poll), ("remote", REMOTE_JOBS, max(1.0, poll)))
    for name, concurrency, interval in queues:
        DBOS.register_queue(
            name, worker_concurrency=concurrency, partition_concurrency=PROJECT_SHARE, polling_interval_sec=interval
        )


def _announce(db: Database, worker: str) -> None:
    values = {"executor_id": worker, "host": socket.gethostname(), "pid": os.getpid(), "now": now_ms()}
    with db.writing() as c:
        c.execute(sql.WORKER_STARTS, values)


def _set_state(db: Database, worker: str, state: str) -> None:
    try:
        with db.writing() as c:
            c.execute(sql.WORKER_STATE, {"executor_id": worker, "state": state, "now": now_ms()})
    except CalotypeError as error:
        log.warning("worker_state_not_written", state=state, reason=error.message)


def _beat(settings: Settings, db: Database, worker: str, reaper: Reaper, stopping: threading.Event) -> None:
    """Every few seconds: the heartbeat, and what the reaper finds. Monotonic time decides whether we are late."""
    last = time.monotonic()
    while True:
        ended = stopping.wait(settings.jobs.heartbeat_s)
        try:
            with db.writing() as c:
                values = {"executor_id": worker, "pid": os.getpid(), "now": now_ms()}
                known = c.execute(sql.HEARTBEAT, values).rowcount == 1
            if not known and not ended:
                _give_up("it was declared dead while it did not answer")
            last = time.monotonic()
            if not ended:
                reaper.look()
        except CalotypeError as error:
            log.warning("heartbeat_late", worker=worker, reason=error.message)
        except Exception:
            log.exception("reaper_broke")
        if time.monotonic() - last > settings.jobs.dead_after_s:
            _give_up("it could not write its heartbeat")
        if ended:  # draining: go on beating, so that nobody takes what is still being done here
            time.sleep(settings.jobs.heartbeat_s)


def _give_up(why: str) -> None:
    """End at once, children too (they die with their parent): another worker has the jobs now, or soon."""
    log.error("worker_gives_up", reason=why)
    os._exit(70)
