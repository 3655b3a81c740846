"""Every statement on the tables of the catalogue, except the list query that `pages` puts together."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, text

from calotype.blobs.model import Blob, BlobId, Digests
from calotype.errors import BlobNotFound
from calotype.identity.model import ProjectId
from calotype.images.model import (
    Image,
    ImageId,
    ImageStatus,
    Location,
    Member,
    MemberStatus,
    Staged,
    UploadId,
    Visibility,
)

LONGEST_INDEXED: Final = 255  # characters; an index row of PostgreSQL holds 2704 bytes

COLUMNS: Final = """
i.id, i.project_id, i.name, i.status, i.visibility, i.protected, i.hidden, i.disk_format, i.container_format,
i.min_disk, i.min_ram, i.size, i.virtual_size, i.checksum, i.hash_algorithm, i.hash_value, i.blob_id, i.upload_id,
i.reserved_bytes, i.properties, i.tags, i.created_at, i.updated_at, i.active_at, i.deleted_at, i.version,
i.stores, i.locations, i.staged,
EXISTS (SELECT 1 FROM image_members o WHERE o.image_id = i.id) AS has_members
"""

# An image whatever its state, tombstones too.
SELECT = f"SELECT {COLUMNS} FROM images i WHERE i.id = :id"  # noqa: S608 - constants

# The hot read of an image by its id; also run by the raw drivers (see db/fast.py), hence no named parameter.
QUERY: Final = f"SELECT {COLUMNS} FROM images i WHERE i.id = ?"  # noqa: S608 - constants

# An image that a caller may see.
SELECT_VISIBLE = f"""
SELECT {COLUMNS} FROM images i
 WHERE i.id = :id AND i.status <> 'deleted'
   AND (:is_admin OR i.project_id = :project_id OR i.visibility IN ('public', 'community')
        OR (i.visibility = 'shared'
            AND EXISTS (SELECT 1 FROM image_members m WHERE m.member_id = :project_id AND m.image_id = i.id)))
"""  # noqa: S608 - constants

INSERT = """
INSERT INTO images (id, project_id, name, status, visibility, protected, hidden, disk_format, container_format,
                    min_disk, min_ram, properties, tags, created_at, updated_at)
VALUES (:id, :project_id, :name, 'queued', :visibility, :protected, :hidden, :disk_format, :container_format,
        :min_disk, :min_ram, :properties, :tags, :now, :now)
ON CONFLICT (id) DO NOTHING
"""

INSERT_PROPERTY = """
INSERT INTO image_props (project_id, name, value, created_at, image_id)
VALUES (:project_id, :name, :value, :created_at, :image_id)
"""
DELETE_PROPERTIES = "DELETE FROM image_props WHERE image_id = :image_id"

INSERT_TAG = """
INSERT INTO image_tags (project_id, tag, created_at, image_id) VALUES (:project_id, :tag, :created_at, :image_id)
"""
DELETE_TAGS = "DELETE FROM image_tags WHERE image_id = :image_id"

# What a patch may change; the row was read and locked in the same transaction.
UPDATE_METADATA = """
UPDATE images SET project_id = :project_id, name = :name, visibility = :visibility, protected = :protected,
       hidden = :hidden,
       disk_format = :disk_format, container_format = :container_format, min_disk = :min_disk, min_ram = :min_ram,
       properties = :properties, tags = :tags, updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

# A project that is shared with makes a private image a shared one.
SET_SHARED = "UPDATE images SET visibility = 'shared' WHERE id = :id AND visibility = 'private'"

# Bytes begin to arrive, or a job takes the staged ones. The guard is what keeps two uploads apart.
BEGIN = """
UPDATE images SET status = :status, upload_id = :upload_id, reserved_bytes = :reserved, touched_at = :now,
       updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

# The same upload goes on, with another reservation.
HOLD = """
UPDATE images SET reserved_bytes = :reserved, touched_at = :now
 WHERE id = :id AND status IN ('saving', 'uploading', 'importing') AND upload_id = :upload_id
"""

TOUCH = """
UPDATE images SET touched_at = :now
 WHERE id = :id AND status IN ('saving', 'uploading', 'importing') AND upload_id = :upload_id
"""

# All bytes are staged: they wait for their import.
STAGED = """
UPDATE images SET staged = :staged, reserved_bytes = 0, touched_at = :now, updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

