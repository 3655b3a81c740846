"""The forms of one job record on the wire: the IMS API's current one, its older one of 2022-10, and the native one."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from calotype.jobs.families import SUB_JOBS, sub_jobs
from calotype.jobs.model import Job, JobId, JobStatus, JobType, Step

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# What a successful job of a type tells about itself.
SUCCESS_ENTITIES: Final[Mapping[JobType, tuple[str, ...]]] = {
    JobType.IMPORT: ("image_name", "image_id"),
    JobType.COPY: ("image_name", "image_id"),
    JobType.COPY_ACROSS: ("image_name", "image_id"),
    JobType.ADD_MEMBERS: ("results",),
    JobType.REMOVE_MEMBERS: ("results",),
    JobType.ANSWER_OFFERS: ("results",),
    JobType.REGISTER: ("image_id",),
    JobType.EXPORT: ("image_id",),
    JobType.INTEROPERABLE: ("image_name", "image_id"),
    JobType.REPLICATE: ("image_name", "image_id"),
    JobType.TASK: ("image_name", "image_id"),
    JobType.LOCATE: ("image_name", "image_id"),
    JobType.IMPORT_DATA: ("image_name", "image_id"),
    JobType.OVA: ("image_name", "image_id"),
    JobType.FROM_SERVER: ("image_name", "image_id"),
    JobType.FROM_VOLUME: ("image_name", "image_id"),
    JobType.FROM_VOLUMES: ("image_name", "image_id"),
    JobType.COPY_VOLUME: ("image_name", "image_id"),
    JobType.WHOLE_FROM_SERVER: ("image_name", "image_id"),
    JobType.WHOLE_FROM_BACKUP: ("image_name", "image_id"),
}
SUB_JOBS_TOLD: Final = ("sub_jobs_list", "sub_jobs_result")
# What the older pages called a type.
OLD_TYPES: Final[Mapping[JobType, str]] = {JobType.FROM_SERVER: "createImageByInstance"}
# The IMS API shows the one worker's part of these types as a job of its own. It is the same record under another id.
WITH_WORKER_STEP: Final = frozenset({JobType.IMPORT, JobType.IMPORT_DATA, JobType.REGISTER, JobType.EXPORT})
WORKER_STEP: Final = 0x5CA1_0BED_0000_4000_8000_0000_0B0E_57E9  # what the two ids differ by
INTERNAL: Final = frozenset({"etag", "staged", "inject", "owners"})  # of a request: what only the job itself needs
URLS: Final = frozenset({"uri", "import_from"})  # of a request: addresses that a user gave
STATES: Final[Mapping[JobStatus, str]] = {
    JobStatus.INIT: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCESS: "succeeded",
    JobStatus.FAIL: "failed",
}
STATUSES: Final[Mapping[str, JobStatus]] = {state: status for status, state in STATES.items()}


def iso_ms(at: int | None) -> str | None:
    """`2026-01-02T03:04:05.678Z`; None for None."""
    if at is None:
        return None
    seconds, ms = divmod(at, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def old_ms(at: int | None) -> str:
    """`04-Jun-2015 18:11:06:586`, English whatever the locale; "" for None."""
    if at is None:
        return ""
    seconds, ms = divmod(at, 1000)
    time = datetime.fromtimestamp(seconds, UTC)
    return f"{time.day:02d}-{MONTHS[time.month - 1]}-{time.year:04d} {time:%H:%M:%S}:{ms:03d}"


def current(job: Job) -> dict[str, Any]:
    """The form since 2025-05: all eight fields always, in the order of the samples."""
    return _envelope(job, job.id, job.kind.value, _entities(job))


def _envelope(job: Job, job_id: str, job_type: str, entities: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "job_type": job_type,
        "begin_time": iso_ms(job.begin_time),
        "end_time": iso_ms(job.end_time) or "",
        "status": job.status.value,
        "error_code": job.error_code,
        "fail_reason": job.fail_reason,
        "entities": entities,
    }


def worker_step_id(job_id: str) -> JobId:
    """Of the worker's part of a job; and of a worker's part, the job's."""
    return JobId(f"{int(job_id, 16) ^ WORKER_STEP:032x}")


def has_worker_step(job: Job) -> bool:
    return job.kind in WITH_WORKER_STEP and not job.entities.get(SUB_JOBS)


def worker_step(job: Job) -> dict[str, Any]:
    """The worker's part of a job, in the form of `current`."""
    entities = _own_entities(job)
    if job.status is JobStatus.SUCCESS:
        entities = {name: job.entities[name] for name in ("image_name", "image_id") if name in job.entities}
    return _envelope(job, worker_step_id(job.id), _worker_type(job), entities)


def _worker_type(job: Job) -> str:
    if job.kind is JobType.REGISTER:
        return "imsGoofysUploadImageJob"
    if job.kind is JobType.EXPORT:
        return "imsQuickExportImageJob" if job.request.get("quick") else "imsGoofysExportImageJob"
    if job.request.get("quick"):
        return "imsImportBigFileImageJob"
    if job.request.get("iso"):
        return "imsImportIsoFileImageJob"
    return "imsGoofysImportImageJob" if job.request.get("config") else "imsGoofysImportImageWithoutconfigJob"


