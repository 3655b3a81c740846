"""Bringing a database to the present schema: our own tables by Alembic, those of DBOS by DBOS.

Safe when several processes do it at once: one holds a lock (a file's on SQLite, an advisory one on PostgreSQL), the
others wait and then find nothing to do.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from dbos import run_dbos_database_migrations
from sqlalchemy import Engine, text

from calotype.db.engine import database_url, open_engine
from calotype.db.schema import REVISION
from calotype.errors import Unavailable
from calotype.settings import Settings

LOCK_ID: Final = 0x63616C6F  # "calo": the advisory lock of migrations
WAIT_S: Final = 600.0  # for another process that migrates
AGAIN_S: Final = 0.2


def migrate(settings: Settings) -> str:
    """Bring the database to the newest revision; return its name. Running it again changes nothing."""
    engine = open_engine(settings)
    try:
        with _alone(engine, settings):
            # Alembic and WAL: the pragma must be set before DBOS opens the file, and our engine sets it on connect.
            with engine.begin() as connection:
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            run_dbos_database_migrations(database_url(settings))
        return REVISION
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextmanager
def _alone(engine: Engine, settings: Settings) -> Iterator[None]:
    if engine.dialect.name == "sqlite":
        settings.folder.mkdir(parents=True, exist_ok=True)
        with (settings.folder / ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    # Neither who holds the lock nor who wants it may keep a snapshot: DBOS makes indexes concurrently, which waits
    # until all snapshots of the database are gone. So there is no transaction here, and no statement that waits.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        deadline = time.monotonic() + WAIT_S
        while not connection.execute(text("SELECT pg_try_advisory_lock(:id)"), {"id": LOCK_ID}).scalar_one():
            if time.monotonic() > deadline:
                raise Unavailable(f"another process has been migrating the database for {WAIT_S:g} seconds")
            time.sleep(AGAIN_S)
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": LOCK_ID})
