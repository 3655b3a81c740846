"""The statements of buckets, and how a row becomes a value. Nothing else touches the table."""

from typing import Any, Final

from sqlalchemy import Connection, text

from calotype.buckets.model import Bucket, BucketName
from calotype.identity.model import ProjectId

# Add a bucket; no row is counted when the project has one of the name.
ADD: Final = text("""
INSERT INTO buckets (project_id, name, folder_id, created_at) VALUES (:project_id, :name, :folder_id, :now)
ON CONFLICT (project_id, name) DO NOTHING
""")

# Give a bucket whose folder is gone a new one, unless someone else just did.
REPLACE: Final = text("""
UPDATE buckets SET folder_id = :folder_id, created_at = :now
 WHERE project_id = :project_id AND name = :name AND folder_id = :gone
""")

COUNT: Final = text("SELECT count(*) FROM buckets WHERE project_id = :project_id")

ONE: Final = text("""
SELECT project_id, name, folder_id, created_at FROM buckets WHERE project_id = :project_id AND name = :name
""")

OF_PROJECT: Final = text("""
SELECT project_id, name, folder_id, created_at FROM buckets WHERE project_id = :project_id ORDER BY name
""")

# Remove a bucket that is still in the folder that was found empty.
REMOVE: Final = text("DELETE FROM buckets WHERE project_id = :project_id AND name = :name AND folder_id = :folder_id")

# Is this folder a bucket's? For the sweeper.
KNOWN: Final = text("SELECT 1 FROM buckets WHERE folder_id = :folder_id")

# On PostgreSQL two transactions could each count the same; SQLite has one writer anyway.
LOCK_PROJECT: Final = text("SELECT pg_advisory_xact_lock(hashtext('buckets'), hashtext(:project_id))")


def bucket(row: Any) -> Bucket:
    return Bucket(name=BucketName(row.name), project_id=ProjectId(row.project_id), created_at=row.created_at)


def lock_project(connection: Connection, project_id: str) -> None:
    """Until the transaction ends, nobody else adds a bucket to the project."""
    if connection.dialect.name == "postgresql":
        connection.execute(LOCK_PROJECT, {"project_id": project_id})
