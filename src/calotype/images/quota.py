"""What a project may hold. The row of its usage changes in the transaction that changes its images, under a guard in
the statement itself, so that the numbers are exact however many do it at once."""

from typing import NamedTuple

from sqlalchemy import Connection, text

from calotype.errors import ImageQuotaExceeded, StorageQuotaExceeded
from calotype.images import sql
from calotype.settings import ImageSettings


def change(
    connection: Connection,
    project_id: str,
    limits: ImageSettings,
    *,
    images: int = 0,
    stored_bytes: int = 0,
    staged_bytes: int = 0,
) -> None:
    """Add to what is counted, or give back with numbers below zero.

    Raises `ImageQuotaExceeded` or `StorageQuotaExceeded`, and nothing has changed.
    """
    if not images and not stored_bytes and not staged_bytes:
        return
    if images > 0 or stored_bytes > 0 or staged_bytes > 0:
        sql.run(connection, sql.OPEN_USAGE, project_id=project_id)
    changed = sql.run(
        connection,
        sql.CHANGE_USAGE,
        project_id=project_id,
        images=images,
        bytes=stored_bytes,
        staged=staged_bytes,
        most_images=limits.count_per_project,
        most_bytes=limits.stored_bytes_per_project,
        most_staged=limits.staged_bytes_per_project,
    )
    if changed:
        return
    count, held, staged = usage(connection, project_id)
    if staged_bytes > 0 and staged + staged_bytes > limits.staged_bytes_per_project:
        raise StorageQuotaExceeded(
            f"{staged_bytes} bytes more, and more than {limits.staged_bytes_per_project} bytes of the project would "
            f"wait for their import; {staged} do"
        )
    if images > 0 and count + images > limits.count_per_project:
        raise ImageQuotaExceeded(f"the project has {count} images, and {limits.count_per_project} is its quota")
    raise StorageQuotaExceeded(
        f"{stored_bytes} bytes more, and the images of the project would hold more than its quota of "
        f"{limits.stored_bytes_per_project} bytes; they hold {held}"
    )


def lock(connection: Connection, project_id: str) -> None:
    """One change of what the project has at a time, until the transaction ends."""
    sql.run(connection, sql.LOCK_USAGE, project_id=project_id)


class Shared(NamedTuple):
    images: int  # that have members
    members: int  # of the one that has most


def shared(connection: Connection, project_id: str) -> Shared:
    row = connection.execute(text(sql.SELECT_SHARED), {"project_id": project_id}).one()
    return Shared(row.images, row.members)


class Usage(NamedTuple):
    images: int
    stored_bytes: int  # held or reserved
    staged_bytes: int  # that wait for their import, or are reserved for that


def usage(connection: Connection, project_id: str) -> Usage:
    row = connection.execute(text(sql.SELECT_USAGE), {"project_id": project_id}).one_or_none()
    return Usage(0, 0, 0) if row is None else Usage(row.images, row.bytes, row.staged_bytes)
