"""Pages of images pass over no tombstones; images are found by the digests of their bytes.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PAGES = {
    "ix_images_project_page": ["project_id"],
    "ix_images_visibility_page": ["visibility"],
    "ix_images_project_name": ["project_id", "name"],
    "ix_images_project_status": ["project_id", "status"],
    "ix_images_status_page": ["status"],
    "ix_images_name_page": ["name"],
}
THERE = sa.text("status <> 'deleted'")


def upgrade() -> None:
    for name, columns in PAGES.items():
        op.drop_index(name, "images")
        newest_first = [sa.text("created_at DESC"), sa.text("id DESC")]
        op.create_index(name, "images", [*columns, *newest_first], sqlite_where=THERE, postgresql_where=THERE)
    for name, column in (("ix_images_checksum", "checksum"), ("ix_images_hash_value", "hash_value")):
        op.create_index(name, "images", [column], sqlite_where=THERE, postgresql_where=THERE)
