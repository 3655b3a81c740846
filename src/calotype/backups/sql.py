"""Every statement on the tables of backups, save those by which images ask about blobs and sharing (images/sql.py)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, text

from calotype.backups.model import KeptBackup, KeptDisk, Origin, State
from calotype.blobs.model import Blob, BlobId, Digests
from calotype.images.model import ImageId
from calotype.servers.model import BackupId, BackupKind, Server, VaultId

# An image that was deleted has given its backup free: its row still names it.
_COLUMNS: Final = """
b.project_id, b.id, b.name, b.kind, b.origin, b.state, b.shared, b.server, b.vault_id, b.created_at,
(SELECT i.id FROM images i WHERE i.id = b.image_id AND i.status <> 'deleted') AS image_id
"""
_OF: Final = "b.project_id = :project_id AND b.id = :id"

SELECT = f"SELECT {_COLUMNS} FROM backups b WHERE {_OF}"  # noqa: S608 - constants
SELECT_OF_IMAGE = f"SELECT {_COLUMNS} FROM backups b WHERE b.image_id = :image_id"  # noqa: S608 - constants

# A page in the order of ids. `after` is "" for the first.
SELECT_PAGE = f"""
SELECT {_COLUMNS} FROM backups b WHERE b.project_id = :project_id AND b.id > :after ORDER BY b.id LIMIT :limit
"""  # noqa: S608 - constants

SELECT_DISKS = """
SELECT d.backup_id, d.slot, d.volume_id, d.name, d.virtual_size, d.disk_format,
       o.id AS blob_id, o.size, o.md5, o.hash_algorithm, o.hash_value, o.location
  FROM backup_disks d JOIN blobs o ON o.id = d.blob_id
 WHERE d.project_id = :project_id AND d.backup_id >= :first AND d.backup_id <= :last
 ORDER BY d.backup_id, d.slot
"""

# Of a backup of the source, only one of those who want to copy it gets the row.
INSERT = """
INSERT INTO backups (project_id, id, name, kind, origin, state, shared, server_id, server, vault_id, size, image_id,
                     created_at)
VALUES (:project_id, :id, :name, :kind, :origin, 'creating', :shared, :server_id, :server, :vault_id, :size, :image_id,
        :created_at)
ON CONFLICT (project_id, id) DO NOTHING
"""

# Its disks are there. Guarded: the job's failure may have taken the row back.
COMPLETE = """
UPDATE backups SET state = 'available', server = :server
 WHERE project_id = :project_id AND id = :id AND image_id = :image_id AND state = 'creating'
