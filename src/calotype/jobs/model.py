"""A job: something that takes time, with a record that is true whatever happens meanwhile."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NewType

from msgspec import Struct

JobId = NewType("JobId", str)  # 32 hex


class JobStatus(StrEnum):
    """The four words of the IMS API. There is never a fifth: its clients take anything else for success."""

    INIT = "INIT"  # accepted, not begun
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"  # also when cancelled


NEXT: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.INIT: frozenset({JobStatus.RUNNING, JobStatus.FAIL}),
    JobStatus.RUNNING: frozenset({JobStatus.SUCCESS, JobStatus.FAIL}),
    JobStatus.SUCCESS: frozenset(),
    JobStatus.FAIL: frozenset(),
}
OPEN: Final = frozenset(status for status, following in NEXT.items() if following)


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class JobType(StrEnum):
    """What jobs do. Names that begin with `ims` are the IMS API's; the others are of what only Image v2 asks for."""

    IMPORT = "imsImportImageJob"
    EXPORT = "imsNativeExportImageJob"
    REGISTER = "imsNativeImportImageJob"
    COPY = "imsCopyImageInRegionJob"
    COPY_ACROSS = "imsCrossRegionCopyImageJob"  # to another region
    INTEROPERABLE = "interoperableImportJob"  # glance-direct, web-download, glance-download
    REPLICATE = "interoperableCopyJob"  # copy-image: an active image to more stores
    TASK = "taskImportJob"  # asked for as a task, which makes the image too
    ADD_MEMBERS = "imsAddImageMembersJob"
    REMOVE_MEMBERS = "imsDelImageMembersJob"
    ANSWER_OFFERS = "imsUpdateImageMembersJob"
    IMPORT_DATA = "imsImportDataImageJob"
    OVA = "imsImportOvaImageJob"  # a parent
    FROM_SERVER = "imsCreateImageByInstance"
    FROM_VOLUME = "imsVolumeCreateImageJob"
    FROM_VOLUMES = "imsVolumesToSysDataImagesJob"  # a parent
    COPY_VOLUME = "imsCopyVolumeToImageJob"  # of one volume; the sub job of the one before
    WHOLE_FROM_SERVER = "imsCreateWholeImageByInstanceJob"
    WHOLE_FROM_BACKUP = "imsCreateWholeImageByBackupJob"
    LOCATE = "locationImportJob"  # POST /v2/images/{image_id}/locations: an image points at a URL


SHARING: Final = frozenset({JobType.ADD_MEMBERS, JobType.REMOVE_MEMBERS, JobType.ANSWER_OFFERS})
WHOLE: Final = frozenset({JobType.WHOLE_FROM_SERVER, JobType.WHOLE_FROM_BACKUP})
# Types that give an image its bytes, or more places for them: one at a time.
BRINGING: Final = frozenset(set(JobType) - {JobType.EXPORT, JobType.COPY_ACROSS, JobType.FROM_VOLUMES} - SHARING)
CREATIONS: Final = frozenset(BRINGING - {JobType.COPY})  # counted against jobs.creations_per_project
# What Image v2 calls them, as tasks.
TASK_TYPES: Final[Mapping[JobType, str]] = {
    JobType.IMPORT: "import",
    JobType.REGISTER: "import",
    JobType.TASK: "import",
    JobType.INTEROPERABLE: "api_image_import",
    JobType.REPLICATE: "api_image_import",
    JobType.LOCATE: "location_import",
    **dict.fromkeys((JobType.IMPORT_DATA, JobType.OVA), "import"),
    **dict.fromkeys((JobType.FROM_SERVER, JobType.WHOLE_FROM_SERVER, JobType.WHOLE_FROM_BACKUP), "create"),
    **dict.fromkeys((JobType.FROM_VOLUME, JobType.FROM_VOLUMES, JobType.COPY_VOLUME), "create"),
    JobType.EXPORT: "export",
    JobType.COPY: "copy",
    JobType.COPY_ACROSS: "copy",
    **dict.fromkeys(SHARING, "members"),
}
COPIES: Final = frozenset({JobType.COPY, JobType.COPY_ACROSS})  # counted against jobs.copies_per_project


class Job(Struct, frozen=True, kw_only=True):
    """The record. Times in ms since 1970, UTC. A finished job never changes again."""

    id: JobId
    project_id: str
    user_id: str
    kind: JobType
    status: JobStatus
    begin_time: int
    end_time: int | None = None
    error_code: str | None = None  # an IMG code; only of a failed job
    fail_reason: str | None = None
    entities: Mapping[str, Any] = {}  # image_id and image_name, as far as known; `error` of a failed job
    request: Mapping[str, Any] = {}
    parent_id: str | None = None
    image_id: str | None = None  # the image it works on or makes
    percent: int = 0  # hundredths of a percent
    current_task: str = ""  # the running step
    attempt: int = 0  # how often it was begun
    worker: str | None = None
    cancel_requested: bool = False
    cancel_reason: str | None = None
    priority: int = 5
    expires_at: int | None = None
    version: int = 1  # grows with every change

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


class Step(Struct, frozen=True, kw_only=True):
    """One named part of a job, as it was or is being done."""

    position: int
    name: str
    state: StepState
    attempts: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    waits_for: str | None = None  # what it cannot go on without
