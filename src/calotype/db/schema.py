"""Every table, for SQLite and PostgreSQL alike. Times are integer milliseconds since 1970, UTC. JSON is text.

The migrations in `migrations/versions` build the same schema; a test compares the two.
Only the `sql.py` of the folder named above a table touches it.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

REVISION: Final = "0010"  # of the newest migration: what this code works with

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: str) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values.split())})"


# --- identity ---------------------------------------------------------------------------------------------------------

Table(
    "domains",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
)

Table(
    "projects",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("domain_id", Text, ForeignKey("domains.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    UniqueConstraint("domain_id", "name"),
)

Table(
    "users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("domain_id", Text, ForeignKey("domains.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("password_hash", Text),  # argon2; null: cannot log in with a password
    Column("email", Text),
    Column("description", Text),
    Column("default_project_id", Text),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("domain_id", "name"),
)

Table(
    "roles",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
)

Table(
    "role_assignments",
    METADATA,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("role_id", Text, ForeignKey("roles.id", ondelete="CASCADE"), nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_id", Text, nullable=False),  # of a project or a domain
    PrimaryKeyConstraint("user_id", "target_kind", "target_id", "role_id"),
    CheckConstraint(_one_of("target_kind", "project domain"), name="target_kind"),
    Index(None, "target_kind", "target_id"),
)

# Tokens issued before `before` to the subject are void. Subjects: one token's audit id, a user, a project, a role...
Table(
    "revocations",
    METADATA,
    Column("subject_kind", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("before", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # when the last token concerned has expired by itself
    PrimaryKeyConstraint("subject_kind", "subject_id"),
    CheckConstraint(_one_of("subject_kind", "token user project domain"), name="subject_kind"),
)

Table(
    "signing_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("secret", Text, nullable=False),  # base64url, 32 bytes
    Column("created_at", BigInteger, nullable=False),
)

Table(
    "access_keys",
    METADATA,
    Column("access", Text, primary_key=True),
    Column("secret", Text, nullable=False),  # sealed with a signing key; never in clear
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),  # where none is named
    Column("created_at", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # wrong signatures, since ...
    Column("failing_since", BigInteger, nullable=False, server_default="0"),
    Column("locked_until", BigInteger, nullable=False, server_default="0"),
    Index(None, "user_id"),
    Index(None, "project_id"),
)

# --- buckets ----------------------------------------------------------------------------------------------------------

Table(
    "buckets",
    METADATA,
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("folder_id", Text, nullable=False, unique=True),  # generated name of its folder, never the bucket's name
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "name"),
)

# --- blobs ------------------------------------------------------------------------------------------------------------

Table(
    "blobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("md5", Text, nullable=False),
    Column("hash_algorithm", Text, nullable=False),
    Column("hash_value", Text, nullable=False),
    Column("location", Text, nullable=False),  # which store holds it: "local"
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("size >= 0", name="size"),
    Index(None, "hash_value", "size"),
)

# --- images -----------------------------------------------------------------------------------------------------------


def _of_images(name: str, *columns: str | TextClause) -> Index:
    """An index without tombstones: a statement uses it when it says `status <> 'deleted'` as well."""
    there = text("status <> 'deleted'")
    return Index(name, *columns, sqlite_where=there, postgresql_where=there)


Table(
    "images",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),  # the owner; an admin may name another
    Column("name", Text),
    Column("status", Text, nullable=False),
    Column("visibility", Text, nullable=False),
    Column("protected", Boolean, nullable=False, server_default=text("false")),
    Column("hidden", Boolean, nullable=False, server_default=text("false")),  # os_hidden
    Column("disk_format", Text),
    Column("container_format", Text),
    Column("min_disk", BigInteger, nullable=False, server_default="0"),  # GB
    Column("min_ram", BigInteger, nullable=False, server_default="0"),  # MB
    Column("size", BigInteger),
    Column("virtual_size", BigInteger),
    Column("checksum", Text),  # md5
    Column("hash_algorithm", Text),
    Column("hash_value", Text),
    Column("blob_id", Text, ForeignKey("blobs.id")),
    Column("upload_id", Text),  # of the upload or job that is bringing the bytes
    Column("reserved_bytes", BigInteger, nullable=False, server_default="0"),  # counted in the quota, not yet `size`
    Column("touched_at", BigInteger),  # when the upload last brought a byte
    Column("properties", Text, nullable=False, server_default="{}"),  # every attribute that is no column, strings
    Column("tags", Text, nullable=False, server_default="[]"),
    Column("created_at", BigInteger, nullable=False),  # never changes
    Column("updated_at", BigInteger, nullable=False),
    Column("active_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("stores", Text, nullable=False, server_default="[]"),  # ids of the stores that hold it, heaviest first
    Column("locations", Text, nullable=False, server_default="[]"),  # where its bytes lie elsewhere, in order
    Column("staged", Text),  # what waits for its import
    CheckConstraint(
        _one_of("status", "queued saving uploading importing active deactivated killed deleted pending_delete"),
        name="status",
    ),
    CheckConstraint(_one_of("visibility", "public private shared community"), name="visibility"),
    CheckConstraint("status NOT IN ('active', 'deactivated') OR blob_id IS NOT NULL", name="active_has_bytes"),
    CheckConstraint("(deleted_at IS NOT NULL) = (status = 'deleted')", name="deleted_at"),
    CheckConstraint("reserved_bytes >= 0", name="reserved_bytes"),
    _of_images("ix_images_project_page", "project_id", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_visibility_page", "visibility", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_project_name", "project_id", "name", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_project_status", "project_id", "status", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_project_visibility", "project_id", "visibility", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_status_page", "status", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_name_page", "name", text("created_at DESC"), text("id DESC")),
    _of_images("ix_images_checksum", "checksum"),
    _of_images("ix_images_hash_value", "hash_value"),
    Index("ix_images_blob_id", "blob_id"),
    Index("ix_images_touched", "touched_at", sqlite_where=text("touched_at IS NOT NULL"),
          postgresql_where=text("touched_at IS NOT NULL")),
)  # fmt: skip

Table(
    "image_props",
    METADATA,
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("image_id", Text, nullable=False),
    PrimaryKeyConstraint("project_id", "name", "value", "created_at", "image_id"),
    Index(None, "image_id"),
    Index("ix_image_props_page", "name", "value", "created_at", "image_id"),  # of all projects
    sqlite_with_rowid=False,
)

Table(
    "image_tags",
    METADATA,
    Column("project_id", Text, nullable=False),
    # Compares by its bytes, as on SQLite: the tags of a key are a range.
    Column("tag", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("image_id", Text, nullable=False),
    PrimaryKeyConstraint("project_id", "tag", "created_at", "image_id"),
    Index(None, "image_id"),
    Index("ix_image_tags_page", "tag", "created_at", "image_id"),  # of all projects
    sqlite_with_rowid=False,
)

Table(
    "image_members",
    METADATA,
    Column("member_id", Text, nullable=False),  # a project
    Column("image_id", Text, ForeignKey("images.id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("image_created_at", BigInteger, nullable=False, server_default="0"),  # as the image has it
    PrimaryKeyConstraint("member_id", "image_id"),
    CheckConstraint(_one_of("status", "pending accepted rejected"), name="status"),
    Index(None, "image_id"),
    Index("ix_image_members_page", "member_id", "status", text("image_created_at DESC"), text("image_id DESC")),
)

# What the quotas are checked against; changed in the transaction that changes the images.
Table(
    "image_usage",
    METADATA,
    Column("project_id", Text, primary_key=True),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),  # stored and reserved
    Column("staged_bytes", BigInteger, nullable=False, server_default="0"),  # staged, and reserved for staging
    CheckConstraint("images >= 0", name="images"),
    CheckConstraint("bytes >= 0", name="bytes"),
)

# --- backups ----------------------------------------------------------------------------------------------------------

# Backups of servers that the service keeps. `images/sql.py` asks which blobs they have, and whose they are.
Table(
    "backups",
    METADATA,
    Column("project_id", Text, nullable=False),
    # A random one, or that of the backup of the source that it was copied from. Compares by its bytes, as on SQLite.
    Column("id", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("shared", Boolean, nullable=False, server_default=text("false")),  # another project's, who shared it
    Column("server_id", Text, nullable=False),
    Column("server", Text, nullable=False),  # as it was
    Column("vault_id", Text),
    Column("size", BigInteger, nullable=False),  # bytes that guests see in its disks: what it takes of a vault
    Column("image_id", Text, ForeignKey("images.id"), unique=True),  # made from it; it may be deleted since
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "id"),
    CheckConstraint(_one_of("kind", "CBR CSBS"), name="kind"),
    CheckConstraint(_one_of("origin", "server source"), name="origin"),
    CheckConstraint(_one_of("state", "creating available"), name="state"),
    CheckConstraint("size >= 0", name="size"),
    Index("ix_backups_vault_id", "vault_id", "server_id"),
)

Table(
    "backup_disks",
    METADATA,
    Column("project_id", Text, nullable=False),
    Column("backup_id", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("volume_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("blob_id", Text, ForeignKey("blobs.id"), nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes stored
    Column("virtual_size", BigInteger, nullable=False),
    Column("disk_format", Text, nullable=False),
    PrimaryKeyConstraint("project_id", "backup_id", "slot"),
    ForeignKeyConstraint(
        ["project_id", "backup_id"],
        ["backups.project_id", "backups.id"],
        name="fk_backup_disks_backup",
        ondelete="CASCADE",
    ),
    Index("ix_backup_disks_blob_id", "blob_id"),
)

# --- cache ------------------------------------------------------------------------------------------------------------

# What a node keeps, or is to keep, of images whose bytes lie in remote stores.
Table(
    "cached_images",
    METADATA,
    Column("node", Text, nullable=False),  # URL of the API node
    Column("image_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),  # bytes
    Column("hits", BigInteger, nullable=False, server_default="0"),
    Column("queued_at", BigInteger, nullable=False),
    Column("cached_at", BigInteger),
    Column("read_at", BigInteger),
    PrimaryKeyConstraint("node", "image_id"),
    CheckConstraint(_one_of("state", "queued cached"), name="state"),
    Index(None, "image_id"),
)

# --- metadefs ---------------------------------------------------------------------------------------------------------

Table(
    "metadef_namespaces",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("display_name", Text),
    Column("description", Text),
    Column("visibility", Text, nullable=False),
    Column("protected", Boolean, nullable=False, server_default=text("false")),
    Column("owner", Text, nullable=False),  # a project
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint(_one_of("visibility", "public private"), name="visibility"),
    Index("ix_metadef_namespaces_page", "created_at", "id"),
)

Table(
    "metadef_definitions",
    METADATA,
    Column("id", Integer, primary_key=True),  # in the order in which they came
    Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("document", Text, nullable=False),  # all but the name and the times
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint(_one_of("kind", "object property tag"), name="kind"),
    UniqueConstraint("namespace_id", "kind", "name", name="uq_metadef_definitions_namespace_id_kind_name"),
)

Table(
    "metadef_resource_types",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("protected", Boolean, nullable=False, server_default=text("false")),  # the service brought it
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

Table(
    "metadef_associations",
    METADATA,
    Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), nullable=False),
    Column("resource_type", Text, ForeignKey("metadef_resource_types.name"), nullable=False),
    Column("prefix", Text),
    Column("properties_target", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("namespace_id", "resource_type"),
    Index(None, "resource_type"),
)

# Namespaces that the service brought once. They are not brought again, whatever became of them.
Table(
    "metadef_defaults",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("loaded_at", BigInteger, nullable=False),
)

# --- jobs -------------------------------------------------------------------------------------------------------------

Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),  # 32 hex
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # the IMS job_type
    Column("status", Text, nullable=False),
    Column("begin_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("error_code", Text),
    Column("fail_reason", Text),
    Column("entities", Text, nullable=False, server_default="{}"),
    Column("request", Text, nullable=False),
    Column("parent_id", Text),
    Column("image_id", Text),
    Column("percent", Integer, nullable=False, server_default="0"),  # hundredths of a percent: 0 to 10000
    Column("current_task", Text, nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("worker", Text),  # executor id of the attempt
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_reason", Text),
    Column("request_id", Text),
    Column("priority", Integer, nullable=False, server_default="5"),
    Column("expires_at", BigInteger),
    Column("version", BigInteger, nullable=False, server_default="1"),
    CheckConstraint(_one_of("status", "INIT RUNNING SUCCESS FAIL"), name="status"),
    CheckConstraint("(end_time IS NOT NULL) = (status IN ('SUCCESS', 'FAIL'))", name="end_time"),
    CheckConstraint("(error_code IS NOT NULL) = (status = 'FAIL')", name="error_code"),
    CheckConstraint("percent BETWEEN 0 AND 10000", name="percent"),
    UniqueConstraint("project_id", "request_id"),
    Index("ix_jobs_page", text("begin_time DESC"), text("id DESC")),
    Index("ix_jobs_project_page", "project_id", text("begin_time DESC"), text("id DESC")),
    Index("ix_jobs_project_status_page", "project_id", "status", text("begin_time DESC"), text("id DESC")),
    Index("ix_jobs_image_id", "image_id"),
    Index("ix_jobs_parent_id", "parent_id"),
    Index("ix_jobs_expires_at", "expires_at", sqlite_where=text("expires_at IS NOT NULL"),
          postgresql_where=text("expires_at IS NOT NULL")),
)  # fmt: skip

Table(
    "job_steps",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("done_bytes", BigInteger),
    Column("total_bytes", BigInteger),
    Column("waits_for", Text),
    PrimaryKeyConstraint("job_id", "position"),
    CheckConstraint(_one_of("state", "pending running done failed skipped"), name="state"),
)

Table(
    "idempotency_keys",
    METADATA,
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "user_id", "key"),
    Index("ix_idempotency_keys_job_id", "job_id"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

Table(
    "scratch_reservations",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("place", Text, nullable=False),  # a file system, by a name of ours
    Column("bytes", BigInteger, nullable=False),
    Column("reserved_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "place"),
    CheckConstraint("bytes >= 0", name="bytes"),
    Index("ix_scratch_reservations_place", "place"),
)

Table(
    "workers",
    METADATA,
    Column("executor_id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    CheckConstraint(_one_of("state", "live draining stopped dead"), name="state"),
)
