"""Images that a project shares, and those that are shared with it, are read a page at a time.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_members", sa.Column("image_created_at", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE image_members"
        " SET image_created_at = (SELECT created_at FROM images WHERE images.id = image_members.image_id)"
    )
    there = sa.text("status <> 'deleted'")
    newest_first = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_index(
        "ix_images_project_visibility",
        "images",
        ["project_id", "visibility", *newest_first],
        sqlite_where=there,
        postgresql_where=there,
    )
    newest_first = [sa.text("image_created_at DESC"), sa.text("image_id DESC")]
    op.create_index("ix_image_members_page", "image_members", ["member_id", "status", *newest_first])
