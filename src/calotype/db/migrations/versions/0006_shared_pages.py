"""Images that are shared with a project are read a page at a time.

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
    newest_first = [sa.text("image_created_at DESC"), sa.text("image_id DESC")]
    op.create_index("ix_image_members_page", "image_members", ["member_id", "status", *newest_first])