def of_2022_10(job: Job) -> dict[str, Any]:
    """The older page's form of the same record: its times, and of the entities only `image_id`."""
    entities = _entities(job)
    return {
        "status": job.status.value,
        "entities": {"image_id": entities["image_id"]} if "image_id" in entities else {},
        "job_id": job.id,
        "job_type": OLD_TYPES.get(job.kind, job.kind.value),
        "begin_time": old_ms(job.begin_time),
        "end_time": old_ms(job.end_time),
        "error_code": job.error_code,
        "fail_reason": job.fail_reason,
    }


def progress(job: Job) -> dict[str, Any]:
    """`GET /v1/cloudimages/job/{job_id}`: the envelope of `current`, and how far the job is."""
    told = current(job)
    entities: dict[str, Any] = {}
    if "image_name" in job.entities:
        entities["image_name"] = job.entities["image_name"]
    entities |= {"process_percent": _percent(job), "current_task": job.current_task}
    if job.status is not JobStatus.FAIL and job.image_id:
        entities["image_id"] = job.image_id
    if has_worker_step(job):
        entities["subJobId"] = worker_step_id(job.id)
    if job.status is JobStatus.FAIL:
        entities |= told["entities"]
    entities |= {
        name: told["entities"][name] for name in ("sub_jobs_list", "sub_jobs_result") if name in told["entities"]
    }
    told["entities"] = entities
    return told


def _entities(job: Job) -> dict[str, Any]:
    """With the sub jobs. A data disk's import tells of its worker's part as one, which a client counts on."""
    entities = _own_entities(job)
    children = [] if job.status is JobStatus.INIT else sub_jobs(job)
    if children:
        entities |= {
            "sub_jobs_list": [child.id for child in children],
            "sub_jobs_result": [current(c) for c in children],
        }
    elif job.kind is JobType.IMPORT_DATA and job.status is not JobStatus.INIT:
        entities |= {"sub_jobs_list": [worker_step_id(job.id)], "sub_jobs_result": [worker_step(job)]}
    return entities


def _own_entities(job: Job) -> dict[str, Any]:
    if job.status is JobStatus.INIT:
        return {}
    own = {name: value for name, value in job.entities.items() if name != SUB_JOBS}
    if job.status is JobStatus.RUNNING:
        return {**own, "process_percent": _percent(job), "current_task": job.current_task}
    if job.status is JobStatus.FAIL:
        return own
    return {name: own[name] for name in SUCCESS_ENTITIES[job.kind] if name in own}


def _percent(job: Job) -> float | int:
    """0 to 1 with two decimals; 1 when done, and never before."""
    return 1 if job.status is JobStatus.SUCCESS else min(99, job.percent // 100) / 100


def native(job: Job, steps: Sequence[Step] = (), *, now: int) -> dict[str, Any]:
    """Calotype's own form: states that tell cancelling and cancelled apart, the step, bytes, rate and time left."""
    running = next((step for step in steps if step.state == "running"), None)
    return {
        "id": job.id,
        "type": job.kind.value,
        "state": _state(job),
        "subject": {
            "image_id": job.image_id,
            "image_name": job.entities.get("image_name"),
            "project_id": job.project_id,
        },
        "created": iso_ms(job.begin_time),
        "started": iso_ms(next((step.started_at for step in steps if step.started_at), None)),
        "ended": iso_ms(job.end_time),
        "attempt": job.attempt,
        "progress": _progress(job, running, now),
        "step": running.name if running else None,
        "waits_for": running.waits_for if running else None,
        "steps": [_step(step, now) for step in steps],
        "error": {"code": job.error_code, "message": job.fail_reason} if job.error_code else None,
        "entities": _entities(job),
        "request": asked(job.request),
    }


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request as readers of the job may see it: without what only the job needs, and of URLs without the query,
    which may hold a secret (a presigned address)."""
    return {name: _without_query(name, value) for name, value in request.items() if name not in INTERNAL}


def _without_query(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _without_query(inner, item) for inner, item in value.items()}
    if name in URLS and isinstance(value, str) and "?" in value:
        return f"{value.partition('?')[0]}?***"
    return value


def _state(job: Job) -> str:
    if job.cancel_requested:
        if job.is_open:
            return "cancelling"
        if job.status is JobStatus.FAIL:
            return "cancelled"
    return STATES[job.status]


def _progress(job: Job, running: Step | None, now: int) -> dict[str, Any]:
    rate = None if running is None else _rate(running, now)
    left = None
    if running is not None and rate and running.total_bytes and running.done_bytes is not None:
        left = round((running.total_bytes - running.done_bytes) / rate, 1)
    return {
        "percent": 100.0 if job.status is JobStatus.SUCCESS else job.percent / 100,
        "done_bytes": running.done_bytes if running else None,
        "total_bytes": running.total_bytes if running else None,
        "rate_bps": rate,
        "eta_seconds": left,
    }


def _rate(step: Step, now: int) -> int | None:
    """Bytes a second since the step began."""
    if step.started_at is None or not step.done_bytes:
        return None
    until = step.ended_at or now
    return int(step.done_bytes * 1000 / max(1, until - step.started_at))


def _step(step: Step, now: int) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state.value,
        "started": iso_ms(step.started_at),
        "ended": iso_ms(step.ended_at),
        "attempts": step.attempts,
        "progress": {"done_bytes": step.done_bytes, "total_bytes": step.total_bytes, "rate_bps": _rate(step, now)},
    }
