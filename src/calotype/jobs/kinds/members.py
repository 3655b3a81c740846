"""imsAddImageMembersJob, imsDelImageMembersJob, imsUpdateImageMembersJob: many images are shared with many projects at
once, or no longer; or a project answers many offers. All in one transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.identity.model import Caller
from calotype.images import sharing
from calotype.images.model import MemberStatus
from calotype.images.service import Images
from calotype.images.sharing import Pair
from calotype.jobs.model import Job, JobId, JobType
from calotype.jobs.run import Result, Run
from calotype.jobs.service import Jobs


async def submit_add(
    caller: Caller, image_ids: Sequence[str], projects: Sequence[str], *, images: Images, jobs: Jobs
) -> JobId:
    """Accept the sharing of every image with every project, or raise the first reason against it: what
    `sharing.to_share_in` raises."""

    def work(c: Connection) -> JobId:
        found = sharing.to_share_in(images, c, caller, image_ids, projects)
        owners = {image.id: image.project_id for image in found}
        return _submitted(c, jobs, caller, JobType.ADD_MEMBERS, {"owners": owners, "projects": list(projects)})

    return await images.db.write(work)


async def submit_remove(
    caller: Caller, image_ids: Sequence[str], projects: Sequence[str], *, images: Images, jobs: Jobs
) -> JobId:
    """As `submit_add`, the other way. Raises `UnknownImage`, `NotImageOwner`."""

    def work(c: Connection) -> JobId:
        found = sharing.own_in(images, c, caller, image_ids)
        owners = {image.id: image.project_id for image in found}
        return _submitted(c, jobs, caller, JobType.REMOVE_MEMBERS, {"owners": owners, "projects": list(projects)})

    return await images.db.write(work)


async def submit_answer(
    caller: Caller, image_ids: Sequence[str], status: MemberStatus, *, images: Images, jobs: Jobs
) -> JobId:
    """Accept the caller's answer to the offers of images. Raises `UnknownImage`."""

    def work(c: Connection) -> JobId:
        found = sharing.offered_in(images, c, caller, image_ids)
        owners = {image.id: image.project_id for image in found}
        return _submitted(c, jobs, caller, JobType.ANSWER_OFFERS, {"owners": owners, "status": status.value})

    return await images.db.write(work)


def _submitted(c: Connection, jobs: Jobs, caller: Caller, kind: JobType, request: dict[str, Any]) -> JobId:
    asked = {"images": list(request["owners"]), **request}
    return jobs.submit_in(c, caller, kind, request=asked, entities={}, image_id=None)


class ChangeMembers:
    def __init__(self, kind: JobType, *, db: Database, images: Images) -> None:
        self.type = kind
        self.db = db
        self.images = images

    async def step(self, name: str, run: Run) -> Result:
        """The one step of the plan, publish. It fails when not one pair could be done; else each tells how it went."""
        run.committing = True

        def finish(c: Connection) -> None:
            now = now_ms()
            done = self._done_in(c, run.job, now)
            refused = [pair.error for pair in done if pair.error is not None]
            if refused and len(refused) == len(done):
                raise refused[0]
            run.succeed_in(c, entities={"results": [_result(pair) for pair in done]}, image_id=None, now=now)

        await self.db.write(finish)
        return {}

    def _done_in(self, c: Connection, job: Job, now: int) -> list[Pair]:
        owners = sorted(job.request["owners"].items())  # one order for all who lock them
        if self.type is JobType.ANSWER_OFFERS:
            status = MemberStatus(job.request["status"])
            return [sharing.answer_in(c, image_id, job.project_id, status, now) for image_id, _ in owners]
        projects = job.request["projects"]
        if self.type is JobType.ADD_MEMBERS:
            return [
                pair
                for image_id, owner in owners
                for pair in sharing.share_in(self.images, c, image_id, owner, projects, now)
            ]
        for image_id, owner in owners:
            sharing.unshare_in(c, image_id, owner, projects)
        return []

    def clean(self, job: Job) -> None:
        """It leaves no files."""


def _result(pair: Pair) -> dict[str, str]:
    return {
        "image_id": pair.image_id,
        "project_id": pair.project_id,
        "status": "success" if pair.error is None else "fail",
    }
