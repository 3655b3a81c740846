"""The statements of jobs, their steps and logs, and the workers. Only this file touches those tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, text

from calotype.jobs.model import TASK_TYPES, Job, JobId, JobStatus, JobType, Step, StepState

COLUMNS: Final = (
    "id, project_id, user_id, kind, status, begin_time, end_time, error_code, fail_reason, entities, request, "
    "parent_id, image_id, percent, current_task, attempt, worker, cancel_requested, cancel_reason, priority, "
    "expires_at, version"
)

# A job is written in the transaction that makes it necessary.
INSERT: Final = text("""
INSERT INTO jobs (id, project_id, user_id, kind, status, begin_time, entities, request, image_id, request_id, priority,
                  parent_id)
VALUES (:id, :project_id, :user_id, :kind, 'INIT', :now, :entities, :request, :image_id, :request_id, :priority,
        :parent_id)
""")

BY_ID: Final = text(f"SELECT {COLUMNS} FROM jobs WHERE id = :id")  # noqa: S608 - constants only

# The hot read of the job query; also run by the raw drivers (see db/fast.py), hence no named parameter.
QUERY: Final = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608 - constants only

# How many jobs of some kinds a project has under way; of a parent its sub jobs count. The index on
# (project_id, status, …) serves it.
COUNT_OPEN: Final = text("""
SELECT count(*) FROM jobs WHERE project_id = :project_id AND status IN ('INIT', 'RUNNING') AND kind IN :kinds
   AND NOT EXISTS (SELECT 1 FROM jobs sub WHERE sub.parent_id = jobs.id)
""").bindparams(bindparam("kinds", expanding=True))

# Which jobs of these kinds are under way on the image?
OPEN_ON_IMAGE: Final = text("""
SELECT id FROM jobs WHERE image_id = :image_id AND kind IN :kinds AND status IN ('INIT', 'RUNNING')
""").bindparams(bindparam("kinds", expanding=True))

# Begin an attempt. Whoever began the last one owns the job; all later writes name the attempt.
CLAIM: Final = text(f"""
UPDATE jobs SET status = 'RUNNING', attempt = attempt + 1, worker = :worker, version = version + 1
 WHERE id = :id AND status IN ('INIT', 'RUNNING')
RETURNING {COLUMNS}
""")  # noqa: S608 - constants only

# Tell how far it is; answers whether it is to be cancelled, and nothing when the attempt is no longer the present one.
PROGRESS: Final = text("""
UPDATE jobs SET percent = CASE WHEN :percent > percent THEN :percent ELSE percent END, current_task = :task,
                version = version + 1
 WHERE id = :id AND attempt = :attempt AND status = 'RUNNING'
RETURNING cancel_requested, cancel_reason
""")

SUCCEED: Final = text("""
UPDATE jobs SET status = 'SUCCESS', end_time = :now, percent = 10000, current_task = '', entities = :entities,
                image_id = :image_id, expires_at = :expires_at, version = version + 1
 WHERE id = :id AND attempt = :attempt AND status = 'RUNNING'
""")

FAIL: Final = text("""
UPDATE jobs SET status = 'FAIL', end_time = :now, current_task = '', error_code = :error_code,
                fail_reason = :fail_reason, entities = :entities, expires_at = :expires_at, version = version + 1
 WHERE id = :id AND attempt = :attempt AND status IN ('INIT', 'RUNNING')
""")

REQUEST_CANCEL: Final = text("""
UPDATE jobs SET cancel_requested = true, cancel_reason = :reason, version = version + 1
 WHERE id = :id AND status IN ('INIT', 'RUNNING') AND NOT cancel_requested
""")

PAGE: Final = f"""
SELECT {COLUMNS} FROM jobs WHERE {{conditions}}
 ORDER BY {{key}} {{direction}}, id {{direction}} LIMIT :limit
