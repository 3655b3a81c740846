"""Tags compare by their bytes on PostgreSQL too, so that those of a key are a range of an index.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE image_tags ALTER COLUMN tag TYPE TEXT COLLATE "C"')
