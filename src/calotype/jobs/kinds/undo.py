"""What a job type takes back in the catalogue when it fails or is cancelled, in the transaction that records it."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from sqlalchemy import Connection

from calotype.backups.service import abandon_in
from calotype.images import marks
from calotype.images.model import ImageId
from calotype.images.service import Images
from calotype.jobs.model import SHARING, Job, JobType
from calotype.jobs.run import upload_id
from calotype.jobs.service import Undo
from calotype.jobs.tasks import task_id

# Types whose jobs make their image: it goes with their failure.
MAKING = (
    JobType.IMPORT,
    JobType.IMPORT_DATA,
    JobType.OVA,
    JobType.COPY,
    JobType.FROM_SERVER,
    JobType.FROM_VOLUME,
    JobType.COPY_VOLUME,
)


def undo_table(images: Images) -> Mapping[JobType, Undo]:
    return {
        **dict.fromkeys(MAKING, partial(_abandon, images, "deleted")),
        JobType.WHOLE_FROM_SERVER: partial(_abandon_whole, images),
        JobType.WHOLE_FROM_BACKUP: partial(_abandon_whole, images),
        JobType.REGISTER: partial(_abandon, images, "queued"),  # the image waits for bytes again
        JobType.INTEROPERABLE: partial(_break, images),
        JobType.REPLICATE: _break_marks,  # the image stays as it is, with the stores that have it by then
        JobType.TASK: partial(_abandon, images, "deleted"),
        JobType.LOCATE: partial(_abandon, images, "queued"),  # its location stays listed, as upstream has it
        **dict.fromkeys(SHARING, _nothing),  # what they change, they change with their success
        JobType.EXPORT: _nothing,  # it changes nothing in the catalogue
        JobType.COPY_ACROSS: _nothing,  # what it made is in another region, and removed by its own steps
        JobType.FROM_VOLUMES: _nothing,  # its sub jobs do
    }


def _abandon(images: Images, to: Literal["queued", "deleted"], c: Connection, job: Job, now: int) -> None:
    if job.image_id is not None:
        images.abandon_in(c, ImageId(job.image_id), upload_id(job), to=to, now=now)


def _abandon_whole(images: Images, c: Connection, job: Job, now: int) -> None:
    _abandon(images, "deleted", c, job, now)
    if job.image_id is not None:
        abandon_in(c, job.image_id)


def _break(images: Images, c: Connection, job: Job, now: int) -> None:
    _abandon(images, "queued", c, job, now)
    _break_marks(c, job, now)


def _break_marks(c: Connection, job: Job, now: int) -> None:
    if job.image_id is not None:
        marks.break_in(c, job.image_id, task_id(job.id), now)


def _nothing(_c: Connection, _job: Job, _now: int) -> None:
    return None