ACTIVATE = """
UPDATE images SET status = 'active', size = :size, virtual_size = :virtual_size, checksum = :checksum,
       hash_algorithm = :hash_algorithm, hash_value = :hash_value, blob_id = :blob_id, disk_format = :disk_format,
       container_format = :container_format, min_disk = :min_disk, properties = :properties, stores = :stores,
       locations = :locations, staged = NULL, upload_id = NULL, reserved_bytes = 0, touched_at = NULL,
       active_at = :now, updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

# An upload or an import failed: the image can be tried again.
REQUEUE = """
UPDATE images SET status = 'queued', upload_id = NULL, reserved_bytes = 0, touched_at = NULL, staged = NULL,
       updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

# Other stores hold its bytes than before, or other places are named.
PLACE = """
UPDATE images SET stores = :stores, locations = :locations, properties = :properties, updated_at = :now,
       version = version + 1
 WHERE id = :id AND version = :version
"""

SET_STATUS = """
UPDATE images SET status = :status, updated_at = :now, version = version + 1 WHERE id = :id AND version = :version
"""

BURY = """
UPDATE images SET status = 'deleted', deleted_at = :now, blob_id = NULL, upload_id = NULL, reserved_bytes = 0,
       touched_at = NULL, staged = NULL, stores = '[]', locations = '[]', properties = '{}', tags = '[]',
       updated_at = :now, version = version + 1
 WHERE id = :id AND version = :version
"""

# Uploads through the API whose process has not been heard of. Ids of uploads begin with u, those of jobs with j.
STALE_UPLOADS = """
SELECT id, upload_id FROM images
 WHERE touched_at IS NOT NULL AND touched_at < :before AND staged IS NULL AND status IN ('saving', 'uploading')
   AND upload_id LIKE 'u%'
 ORDER BY touched_at LIMIT 1000
"""
# Staged bytes that no import has asked for.
FORGOTTEN = """
SELECT id, upload_id FROM images
 WHERE touched_at IS NOT NULL AND touched_at < :before AND staged IS NOT NULL AND status = 'uploading'
 ORDER BY touched_at LIMIT 1000
"""

OPEN_UPLOADS = """
SELECT upload_id, staged FROM images
 WHERE touched_at IS NOT NULL AND status IN ('saving', 'uploading', 'importing')
"""

# Which stores the images of a blob count on, and the disks of backups, which lie in `local`.
STORES_OF_BLOBS = text("""
SELECT blob_id, stores FROM images WHERE blob_id IN :ids
UNION ALL SELECT blob_id, '["local"]' FROM backup_disks WHERE blob_id IN :ids
""").bindparams(bindparam("ids", expanding=True))

# The store that a blob's row names holds it no longer.
MOVE_BLOB = "UPDATE blobs SET location = :location WHERE id = :id AND location = :gone"

# What bytes that lie elsewhere are, once they were read whole.
PIN_BLOB = """
UPDATE blobs SET md5 = :md5, hash_algorithm = :hash_algorithm, hash_value = :hash_value
 WHERE id = :id AND hash_value = ''
"""
SELECT_DIGESTS = "SELECT size, md5, hash_algorithm, hash_value FROM blobs WHERE id = :id"

# How many images of a project bytes are being brought to. By ix_images_project_status.
COUNT_ARRIVING = """
SELECT count(*) FROM images
 WHERE project_id = :project_id AND status IN ('saving', 'uploading', 'importing') AND status <> 'deleted'
"""

# Who may read the bytes of images: of each of those that have some, its owner and which of `projects` are its members.
READERS = text("""
SELECT i.id, i.project_id, i.status, i.visibility, m.member_id FROM images i
  LEFT JOIN image_members m ON m.image_id = i.id AND m.member_id IN :projects AND i.visibility = 'shared'
 WHERE i.id IN :ids AND i.status IN ('active', 'deactivated')
""").bindparams(bindparam("ids", expanding=True), bindparam("projects", expanding=True))

# --- usage ------------------------------------------------------------------------------------------------------------

OPEN_USAGE = "INSERT INTO image_usage (project_id) VALUES (:project_id) ON CONFLICT (project_id) DO NOTHING"

# Both guards hold or nothing changes; giving back (numbers below zero) is never refused.
CHANGE_USAGE = """
UPDATE image_usage SET images = images + :images, bytes = bytes + :bytes, staged_bytes = staged_bytes + :staged
 WHERE project_id = :project_id
   AND (:images <= 0 OR images + :images <= :most_images) AND (:bytes <= 0 OR bytes + :bytes <= :most_bytes)
   AND (:staged <= 0 OR staged_bytes + :staged <= :most_staged)
"""
# Waits for others that change what the project has, and does nothing else.
LOCK_USAGE = "UPDATE image_usage SET images = images WHERE project_id = :project_id"
NAME_TAKEN = """
SELECT 1 FROM images WHERE project_id = :project_id AND name = :name AND status <> 'deleted' AND id <> :id LIMIT 1
"""
SELECT_USAGE = "SELECT images, bytes, staged_bytes FROM image_usage WHERE project_id = :project_id"

