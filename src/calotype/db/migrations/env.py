"""Alembic's entry: runs the steps on the connection that `db/migrate.py` hands over."""

from alembic import context
from sqlalchemy import Connection

from calotype.db.schema import METADATA

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
