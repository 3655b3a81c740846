"""One attempt at a job, as its steps see it: the record, earlier results, progress, and the two ways it ends."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import Connection

from calotype.jobs import sql
from calotype.jobs.families import sum_up_in
from calotype.jobs.model import Job, JobType
from calotype.jobs.plan import PLANS
from calotype.jobs.scratch import ScratchSpace

Result = dict[str, Any]  # what a step leaves for later ones: JSON, kept by the engine


class Superseded(Exception):
    """Not an error of the job: the attempt is no longer the present one; what it was about to write must not be."""


class Run:
    """`scratch` is this job's own folder; it goes when the job has ended. `stop` is set when a step must end soon:
    threads that a step started look at it between blocks."""

    def __init__(self, job: Job, space: ScratchSpace, expires_at_of: Callable[[int], int]) -> None:
        self.job = job
        self.plan = PLANS[job.kind]
        self.scratch = space.folder / job.id
        self.results: dict[str, Result] = {}
        self.stop = threading.Event()
        self.committing = False  # from here on a wish to cancel comes too late
        self.handed_over = False  # its sub jobs end it
        self.position = 0
        self.fraction = 0.0
        self.done_bytes: int | None = None
        self.total_bytes: int | None = None
        self.waits_for = ""  # what the running step cannot go on without
        self.has_waited = False
        self.space = space
        self._expires_at_of = expires_at_of

    @property
    def token(self) -> str:
        """Names what this attempt writes into the blob store's staging folder."""
        return f"j{self.job.id}-{self.job.attempt}"

    @property
    def tokens(self) -> list[str]:
        """Of this attempt, and of all before it."""
        return [f"j{self.job.id}-{attempt}" for attempt in range(1, self.job.attempt + 1)]

    @property
    def upload_id(self) -> str:
        """Names the job, whichever attempt, as the one that brings an image's bytes."""
        return upload_id(self.job)

    @property
    def percent(self) -> int:
        return self.plan.percent(self.position, self.fraction)

    def begin(self, position: int) -> None:
        self.position, self.fraction = position, 0.0
        self.done_bytes = self.total_bytes = None
        self.waits_for, self.has_waited = "", False
        self.stop.clear()

    def advance(self, fraction: float) -> None:
        """Tell how much of the running step is done, 0 to 1. From any thread; written out about once a second."""
        self.fraction = max(self.fraction, min(1.0, fraction))

    def advance_bytes(self, done: int, total: int) -> None:
        self.done_bytes, self.total_bytes = done, total
        self.advance(done / total if total else 1.0)

    async def reserve(self, *, scratch: int = 0, staging: int = 0) -> None:
        """Before the step writes: return once there is room for so many bytes more in the job's folder, and in the blob
        store's staging folder; what the job has there counts. Waits if need be, and the record says so.

        Raises `ScratchFull`."""
        await self.space.reserve(self.job.id, self._wait_for, scratch=scratch, staging=staging)

    def _wait_for(self, what: str) -> None:
        self.waits_for = what
        self.has_waited = self.has_waited or bool(what)

    def succeed_in(self, c: Connection, *, entities: Mapping[str, Any], image_id: str | None, now: int) -> None:
        """Record success in the transaction that publishes the result. Raises `Superseded`: roll back everything."""
        values = {
            "id": self.job.id,
            "attempt": self.job.attempt,
            "now": now,
            "entities": sql.as_text(entities),
            "image_id": image_id,
            "expires_at": self._expires_at_of(now),
        }
        if c.execute(sql.SUCCEED, values).rowcount == 0:
            raise Superseded
        c.execute(
            sql.END_STEP,
            {
                "id": self.job.id,
                "position": self.position,
                "state": "done",
                "now": now,
                "done": self.done_bytes,
                "total": self.total_bytes,
            },
        )
        if self.job.parent_id is not None:
            sum_up_in(c, self.job.parent_id, now, self._expires_at_of(now))


def upload_id(job: Job) -> str:
    return upload_id_of(job.id)


def upload_id_of(job_id: str) -> str:
    return f"j{job_id}"


class Kind(Protocol):
    """What a job type does. One module of `jobs/kinds` each."""

    @property
    def type(self) -> JobType: ...

    async def step(self, name: str, run: Run) -> Result:
        """Do one step of the plan. It may be run again after a stop at any point and ends in the same place then.

        The last step ends the job: it calls `run.succeed_in` in the transaction that publishes the result. On
        cancellation it leaves no process and no thread behind. Raises `CalotypeError` for what ends the job badly.
        """
        ...

    def clean(self, job: Job) -> None:
        """Remove the files that the job left, after it has ended either way. Running it again is harmless."""
        ...