# Of a project's images that have members: how many there are, and how many members the one with most has.
SELECT_SHARED = """
SELECT count(*) AS images, COALESCE(max(members), 0) AS members
  FROM (SELECT count(*) AS members FROM images i JOIN image_members m ON m.image_id = i.id
         WHERE i.project_id = :project_id AND i.status <> 'deleted' GROUP BY i.id) AS shared
"""

# --- blobs ------------------------------------------------------------------------------------------------------------

# The same bytes, stored before.
SELECT_EQUAL_BLOB = """
SELECT id FROM blobs
 WHERE hash_value = :hash_value AND size = :size AND hash_algorithm = :hash_algorithm AND md5 = :md5
   AND location = :location
 ORDER BY created_at, id LIMIT 1
"""
SELECT_BLOB = "SELECT id FROM blobs WHERE id = :id"
INSERT_BLOB = """
INSERT INTO blobs (id, size, md5, hash_algorithm, hash_value, location, created_at)
VALUES (:id, :size, :md5, :hash_algorithm, :hash_value, :location, :now)
"""
DELETE_UNUSED_BLOB = """
DELETE FROM blobs
 WHERE id = :id AND NOT EXISTS (SELECT 1 FROM images i WHERE i.blob_id = :id)
   AND NOT EXISTS (SELECT 1 FROM backup_disks d WHERE d.blob_id = :id)
"""
KNOWN_BLOBS = text("SELECT id FROM blobs WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))

# Whether the backup that an image is made from is another project's, or one of the older service.
SELECT_UNSHAREABLE = "SELECT 1 FROM backups WHERE image_id = :image_id AND (shared OR kind <> 'CBR')"

# --- members ----------------------------------------------------------------------------------------------------------

_MEMBER: Final = "image_id, member_id, status, created_at, updated_at"
SELECT_MEMBER = f"SELECT {_MEMBER} FROM image_members WHERE image_id = :image_id AND member_id = :member_id"  # noqa: S608 - constants
SELECT_MEMBERS = f"SELECT {_MEMBER} FROM image_members WHERE image_id = :image_id ORDER BY created_at, member_id"  # noqa: S608 - constants
INSERT_MEMBER = """
INSERT INTO image_members (image_id, member_id, status, created_at, updated_at, image_created_at)
SELECT id, :member_id, 'pending', :now, :now, created_at FROM images WHERE id = :image_id
ON CONFLICT (member_id, image_id) DO NOTHING
"""
UPDATE_MEMBER = """
UPDATE image_members SET status = :status, updated_at = :now WHERE image_id = :image_id AND member_id = :member_id
"""
DELETE_MEMBER = "DELETE FROM image_members WHERE image_id = :image_id AND member_id = :member_id"
DELETE_MEMBERS = "DELETE FROM image_members WHERE image_id = :image_id"


class Readers(NamedTuple):
    given_out: bool  # not deactivated
    everyone: bool
    projects: set[str]  # of those asked about


def readers(connection: Connection, image_ids: Collection[str], projects: Collection[str]) -> dict[str, Readers]:
    """Who may read these images, of these projects. Give at most a few hundred of each."""
    found: dict[str, Readers] = {}
    for row in connection.execute(READERS, {"ids": list(image_ids), "projects": list(projects)}):
        everyone = row.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY)
        one = found.setdefault(row.id, Readers(row.status == ImageStatus.ACTIVE, everyone, {row.project_id}))
        if row.member_id is not None:
            one.projects.add(row.member_id)
    return found


def run(connection: Connection, statement: str, **params: object) -> int:
    """Run a statement that changes rows; return how many it changed."""
    return int(connection.execute(text(statement), params).rowcount)


def image(connection: Connection, image_id: str) -> Image | None:
    row = connection.execute(text(SELECT), {"id": image_id}).one_or_none()
    return None if row is None else to_image(row)


def locked_image(connection: Connection, image_id: str) -> Image | None:
    """The image, and no other transaction changes it before this one ends."""
    row = connection.execute(text(SELECT + _lock(connection, "i")), {"id": image_id}).one_or_none()
    return None if row is None else to_image(row)


def visible_image(connection: Connection, image_id: str, project_id: str, *, is_admin: bool) -> Image | None:
    params = {"id": image_id, "project_id": project_id, "is_admin": is_admin}
    row = connection.execute(text(SELECT_VISIBLE), params).one_or_none()
    return None if row is None else to_image(row)


