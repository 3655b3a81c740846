"""Stores, locations and staged bytes of images; what nodes cache; pages over all projects.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEWEST_FIRST = [sa.text("created_at DESC"), sa.text("id DESC")]


def upgrade() -> None:
    op.add_column("images", sa.Column("stores", sa.Text(), server_default="[]", nullable=False))
    op.add_column("images", sa.Column("locations", sa.Text(), server_default="[]", nullable=False))
    op.add_column("images", sa.Column("staged", sa.Text(), nullable=True))
    op.execute("UPDATE images SET stores = '[\"local\"]' WHERE blob_id IS NOT NULL")
    op.add_column("image_usage", sa.Column("staged_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index("ix_images_status_page", "images", ["status", *NEWEST_FIRST])
    op.create_index("ix_images_name_page", "images", ["name", *NEWEST_FIRST])
    op.create_index("ix_image_props_page", "image_props", ["name", "value", "created_at", "image_id"])
    op.create_index("ix_image_tags_page", "image_tags", ["tag", "created_at", "image_id"])
    op.create_index("ix_jobs_page", "jobs", [sa.text("begin_time DESC"), sa.text("id DESC")])
    op.create_table(
        "cached_images",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("hits", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("cached_at", sa.BigInteger(), nullable=True),
        sa.Column("read_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'cached')", name=op.f("ck_cached_images_state")),
        sa.PrimaryKeyConstraint("node", "image_id", name=op.f("pk_cached_images")),
    )
    op.create_index(op.f("ix_cached_images_image_id"), "cached_images", ["image_id"])
