"""Room on disk for what jobs write before it is published: taken before a step writes, counted, given back at the end.

A *place* is a file system that jobs write to: that of the folder `scratch`, and that of the blob store's staging folder
where it is another one. Its name is a file in the folder, so that workers that share the folder share the account.
A job that finds no room waits, for a bounded time, and its record says for what.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from msgspec import Struct
from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.errors import ScratchFull
from calotype.jobs import sql
from calotype.settings import JobSettings

NAME: Final = ".place"  # of the file that tells a place's name
LOOK_EVERY_S: Final = 1.0  # how often a job that waits looks again
STAT_BLOCK: Final = 512  # bytes of an st_blocks, whatever the file system's own are

Tell = Callable[[str], None]  # is told what a job waits for; "": it goes on


class Disk(Struct, frozen=True, kw_only=True):
    """A file system as it is now, in bytes."""

    size: int
    free: int


class Account(Struct, frozen=True, kw_only=True):
    """What a place has, and what of it is promised."""

    disk: Disk
    used: Mapping[str, int]  # job id -> bytes that it has on the disk already
    reserved: Mapping[str, int]  # of other open jobs: id -> bytes that it may have there, those included

    def missing(self, job_id: str, more: int, settings: JobSettings) -> int:
        """How many bytes there are too few for `more` beside what the job has; at most 0: it may have them."""
        promised = sum(max(0, total - self.used.get(other, 0)) for other, total in self.reserved.items())
        missing = more + promised + settings.scratch_keep_free_bytes - self.disk.free
        if settings.scratch_bytes:
            whole = self.used.get(job_id, 0) + more + sum(self.reserved.values())
            missing = max(missing, whole - settings.scratch_bytes)
        return missing

    def never(self, job_id: str, more: int, settings: JobSettings) -> bool:
        """Whether it would not have them even if it were alone with an empty disk."""
        whole = self.used.get(job_id, 0) + more
        most = self.disk.size - settings.scratch_keep_free_bytes
        return whole > (min(most, settings.scratch_bytes) if settings.scratch_bytes else most)


class ScratchSpace:
    """The account of the places that the jobs of one worker write to. `folder` has a folder for each job; the files in
    `staging` begin with `j<job id>-`."""

    def __init__(self, db: Database, settings: JobSettings, folder: Path, staging: Path) -> None:
        self.folder = folder
        self.staging = staging
        self._db = db
        self._settings = settings

    async def reserve(self, job_id: str, tell: Tell, *, scratch: int = 0, staging: int = 0) -> None:
        """Return once the job may write so many bytes more to its folder, and to staging; what it has there counts.

        While it waits, `tell` is told what for, and "" at the end. Raises `ScratchFull` after
        `jobs.scratch_wait_s`, or at once when it could never be.
        """
        for folders, more in await asyncio.to_thread(self._places, scratch, staging):
            if more > 0:
                await self._reserve(job_id, tell, folders, more)

    async def _reserve(self, job_id: str, tell: Tell, folders: tuple[Path, ...], more: int) -> None:
        place = await asyncio.to_thread(_name_of, folders[0])
        until = time.monotonic() + self._settings.scratch_wait_s
        try:
            while missing := await self._missing(job_id, place, folders, more):
                if time.monotonic() >= until:
                    raise ScratchFull(
                        f"the step needs {more} bytes of scratch space, {missing} more than are free, also after "
                        f"{self._settings.scratch_wait_s:.0f} s; free space and submit the job again"
                    )
                tell(f"{missing} bytes more of scratch space")
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            tell("")

    async def _missing(self, job_id: str, place: str, folders: tuple[Path, ...], more: int) -> int:
        disk, used = await asyncio.to_thread(self._looked, folders)

        def work(c: Connection) -> int:
            account = Account(disk=disk, used=used, reserved=sql.reserved(c, place, but=job_id))
            if account.never(job_id, more, self._settings):
                limit = f", and jobs.scratch_bytes allows {self._settings.scratch_bytes}"
                raise ScratchFull(
                    f"the step needs {more} bytes of scratch space; the disk has {disk.size} in all"
                    f"{limit if self._settings.scratch_bytes else ''}"
                )
            missing = account.missing(job_id, more, self._settings)
            if missing <= 0:
                sql.reserve(c, job_id, place, used.get(job_id, 0) + more, now_ms())
            return max(0, missing)

        return await self._db.write(work)

    def _places(self, scratch: int, staging: int) -> list[tuple[tuple[Path, ...], int]]:
        """What is asked for of each file system, with the folders of it that jobs write to."""
        for folder in (self.folder, self.staging):
            folder.mkdir(parents=True, exist_ok=True)
        if self.folder.stat().st_dev == self.staging.stat().st_dev:
            return [((self.folder, self.staging), scratch + staging)]
        return [((self.folder,), scratch), ((self.staging,), staging)]

    def _looked(self, folders: tuple[Path, ...]) -> tuple[Disk, dict[str, int]]:
        used: dict[str, int] = {}
        for folder in folders:
            for job_id, size in _in_scratch(folder) if folder == self.folder else _in_staging(folder):
                used[job_id] = used.get(job_id, 0) + size
        found = os.statvfs(folders[0])
        return Disk(size=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize), used


def _in_scratch(folder: Path) -> Iterator[tuple[str, int]]:
    for job in _entries(folder):
        if job.is_dir(follow_symlinks=False):
            for path, _, files in os.walk(job.path):
                for name in files:
                    yield job.name, _allocated(os.path.join(path, name))  # noqa: PTH118 - of os.walk


def _in_staging(folder: Path) -> Iterator[tuple[str, int]]:
    for entry in _entries(folder):
        if entry.name.startswith("j"):
            yield entry.name[1:].partition("-")[0], _allocated(entry.path)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return list(entries)


def _allocated(path: str) -> int:
    """The bytes that would be free again if the file went: none while it has another name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    return found.st_blocks * STAT_BLOCK if found.st_nlink == 1 else 0


def _name_of(folder: Path) -> str:
    """Made up by whoever asks first."""
    path = folder / NAME
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    made = folder / f"{NAME}.{uuid4().hex}"
    made.write_text(uuid4().hex)
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_text()
