"""Backups of servers that the service keeps, and their disks.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BY_BYTES = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", BY_BYTES, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("shared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("server_id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("vault_id", sa.Text()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('CBR', 'CSBS')", name=op.f("ck_backups_kind")),
        sa.CheckConstraint("origin IN ('server', 'source')", name=op.f("ck_backups_origin")),
        sa.CheckConstraint("state IN ('creating', 'available')", name=op.f("ck_backups_state")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_backups_size")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_backups_image_id")),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_backups")),
        sa.UniqueConstraint("image_id", name=op.f("uq_backups_image_id")),
    )
    op.create_index("ix_backups_vault_id", "backups", ["vault_id", "server_id"])
    op.create_table(
        "backup_disks",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("backup_id", BY_BYTES, nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("volume_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size", sa.BigInteger(), nullable=False),
        sa.Column("disk_format", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_backup_disks_blob_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "backup_id"],
            ["backups.project_id", "backups.id"],
            name=op.f("fk_backup_disks_backup"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "backup_id", "slot", name=op.f("pk_backup_disks")),
    )
    op.create_index("ix_backup_disks_blob_id", "backup_disks", ["blob_id"])