"""
INSERT_DISK = """
INSERT INTO backup_disks (project_id, backup_id, slot, volume_id, name, blob_id, size, virtual_size, disk_format)
VALUES (:project_id, :backup_id, :slot, :volume_id, :name, :blob_id, :size, :virtual_size, :disk_format)
"""

# An image is to be made from a backup that is here; the row was read and locked in the same transaction.
USE = "UPDATE backups SET image_id = :image_id WHERE project_id = :project_id AND id = :id"

# What a job had begun that failed.
ABANDON = "DELETE FROM backups WHERE image_id = :image_id AND state = 'creating'"
RELEASE = "UPDATE backups SET image_id = NULL WHERE image_id = :image_id"

DELETE_DISKS = "DELETE FROM backup_disks WHERE project_id = :project_id AND backup_id = :id"
DELETE = "DELETE FROM backups WHERE project_id = :project_id AND id = :id"

# What the backups of a vault take of it, of whatever project.
SELECT_HELD = "SELECT COALESCE(sum(size), 0) AS bytes FROM backups WHERE vault_id = :vault_id"
SELECT_PROTECTED = "SELECT DISTINCT server_id FROM backups WHERE vault_id = :vault_id"


def backup(c: Connection, project_id: str, backup_id: str, *, locked: bool = False) -> KeptBackup | None:
    """`locked`: no other transaction changes it before this one ends."""
    found = c.execute(text(SELECT + (_lock(c) if locked else "")), {"project_id": project_id, "id": backup_id})
    row = found.one_or_none()
    return None if row is None else _with_disks(c, project_id, [row])[0]


def backup_of_image(c: Connection, image_id: str) -> KeptBackup | None:
    """The backup that an image was made from, locked."""
    row = c.execute(text(SELECT_OF_IMAGE + _lock(c)), {"image_id": image_id}).one_or_none()
    return None if row is None else _with_disks(c, row.project_id, [row])[0]


def page(c: Connection, project_id: str, after: str, limit: int) -> list[KeptBackup]:
    params = {"project_id": project_id, "after": after, "limit": limit}
    return _with_disks(c, project_id, c.execute(text(SELECT_PAGE), params).all())


def insert(c: Connection, kept: KeptBackup) -> bool:
    """False when the project has a backup of this id."""
    done = c.execute(
        text(INSERT),
        {
            "project_id": kept.project_id,
            "id": kept.id,
            "name": kept.name,
            "kind": kept.kind.value,
            "origin": kept.origin.value,
            "shared": kept.shared,
            "server_id": kept.server.id,
            "server": encoded(kept.server),
            "vault_id": kept.vault_id,
            "size": kept.server_bytes,
            "image_id": kept.image_id,
            "created_at": kept.created_at,
        },
    )
    return bool(done.rowcount)


def insert_disks(c: Connection, kept: KeptBackup, disks: Sequence[KeptDisk]) -> None:
    rows = [
        {
            "project_id": kept.project_id,
            "backup_id": kept.id,
            "slot": disk.slot,
            "volume_id": disk.volume_id,
            "name": disk.name,
            "blob_id": disk.blob.id,
            "size": disk.size,
            "virtual_size": disk.virtual_size,
            "disk_format": disk.disk_format,
        }
        for disk in disks
    ]
    c.execute(text(INSERT_DISK), rows)


def run(c: Connection, statement: str, **params: object) -> int:
    """Run a statement that changes rows; return how many it changed."""
    return int(c.execute(text(statement), params).rowcount)


def encoded(server: Server) -> str:
    return msgspec.json.encode(server).decode()


def held_by_vault(c: Connection, vault_id: str) -> tuple[int, frozenset[str]]:
    """Bytes that backups take of a vault, and the servers that they are of. On PostgreSQL no other transaction asks
    before this one ends; SQLite has one writer anyway."""
    if c.dialect.name == "postgresql":
        c.execute(text("SELECT pg_advisory_xact_lock(hashtext(:vault_id), 1)"), {"vault_id": vault_id})
    held = int(c.execute(text(SELECT_HELD), {"vault_id": vault_id}).scalar_one())
    return held, frozenset(c.execute(text(SELECT_PROTECTED), {"vault_id": vault_id}).scalars())


def _with_disks(c: Connection, project_id: str, rows: Sequence[Row[Any]]) -> list[KeptBackup]:
    """The backups of rows in the order of their ids, of one project."""
    if not rows:
        return []
    disks: dict[str, list[KeptDisk]] = {}
    params = {"project_id": project_id, "first": rows[0].id, "last": rows[-1].id}
    for row in c.execute(text(SELECT_DISKS), params):
        disks.setdefault(row.backup_id, []).append(_to_disk(row))
    return [_to_backup(row, tuple(disks.get(row.id, ()))) for row in rows]


def _to_backup(row: Row[Any], disks: tuple[KeptDisk, ...]) -> KeptBackup:
    return KeptBackup(
        id=BackupId(row.id),
        project_id=row.project_id,
        name=row.name,
        kind=BackupKind(row.kind),
        origin=Origin(row.origin),
        state=State(row.state),
        shared=bool(row.shared),
        server=_SERVER.decode(row.server),
        vault_id=VaultId(row.vault_id) if row.vault_id else None,
        image_id=ImageId(row.image_id) if row.image_id else None,
        created_at=row.created_at,
        disks=disks,
    )


def _to_disk(row: Row[Any]) -> KeptDisk:
    digests = Digests(size=row.size, md5=row.md5, hash_algorithm=row.hash_algorithm, hash_value=row.hash_value)
    return KeptDisk(
        slot=row.slot,
        volume_id=row.volume_id,
        name=row.name,
        blob=Blob(id=BlobId(row.blob_id), digests=digests, location=row.location),
        virtual_size=row.virtual_size,
        disk_format=row.disk_format,
    )


def _lock(c: Connection) -> str:
    return "" if c.dialect.name == "sqlite" else " FOR UPDATE OF b"


_SERVER: Final = msgspec.json.Decoder(Server)
