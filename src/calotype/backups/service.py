"""The backups that the service keeps: who may see and delete which, and the steps by which jobs make and use them.

Bytes of a backup's disks are blobs like those of images, and count in the project's quota beside them: an image counts
for its system disk, a backup for all its disks, also where both have the same blob.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.backups import rules, sql
from calotype.backups.model import KeptBackup, KeptDisk, State
from calotype.blobs.local import BlobReader
from calotype.blobs.model import Blob, BlobId
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import Database, now_ms
from calotype.errors import BackupInUse, BackupNotFound, BackupUsed, OlderBackupUsed
from calotype.identity.model import Caller
from calotype.images import quota
from calotype.images import sql as images_sql
from calotype.images.service import Images
from calotype.servers.model import BackupKind, Server, Vault

log = structlog.get_logger()

MOST_PAGE: Final = 1000


class Backups:
    def __init__(self, db: Database, blobs: Stores, images: Images) -> None:
        self.db = db
        self.blobs = blobs
        self.images = images

    # --- for handlers -------------------------------------------------------------------------------------------------

    async def find(self, caller: Caller, backup_id: str) -> KeptBackup | None:
        """The backup of this id that the caller's project has here."""
        return await self.db.read(lambda c: sql.backup(c, caller.project_id or "", backup_id))

    async def get(self, caller: Caller, backup_id: str) -> KeptBackup:
        """Raises `BackupNotFound`."""
        return _there(await self.find(caller, backup_id), backup_id)

    async def page(self, caller: Caller, *, after: str, limit: int) -> list[KeptBackup]:
        """At most `limit`, at most 1000 and one, in the order of their ids."""
        most = min(limit, MOST_PAGE + 1)
        return await self.db.read(lambda c: sql.page(c, caller.project_id or "", after, most))

    async def open(self, caller: Caller, backup_id: str, slot: int) -> tuple[KeptDisk, BlobReader]:
        """A disk and its open bytes, which the caller of this closes. Raises `BackupNotFound`."""
        kept = await self.get(caller, backup_id)
        disk = next((disk for disk in kept.disks if disk.slot == slot), None)
        if disk is None:
            raise BackupNotFound(f"the backup {backup_id} has no disk {slot}")
        return disk, await to_the_end(self.blobs.open, disk.blob.id)

    async def delete(self, caller: Caller, backup_id: str) -> None:
        """Raises `BackupNotFound`, and `BackupInUse` while an image is made from it or a job is making it."""

        def work(c: Connection) -> list[BlobId]:
            kept = _there(sql.backup(c, caller.project_id or "", backup_id, locked=True), backup_id)
            if kept.image_id is not None:
                raise BackupInUse(f"the image {kept.image_id} is made from it; delete that first, or both at once")
            return self._remove_in(c, kept)

        await self._without_bytes(await self.db.write(work), backup_id)

    async def delete_image(self, caller: Caller, image_id: str) -> None:
        """Delete an image together with the backup that it was made from: both or neither. An image without one goes
        as by `Images.delete`, and raises as it does. A backup of another project than the image's stays."""

        def work(c: Connection) -> tuple[list[BlobId], str | None, str | None]:
            image = self.images.owned_in(c, caller, image_id)
            kept = sql.backup_of_image(c, image.id)
            if kept is not None and (kept.project_id != image.project_id or kept.state is not State.AVAILABLE):
                kept = None
            self._lock_in(c, [] if kept is None else [disk.blob for disk in kept.disks])
            gone = self.images.delete_in(c, caller, image_id, now_ms())
            bytes_gone = [] if gone is None else [gone]
            if kept is not None:
                bytes_gone += self._remove_in(c, kept)
            return bytes_gone, None if kept is None else kept.id, image.staged.token if image.staged else None

        gone, backup_id, staged = await self.db.write(work)
        if staged is not None:
            await to_the_end(self.blobs.discard, staged)
        await self._without_bytes(gone, backup_id)

    async def _without_bytes(self, gone: Sequence[BlobId], backup_id: str | None) -> None:
        for blob_id in gone:
            try:
                await to_the_end(self.blobs.delete, blob_id)
            except OSError as error:  # the rows are gone; bytes that nothing refers to, the sweeper removes
                log.warning(
                    "backup_bytes_not_deleted",
                    backup_id=backup_id,
                    blob_id=blob_id,
                    reason=error.strerror,
                )

    # --- for jobs -----------------------------------------------------------------------------------------------------

    def check_vault_in(self, c: Connection, vault: Vault, server: Server) -> None:
        """Pass for a vault that the backup of a server may go to, with those that are kept here. Raises the leaves of
        `rules.takes`. No other transaction begins a backup in the vault before this one ends."""
        held, protected = sql.held_by_vault(c, vault.id)
        rules.takes(vault, server, held=held, protected=protected)

    def begin_in(self, c: Connection, kept: KeptBackup) -> None:
        """Record a backup that a job is to make, for the image that it names, which is there. Raises `BackupUsed` when
        the project has one of this id: another job was faster."""
        if not sql.insert(c, kept):
            raise used(kept.kind, kept.id)

    def use_in(self, c: Connection, project_id: str, backup_id: str) -> KeptBackup | None:
        """A backup that is kept here and no image is made from, locked, so that this transaction may make one; None
        where there is no such backup. Raises `BackupUsed` when an image is made from it already."""
        kept = sql.backup(c, project_id, backup_id, locked=True)
        if kept is not None and (kept.image_id is not None or kept.state is not State.AVAILABLE):
            raise used(kept.kind, kept.id)
        return kept

    def give_in(self, c: Connection, kept: KeptBackup, image_id: str) -> None:
        """Record that an image is made from a backup of `use_in`."""
        sql.run(c, sql.USE, project_id=kept.project_id, id=kept.id, image_id=image_id)

    def of_image_in(self, c: Connection, image_id: str) -> KeptBackup:
        """The backup that an image is being made from, locked. Raises `BackupNotFound`: it was deleted meanwhile."""
        kept = sql.backup_of_image(c, image_id)
        if kept is None:
            raise BackupNotFound("the backup was deleted meanwhile")
        return kept

    def keep_in(
        self,
        c: Connection,
        kept: KeptBackup,
        disks: Sequence[KeptDisk],
        activate: Callable[[Blob], BlobId],
        now: int,
    ) -> frozenset[BlobId]:
        """Make a backup that is being created available, with these disks, whose bytes are stored, and with what is
        known of its server by now.

        `activate` makes the image active, in this transaction, with the blob of the system disk; it returns the blob
        that the image has then. The image's row is locked. Returns the blobs that the backup has: of equal bytes there
        may be others. The caller deletes the bytes of those of `disks` that are not among them after the commit.
        Raises `BackupNotFound`, `StorageQuotaExceeded`, and what `activate` raises.
        """
        self._lock_in(c, [disk.blob for disk in disks])
        stored = []
        for disk in disks:
            if disk.slot == 0:
                blob_id = activate(disk.blob)
            else:
                blob_id = images_sql.equal_blob(c, disk.blob) or disk.blob.id
                if blob_id == disk.blob.id:
                    images_sql.insert_blob(c, disk.blob, now)
            stored.append(replace(disk, blob=replace(disk.blob, id=blob_id)))
        quota.change(c, kept.project_id, self.images.limits, stored_bytes=sum(disk.size for disk in stored))
        params = {"project_id": kept.project_id, "id": kept.id, "image_id": kept.image_id}
        if not sql.run(c, sql.COMPLETE, **params, server=sql.encoded(kept.server)):
            raise BackupNotFound(f"the backup {kept.id} is no longer wanted")
        sql.insert_disks(c, kept, stored)
        return frozenset(disk.blob.id for disk in stored)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _lock_in(self, c: Connection, blobs: Sequence[Blob]) -> None:
        """Hold blobs of these bytes that are stored already, in an order that is the same for all who do it: so that
        two transactions never wait for each other."""
        for blob in sorted(blobs, key=lambda blob: (blob.digests.hash_value, blob.id)):
            images_sql.equal_blob(c, blob)

    def _remove_in(self, c: Connection, kept: KeptBackup) -> list[BlobId]:
        """Remove a backup, give back what it counted for, and return the blobs that nothing has any more."""
        self._lock_in(c, [disk.blob for disk in kept.disks])
        quota.change(c, kept.project_id, self.images.limits, stored_bytes=-kept.size)
        sql.run(c, sql.DELETE_DISKS, project_id=kept.project_id, id=kept.id)
        sql.run(c, sql.DELETE, project_id=kept.project_id, id=kept.id)
        blobs = dict.fromkeys(disk.blob.id for disk in kept.disks)
        return [blob_id for blob_id in blobs if images_sql.drop_blob(c, blob_id)]


def abandon_in(c: Connection, image_id: str) -> None:
    """Take back what a job that failed had begun for its image: a backup that it was to make goes; one that was there
    can be used again."""
    sql.run(c, sql.ABANDON, image_id=image_id)
    sql.run(c, sql.RELEASE, image_id=image_id)


def used(kind: BackupKind, backup_id: str) -> BackupUsed:
    return (BackupUsed if kind is BackupKind.CBR else OlderBackupUsed)(
        f"an image is made from the backup {backup_id} already"
    )


def _there(kept: KeptBackup | None, backup_id: str) -> KeptBackup:
    if kept is None:
        raise BackupNotFound(f"no backup {backup_id}")
    return kept
