"""What the command line tells when something was refused or failed, and what to do next."""

from collections.abc import Mapping
from typing import Final

# By the code that the service or the command line gives. What is not here: the message has to be enough.
NEXT_STEPS: Final[Mapping[str, str]] = {
    "unauthenticated": "check user, password and project in clouds.yaml or the OS_* variables",
    "forbidden": "ask an administrator for the role member on this project",
    "bucket_not_found": "calotype bucket list shows the buckets; calotype bucket create NAME makes one",
    "bucket_not_empty": "calotype bucket list NAME shows what is in it; calotype bucket rm BUCKET:KEY removes it",
    "bucket_read_only": "the operator mapped this bucket read-only: put the object into another one",
    "bucket_mapped": "the operator of the service maps this bucket in calotype.toml; only there can it be changed",
    "object_not_found": "calotype bucket list BUCKET shows what is there",
    "object_exists": "name another key, or remove this one first: calotype bucket rm BUCKET:KEY",
    "image_not_found": "calotype image list shows the images of this project",
    "job_not_found": "calotype job list shows the jobs of this project",
    "server_not_found": "calotype server list shows the servers of this project",
    "source_unreadable": "correct what it says in the inventory, or tell the operator of the service",
    "image_quota_exceeded": "delete an image that is no longer needed, or ask for a larger quota",
    "storage_quota_exceeded": "delete an image that is no longer needed, or ask for a larger quota",
    "too_many_jobs": "wait until a job has ended: calotype job list --state running",
    "no_space": "the disk of the service is full; tell its operator",
    "unavailable": "try again shortly",
    "IMG.0005": "calotype server list shows the servers of this project",
    "IMG.0015": "delete an image that is no longer needed, or ask for a larger quota",
    "IMG.0017": "an object is named BUCKET:KEY",
    "IMG.0022": "stop the server, or wait until nothing writes to its disks; calotype volume list shows them",
    "IMG.0023": "calotype job list shows the jobs of this project",
    "IMG.0055": "give --min-disk in GB, at least the virtual size of the disk",
    "IMG.0056": "give a known --os-version, e.g. 'Other Linux(64 bit)'",
    "IMG.0057": "look at the file with qemu-img info; calotype bucket list BUCKET shows what is in the bucket",
    "IMG.0059": "the image is above a limit of this service; ask its operator",
    "IMG.0060": "wait until a job has ended: calotype job list --state running",
    "IMG.0069": "calotype bucket list shows the buckets; calotype bucket create NAME makes one",
    "IMG.0070": "name another key, or remove this one first: calotype bucket rm BUCKET:KEY",
    "IMG.0120": "calotype volume list shows the disks of this project",
    "IMG.0144": "calotype image list shows the images of this project",
}
NEXT_STEPS_BY_STATUS: Final[Mapping[int, str]] = {
    401: NEXT_STEPS["unauthenticated"],
    403: NEXT_STEPS["forbidden"],
    429: "try again in a minute",
    502: NEXT_STEPS["unavailable"],
    503: NEXT_STEPS["unavailable"],
    504: NEXT_STEPS["unavailable"],
}


class Failure(Exception):
    """Refused or failed: exit status 1.

    `code` is the API's code, or one of the command line's own; `next_step` says what to do, one line or empty.
    """

    def __init__(self, code: str, message: str, next_step: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status  # of the HTTP answer, if there was one
        if next_step is None:
            next_step = NEXT_STEPS.get(code) or NEXT_STEPS_BY_STATUS.get(status or 0, "")
        self.next_step = next_step