"""  # noqa: S608 - constants only; what stands in braces is put together from constants

_WORDS: Final = " ".join(f"WHEN '{kind}' THEN '{word}'" for kind, word in TASK_TYPES.items())
# What pages are ordered by. Words of types and statuses are those of Image v2 tasks; the statuses sort as ours do.
ORDERS: Final[Mapping[str, str]] = {
    "created_at": "begin_time",
    "status": "status",
    "type": f"CASE kind {_WORDS} END",
    "id": "id",
}

# All jobs on an image that can be read still, the newest first. By ix_jobs_image_id.
OF_IMAGE: Final = text(f"""
SELECT {COLUMNS} FROM jobs
 WHERE image_id = :image_id AND (CAST(:project_id AS TEXT) IS NULL OR project_id = :project_id)
 ORDER BY begin_time DESC, id DESC LIMIT :limit
""")  # noqa: S608 - constants only

# Jobs that have been open for a while: the reaper compares them with what the engine knows. Not parents: their sub jobs
# end them.
OPEN_SINCE: Final = text("""
SELECT id, attempt FROM jobs WHERE status IN ('INIT', 'RUNNING') AND begin_time < :before
   AND NOT EXISTS (SELECT 1 FROM jobs sub WHERE sub.parent_id = jobs.id)
 ORDER BY begin_time LIMIT 500
""")

# --- parents and their sub jobs ---------------------------------------------------------------------------------------

CHILDREN: Final = text(f"SELECT {COLUMNS} FROM jobs WHERE parent_id = :parent_id")  # noqa: S608 - constants only
# Also takes the row's lock, for which other sub jobs of the parent wait.
LOCK_OPEN: Final = text(f"""
UPDATE jobs SET version = version + 1 WHERE id = :id AND status IN ('INIT', 'RUNNING') RETURNING {COLUMNS}
""")  # noqa: S608 - constants only
SUM_UP: Final = text("""
UPDATE jobs SET status = :status, entities = :entities, percent = :percent, current_task = :current_task,
                end_time = :end_time, error_code = :error_code, fail_reason = :fail_reason, expires_at = :expires_at
 WHERE id = :id AND status IN ('INIT', 'RUNNING')
""")
# A job that becomes a parent: its image, if it had one, is its first sub job's from here on.
HAND_OVER: Final = text("""
UPDATE jobs SET entities = :entities, image_id = NULL WHERE id = :id
""")

# Which of these are over? For those who wait, and for sweeping.
FINISHED: Final = text("SELECT id FROM jobs WHERE id IN :ids AND status IN ('SUCCESS', 'FAIL')").bindparams(
    bindparam("ids", expanding=True)
)
OPEN_AMONG: Final = text("SELECT id FROM jobs WHERE id IN :ids AND status IN ('INIT', 'RUNNING')").bindparams(
    bindparam("ids", expanding=True)
)

EXPIRE: Final = text("""
DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE expires_at IS NOT NULL AND expires_at < :now LIMIT 500)
RETURNING id
""")

INSERT_STEP: Final = text("""
INSERT INTO job_steps (job_id, position, name, state) VALUES (:job_id, :position, :name, 'pending')
""")
STEPS: Final = text("""
SELECT position, name, state, attempts, started_at, ended_at, done_bytes, total_bytes, waits_for
  FROM job_steps WHERE job_id = :id ORDER BY position
""")
BEGIN_STEP: Final = text("""
UPDATE job_steps SET state = 'running', attempts = attempts + 1, started_at = :now, ended_at = NULL,
                     waits_for = NULL
 WHERE job_id = :id AND position = :position
""")
END_STEP: Final = text("""
UPDATE job_steps SET state = :state, ended_at = :now, done_bytes = :done, total_bytes = :total
 WHERE job_id = :id AND position = :position