def insert_image(connection: Connection, image: Image) -> bool:
    """Store a queued image; return False when its id was used before."""
    done = run(connection, INSERT, **_metadata(image), project_id=image.project_id, now=image.created_at)
    if done:
        _insert_properties(connection, image)
        _insert_tags(connection, image)
    return bool(done)


def update_metadata(connection: Connection, before: Image, after: Image, now: int) -> None:
    params = {**_metadata(after), "project_id": after.project_id, "now": now, "version": before.version}
    run(connection, UPDATE_METADATA, **params)
    moved = after.project_id != before.project_id
    if moved or after.properties != before.properties:
        rewrite_properties(connection, after)
    if moved or after.tags != before.tags:
        run(connection, DELETE_TAGS, image_id=after.id)
        _insert_tags(connection, after)


def rewrite_properties(connection: Connection, image: Image) -> None:
    """Make the rows that filters use those of the image's properties."""
    run(connection, DELETE_PROPERTIES, image_id=image.id)
    _insert_properties(connection, image)


def clear_details(connection: Connection, image_id: str) -> None:
    """Remove the properties, tags and members of an image that is no more."""
    for statement in (DELETE_PROPERTIES, DELETE_TAGS, DELETE_MEMBERS):
        run(connection, statement, image_id=image_id)


def lock_blob(connection: Connection, blob_id: str) -> bool:
    """Return whether the blob is there; if so it stays until this transaction ends."""
    row = connection.execute(text(SELECT_BLOB + _lock(connection, "blobs")), {"id": blob_id}).one_or_none()
    return row is not None


def equal_blob(connection: Connection, blob: Blob) -> BlobId | None:
    """A blob of the same bytes, that stays until this transaction ends."""
    given = _blob_params(blob)
    row = connection.execute(text(SELECT_EQUAL_BLOB + _lock(connection, "blobs")), given).one_or_none()
    return None if row is None else BlobId(row.id)


def insert_blob(connection: Connection, blob: Blob, now: int) -> None:
    run(connection, INSERT_BLOB, id=blob.id, now=now, **_blob_params(blob))


def known_blobs(connection: Connection, ids: Sequence[str]) -> set[BlobId]:
    return {BlobId(row.id) for row in connection.execute(KNOWN_BLOBS, {"ids": list(ids)})} if ids else set()


def stores_of_blobs(connection: Connection, ids: Sequence[str]) -> dict[BlobId, set[str]]:
    """The stores that the images of these blobs count on. Give at most a few thousand at once."""
    counted: dict[BlobId, set[str]] = {}
    if ids:
        for row in connection.execute(STORES_OF_BLOBS, {"ids": list(ids)}):
            counted.setdefault(BlobId(row.blob_id), set()).update(_TAGS.decode(row.stores))
    return counted


def drop_blob(connection: Connection, blob_id: str) -> bool:
    """Remove the row of a blob that neither an image nor a backup has any more. If it was removed, the caller deletes
    the bytes after the commit."""
    lock_blob(connection, blob_id)
    return bool(run(connection, DELETE_UNUSED_BLOB, id=blob_id))


def backup_is_unshareable(connection: Connection, image_id: str) -> bool:
    return connection.execute(text(SELECT_UNSHAREABLE), {"image_id": image_id}).one_or_none() is not None


def blob_digests(connection: Connection, blob_id: str) -> Digests:
    """Of a blob that lies elsewhere and was not read yet, only the size. Raises `BlobNotFound`."""
    row = connection.execute(text(SELECT_DIGESTS), {"id": blob_id}).one_or_none()
    if row is None:
        raise BlobNotFound(blob_id)
    return Digests(size=row.size, md5=row.md5, hash_algorithm=row.hash_algorithm, hash_value=row.hash_value)


def place(connection: Connection, image: Image, now: int) -> None:
    """Store where the bytes of an image lie now."""
    run(
        connection,
        PLACE,
        id=image.id,
        version=image.version,
        stores=encoded(image.stores),
        locations=encoded(image.locations),
        properties=encoded(image.properties),
        now=now,
    )


def member(connection: Connection, image_id: str, member_id: str) -> Member | None:
    params = {"image_id": image_id, "member_id": member_id}
    row = connection.execute(text(SELECT_MEMBER), params).one_or_none()
    return None if row is None else to_member(row)


def count_arriving(connection: Connection, project_id: str) -> int:
    return int(connection.execute(text(COUNT_ARRIVING), {"project_id": project_id}).scalar_one())


def members(connection: Connection, image_id: str) -> tuple[Member, ...]:
    return tuple(to_member(row) for row in connection.execute(text(SELECT_MEMBERS), {"image_id": image_id}))


