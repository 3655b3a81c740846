"""Downloads under way, which end when the right to them does: the image was deactivated or deleted, or is no longer
shared with the one who reads it. One query for all of a process every `image.recheck_s`, whatever their number."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection

from calotype.db.engine import Database
from calotype.errors import Forbidden, Unavailable
from calotype.identity.model import Caller
from calotype.images import sql
from calotype.images.model import ImageId

log = structlog.get_logger()

AT_ONCE: Final = 500  # downloads that one query asks about; more are several


class _Running(Struct, eq=False):
    caller: Caller
    image_id: ImageId
    task: "asyncio.Task[object]"
    cut: bool = False


class Downloads:
    """Whoever has one runs `keep_checking` beside it."""

    def __init__(self, db: Database, recheck_s: float) -> None:
        self._db = db
        self._recheck_s = recheck_s
        self._running: set[_Running] = set()

    @contextmanager
    def watched(self, caller: Caller, image_id: ImageId) -> Iterator[None]:
        """Around what sends the bytes, in the task that does. Raises `Forbidden` when the right to them ended."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - what is awaited runs in a task
        running = _Running(caller=caller, image_id=image_id, task=task)
        self._running.add(running)
        try:
            yield
        except asyncio.CancelledError:
            if running.cut and task.uncancel() == 0:
                raise Forbidden("the image was withdrawn while it was downloaded") from None
            raise
        finally:
            self._running.discard(running)

    async def keep_checking(self) -> None:
        """For ever. While the database is away nothing is known to have changed: downloads go on."""
        while True:
            await asyncio.sleep(self._recheck_s)
            try:
                await self.check()
            except Unavailable as error:
                log.warning("downloads_not_checked", reason=error.message)

    async def check(self) -> None:
        """Cut every download whose right has ended."""
        running = list(self._running)
        for start in range(0, len(running), AT_ONCE):
            part = running[start : start + AT_ONCE]
            allowed = await self._db.read(lambda c, part=part: _allowed_in(c, part))  # type: ignore[misc]  # bound at once
            for one in part:
                if one not in allowed and one in self._running and not one.cut:
                    one.cut = True
                    one.task.cancel()
                    log.info("download_cut", image_id=one.image_id, project_id=one.caller.project_id)


def _allowed_in(connection: Connection, running: Sequence[_Running]) -> set[_Running]:
    images = {one.image_id for one in running}
    projects = {one.caller.project_id or "" for one in running}
    readers = sql.readers(connection, images, projects)
    return {one for one in running if _may_read(one.caller, readers.get(one.image_id))}


def _may_read(caller: Caller, found: sql.Readers | None) -> bool:
    if found is None or caller.is_admin:
        return found is not None
    return found.given_out and (found.everyone or caller.project_id in found.projects)