""")
END_OPEN_STEPS: Final = text("""
UPDATE job_steps SET state = CASE state WHEN 'running' THEN 'failed' ELSE 'skipped' END, ended_at = :now,
                     waits_for = NULL
 WHERE job_id = :id AND state IN ('pending', 'running')
""")
STEP_BYTES: Final = text("""
UPDATE job_steps SET done_bytes = :done, total_bytes = :total WHERE job_id = :id AND position = :position
""")
# --- requests that are sent again -------------------------------------------------------------------------------------

KEY: Final = text("""
SELECT fingerprint, job_id FROM idempotency_keys WHERE project_id = :project_id AND user_id = :user_id AND key = :key
""")
KEEP_KEY: Final = text("""
INSERT INTO idempotency_keys (project_id, user_id, key, fingerprint, job_id, created_at)
VALUES (:project_id, :user_id, :key, :fingerprint, :job_id, :now)
ON CONFLICT (project_id, user_id, key) DO NOTHING
""")
FORGET_KEYS: Final = text("DELETE FROM idempotency_keys WHERE created_at < :before")

# --- scratch space ----------------------------------------------------------------------------------------------------

# What the other open jobs may have on the disk. Rows of jobs that have ended count for nothing.
RESERVED: Final = text("""
SELECT s.job_id, s.bytes FROM scratch_reservations s JOIN jobs j ON j.id = s.job_id
 WHERE s.place = :place AND s.job_id <> :but AND j.status IN ('INIT', 'RUNNING')
""")
RESERVE: Final = text("""
INSERT INTO scratch_reservations (job_id, place, bytes, reserved_at) VALUES (:job_id, :place, :bytes, :now)
ON CONFLICT (job_id, place) DO UPDATE SET bytes = excluded.bytes, reserved_at = excluded.reserved_at
""")
GIVE_BACK: Final = text("DELETE FROM scratch_reservations WHERE job_id = :job_id")
GIVE_BACK_ENDED: Final = text("""
DELETE FROM scratch_reservations
 WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id AND status IN ('INIT', 'RUNNING'))
""")
# What the running step waits for.
STEP_WAITS: Final = text("""
UPDATE job_steps SET waits_for = :waits_for WHERE job_id = :id AND position = :position
""")

# --- workers ----------------------------------------------------------------------------------------------------------

WORKER_STARTS: Final = text("""
INSERT INTO workers (executor_id, host, pid, state, started_at, last_seen)
VALUES (:executor_id, :host, :pid, 'live', :now, :now)
ON CONFLICT (executor_id) DO UPDATE
   SET host = excluded.host, pid = excluded.pid, state = 'live', started_at = excluded.started_at,
       last_seen = excluded.last_seen
""")
# A worker that was declared dead does not come back to life by a heartbeat: no row, and it ends itself.
HEARTBEAT: Final = text("""
UPDATE workers SET last_seen = :now WHERE executor_id = :executor_id AND pid = :pid AND state IN ('live', 'draining')
""")
WORKER_STATE: Final = text("UPDATE workers SET state = :state, last_seen = :now WHERE executor_id = :executor_id")
# Who is silent for too long, or has stopped: their jobs are taken over by others.
SILENT: Final = text("""
SELECT executor_id FROM workers
 WHERE executor_id <> :me AND ((state IN ('live', 'draining') AND last_seen < :before) OR state IN ('stopped', 'dead'))
""")
DECLARE_DEAD: Final = text("""
UPDATE workers SET state = 'dead' WHERE executor_id = :executor_id AND state IN ('live', 'draining')
   AND last_seen < :before
