"""A job as Image v2 shows it: a task. Ids are written as UUIDs; the four status words are what clients wait for."""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from calotype.jobs import view
from calotype.jobs.model import TASK_TYPES, Job, JobId, JobStatus

STATUSES: Final[Mapping[JobStatus, str]] = {
    JobStatus.INIT: "pending",
    JobStatus.RUNNING: "processing",
    JobStatus.SUCCESS: "success",
    JobStatus.FAIL: "failure",
}
SCHEMA: Final = "/v2/schemas/task"
INPUT: Final = ("image_id", "import_req", "backend")  # of what an interoperable import was asked for
TASK_ID: Final = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}"
)


def task_id(job_id: str) -> str:
    return str(uuid.UUID(hex=job_id))


def job_id(text: str) -> JobId | None:
    """Of a task id, with dashes or without; None when it has the form of neither."""
    return JobId(text.replace("-", "").lower()) if TASK_ID.fullmatch(text) else None


def short(job: Job) -> dict[str, Any]:
    """What a list shows of a task."""
    shown: dict[str, Any] = {
        "id": task_id(job.id),
        "type": TASK_TYPES[job.kind],
        "status": STATUSES[job.status],
        "owner": job.project_id,
        "user_id": job.user_id,
        "created_at": _time(job.begin_time),
        "updated_at": _time(job.end_time or job.begin_time),
        "expires_at": None if job.expires_at is None else _time(job.expires_at),
        "self": f"/v2/tasks/{task_id(job.id)}",
        "schema": SCHEMA,
    }
    if job.image_id is not None:
        shown["image_id"] = job.image_id
    if "request_id" in job.request:
        shown["request_id"] = job.request["request_id"]
    return shown


def whole(job: Job) -> dict[str, Any]:
    result = {"image_id": job.image_id} if job.status is JobStatus.SUCCESS and job.image_id else None
    return {**short(job), "input": _input(job), "result": result, "message": job.fail_reason or ""}


def _input(job: Job) -> Mapping[str, Any]:
    known = view.asked(job.request)
    if "input" in known:
        given: Mapping[str, Any] = known["input"]
        return given
    if "import_req" in known:
        known = {"image_id": job.image_id, **known}
        return {name: known[name] for name in INPUT if name in known}
    return {name: value for name, value in known.items() if name != "request_id"}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