class _Raw(NamedTuple):
    """A row of `QUERY` as the raw drivers give it: the columns in their order."""

    id: str
    project_id: str
    name: str | None
    status: str
    visibility: str
    protected: bool
    hidden: bool
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    size: int | None
    virtual_size: int | None
    checksum: str | None
    hash_algorithm: str | None
    hash_value: str | None
    blob_id: str | None
    upload_id: str | None
    reserved_bytes: int
    properties: str
    tags: str
    created_at: int
    updated_at: int
    active_at: int | None
    deleted_at: int | None
    version: int
    stores: str
    locations: str
    staged: str | None
    has_members: bool


def to_image(row: Row[Any] | _Raw) -> Image:
    return Image(
        id=ImageId(row.id),
        project_id=ProjectId(row.project_id),
        name=row.name,
        status=ImageStatus(row.status),
        visibility=Visibility(row.visibility),
        protected=bool(row.protected),
        hidden=bool(row.hidden),
        disk_format=row.disk_format,
        container_format=row.container_format,
        min_disk=row.min_disk,
        min_ram=row.min_ram,
        size=row.size,
        virtual_size=row.virtual_size,
        checksum=row.checksum,
        hash_algorithm=row.hash_algorithm,
        hash_value=row.hash_value,
        blob_id=BlobId(row.blob_id) if row.blob_id else None,
        upload_id=UploadId(row.upload_id) if row.upload_id else None,
        reserved_bytes=row.reserved_bytes,
        properties=_PROPERTIES.decode(row.properties),
        tags=_TAGS.decode(row.tags),
        stores=_TAGS.decode(row.stores),
        locations=() if row.locations == "[]" else _LOCATIONS.decode(row.locations),
        staged=None if row.staged is None else _STAGED.decode(row.staged),
        has_members=bool(row.has_members),
        created_at=row.created_at,
        updated_at=row.updated_at,
        active_at=row.active_at,
        deleted_at=row.deleted_at,
        version=row.version,
    )


def raw_image(row: Sequence[Any]) -> Image:
    """The image of a row of `QUERY`."""
    return to_image(_Raw(*row))


def to_member(row: Row[Any]) -> Member:
    return Member(
        image_id=ImageId(row.image_id),
        member_id=ProjectId(row.member_id),
        status=MemberStatus(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def indexed(value: str) -> str:
    """What `image_props` holds of a value: itself, or the digest of one that is too long for an index."""
    return value if len(value) <= LONGEST_INDEXED else f"sha256:{sha256(value.encode()).hexdigest()}"


def staged_token(text_: str | None) -> str | None:
    return None if text_ is None else _STAGED.decode(text_).token


def encoded(value: Mapping[str, str] | Sequence[str] | Sequence[Location] | Staged) -> str:
    return msgspec.json.encode(value).decode()


_PROPERTIES: Final = msgspec.json.Decoder(dict[str, str])
_TAGS: Final = msgspec.json.Decoder(tuple[str, ...])
_LOCATIONS: Final = msgspec.json.Decoder(tuple[Location, ...])
_STAGED: Final = msgspec.json.Decoder(Staged)


def _lock(connection: Connection, table: str) -> str:
    """What makes a SELECT hold its row until the transaction ends. SQLite's writing transactions hold everything."""
    return "" if connection.dialect.name == "sqlite" else f" FOR UPDATE OF {table}"


def _metadata(image: Image) -> dict[str, object]:
    return {
        "id": image.id,
        "name": image.name,
        "visibility": image.visibility.value,
        "protected": image.protected,
        "hidden": image.hidden,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "properties": encoded(image.properties),
        "tags": encoded(image.tags),
    }


def _blob_params(blob: Blob) -> dict[str, object]:
    return {
        "size": blob.digests.size,
        "md5": blob.digests.md5,
        "hash_algorithm": blob.digests.hash_algorithm,
        "hash_value": blob.digests.hash_value,
        "location": blob.location,
    }


def _insert_properties(connection: Connection, image: Image) -> None:
    common = {"project_id": image.project_id, "created_at": image.created_at, "image_id": image.id}
    rows = [{"name": name, "value": indexed(value), **common} for name, value in image.properties.items()]
    if rows:
        connection.execute(text(INSERT_PROPERTY), rows)


def _insert_tags(connection: Connection, image: Image) -> None:
    common = {"project_id": image.project_id, "created_at": image.created_at, "image_id": image.id}
    rows = [{"tag": tag, **common} for tag in image.tags]
    if rows:
        connection.execute(text(INSERT_TAG), rows)