""")
FORGET_WORKERS: Final = text("DELETE FROM workers WHERE state IN ('stopped', 'dead') AND last_seen < :before")
COUNT_LIVE: Final = text("SELECT count(*) FROM workers WHERE state = 'live' AND last_seen >= :since")


def job_of(row: Sequence[Any]) -> Job:
    """The value of a row of COLUMNS, from SQLAlchemy or from a raw driver."""
    (id_, project_id, user_id, kind, status, begin_time, end_time, error_code, fail_reason, entities, request,
     parent_id, image_id, percent, current_task, attempt, worker, cancel_requested, cancel_reason, priority,
     expires_at, version) = row  # fmt: skip
    return Job(
        id=JobId(id_),
        project_id=project_id,
        user_id=user_id,
        kind=JobType(kind),
        status=JobStatus(status),
        begin_time=begin_time,
        end_time=end_time,
        error_code=error_code,
        fail_reason=fail_reason,
        entities=msgspec.json.decode(entities),
        request=msgspec.json.decode(request),
        parent_id=parent_id,
        image_id=image_id,
        percent=percent,
        current_task=current_task,
        attempt=attempt,
        worker=worker,
        cancel_requested=bool(cancel_requested),
        cancel_reason=cancel_reason,
        priority=priority,
        expires_at=expires_at,
        version=version,
    )


def insert(
    c: Connection, *, job_id: JobId, project_id: str, user_id: str, kind: JobType, entities: Mapping[str, Any],
    request: Mapping[str, Any], image_id: str | None, request_id: str | None, priority: int, steps: Sequence[str],
    now: int, parent_id: str | None = None,
) -> None:  # fmt: skip
    values = {
        "id": job_id,
        "project_id": project_id,
        "user_id": user_id,
        "kind": kind.value,
        "entities": as_text(entities),
        "request": as_text(request),
        "image_id": image_id,
        "request_id": request_id,
        "priority": priority,
        "now": now,
        "parent_id": parent_id,
    }
    c.execute(INSERT, values)
    if steps:
        c.execute(INSERT_STEP, [{"job_id": job_id, "position": n, "name": name} for n, name in enumerate(steps)])


def by_id(c: Connection, job_id: str) -> Job | None:
    row = c.execute(BY_ID, {"id": job_id}).one_or_none()
    return None if row is None else job_of(tuple(row))


def count_open(c: Connection, project_id: str, kinds: Iterable[JobType]) -> int:
    return int(c.execute(COUNT_OPEN, {"project_id": project_id, "kinds": [k.value for k in kinds]}).scalar_one())


def children(c: Connection, parent_id: str) -> list[Job]:
    return [job_of(tuple(row)) for row in c.execute(CHILDREN, {"parent_id": parent_id})]


def lock_children(c: Connection, parent_id: str) -> None:
    """On PostgreSQL, before a parent is touched first: rows are locked sub job first."""
    if c.dialect.name == "postgresql":
        c.execute(text("SELECT id FROM jobs WHERE parent_id = :id ORDER BY id FOR UPDATE"), {"id": parent_id}).all()


def locked_open(c: Connection, job_id: str) -> Job | None:
    row = c.execute(LOCK_OPEN, {"id": job_id}).one_or_none()
    return None if row is None else job_of(tuple(row))


def sum_up(
    c: Connection, job_id: str, *, status: JobStatus, entities: Mapping[str, Any], percent: int, current_task: str,
    end_time: int | None = None, error_code: str | None = None, fail_reason: str | None = None,
    expires_at: int | None = None,
) -> None:  # fmt: skip
    values = {
        "id": job_id,
        "status": status.value,
        "entities": as_text(entities),
        "percent": percent,
        "current_task": current_task,
        "end_time": end_time,
        "error_code": error_code,
        "fail_reason": fail_reason,
        "expires_at": expires_at,
    }
    c.execute(SUM_UP, values)


def open_on_image(c: Connection, image_id: str, kinds: Iterable[JobType]) -> list[JobId]:
    rows = c.execute(OPEN_ON_IMAGE, {"image_id": image_id, "kinds": [kind.value for kind in kinds]})
    return [JobId(row[0]) for row in rows]


def of_image(c: Connection, image_id: str, project_id: str | None, limit: int) -> list[Job]:
    """Those of one project, or of all."""
    values = {"image_id": image_id, "project_id": project_id, "limit": limit}
    return [job_of(tuple(row)) for row in c.execute(OF_IMAGE, values)]


def claim(c: Connection, job_id: str, worker: str) -> Job | None:
    row = c.execute(CLAIM, {"id": job_id, "worker": worker}).one_or_none()
    return None if row is None else job_of(tuple(row))


def page(
    c: Connection,
    project_id: str | None,
    *,
    statuses: Sequence[str] = (),
    kinds: Sequence[str] = (),
    image_id: str | None = None,
    order: str = "created_at",
    ascending: bool = False,
    after: tuple[Any, str] | None = None,
    limit: int,
) -> list[Job]:
    """Of one project, or of all. `order` is one of ORDERS, in it the ids decide between equals; `after` is its value
    and the id of the last job of the page before."""
    conditions: list[str] = ["1 = 1"]
    values: dict[str, Any] = {"limit": limit}
    if project_id is not None:
        conditions.append("project_id = :project_id")
        values["project_id"] = project_id
    lists = {"statuses": ("status", statuses), "kinds": ("kind", kinds)}
    given = {name: wanted for name, (_, wanted) in lists.items() if wanted}
    conditions += [f"{lists[name][0]} IN :{name}" for name in given]
    if image_id is not None:
        conditions.append("image_id = :image_id")
        values["image_id"] = image_id
    if after is not None:
        conditions.append(f"({ORDERS[order]}, id) {'>' if ascending else '<'} (:after, :after_id)")
        values["after"], values["after_id"] = after
    direction = "ASC" if ascending else "DESC"
    sql = PAGE.format(conditions=" AND ".join(conditions), key=ORDERS[order], direction=direction)
    statement = text(sql).bindparams(*(bindparam(name, expanding=True) for name in given))
    return [job_of(tuple(row)) for row in c.execute(statement, {**values, **given})]


def steps(c: Connection, job_id: str) -> list[Step]:
    rows = c.execute(STEPS, {"id": job_id})
    return [
        Step(
            position=position, name=name, state=StepState(state), attempts=attempts, started_at=started_at,
            ended_at=ended_at, done_bytes=done, total_bytes=total, waits_for=waits_for,
        )
        for position, name, state, attempts, started_at, ended_at, done, total, waits_for in rows
    ]  # fmt: skip


def reserved(c: Connection, place: str, *, but: str) -> dict[str, int]:
    """What open jobs other than `but` may have in a place: id -> bytes. Nobody else may reserve there until the
    transaction ends."""
    if c.dialect.name == "postgresql":  # SQLite has one writer anyway
        c.execute(text("SELECT pg_advisory_xact_lock(hashtext(:place))"), {"place": f"scratch {place}"})
    return {str(job_id): int(size) for job_id, size in c.execute(RESERVED, {"place": place, "but": but})}


def reserve(c: Connection, job_id: str, place: str, size: int, now: int) -> None:
    c.execute(RESERVE, {"job_id": job_id, "place": place, "bytes": size, "now": now})


def give_back(c: Connection, job_id: str) -> None:
    c.execute(GIVE_BACK, {"job_id": job_id})


def as_text(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def lock_project(c: Connection, project_id: str) -> None:
    """On PostgreSQL: one submission of a project at a time until the transaction ends. SQLite has one writer anyway."""
    c.execute(text("SELECT pg_advisory_xact_lock(hashtext(:project_id))"), {"project_id": project_id})


def finished(c: Connection, *, ids: Sequence[str]) -> list[JobId]:
    return [JobId(row[0]) for row in c.execute(FINISHED, {"ids": ids})]


def open_among(c: Connection, ids: Sequence[str]) -> set[str]:
    """Which of `ids` are jobs that have not ended."""
    return {row[0] for row in c.execute(OPEN_AMONG, {"ids": ids})} if ids else set()
