"""The few reads that must cost almost nothing: one prepared SELECT by primary key on the raw driver.

SQLite: inline on the event loop, on a read-only connection of its own (7 µs; readers never wait for writers in WAL).
PostgreSQL: an asyncpg pool. Everything else goes through `engine.Database`.
"""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from calotype.db.engine import sqlite_file
from calotype.errors import Unavailable
from calotype.settings import Settings

POOL_SIZE: Final = 8
TIMEOUT_S: Final = 5.0


class FastReads(Protocol):
    async def one(self, statement: str, key: str) -> Sequence[Any] | None:
        """The one row of a SELECT with one `?`, or None. Raises `Unavailable`."""
        ...


class SqliteReads:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def one(self, statement: str, key: str) -> Sequence[Any] | None:
        try:
            row: Sequence[Any] | None = self._connection.execute(statement, (key,)).fetchone()
        except sqlite3.Error as error:
            raise Unavailable("the database does not answer; try again shortly") from error
        return row


class PostgresReads:
    def __init__(self, pool: Any, faults: tuple[type[Exception], ...]) -> None:
        """`pool`: asyncpg's; `faults`: what it raises when the database is away."""
        self._pool = pool
        self._faults = faults

    async def one(self, statement: str, key: str) -> Sequence[Any] | None:
        try:
            record = await self._pool.fetchrow(statement.replace("?", "$1"), key, timeout=TIMEOUT_S)
        except self._faults as error:
            raise Unavailable("the database does not answer; try again shortly") from error
        return None if record is None else tuple(record)


@asynccontextmanager
async def fast_reads(settings: Settings) -> AsyncIterator[FastReads]:
    if settings.database:
        import asyncpg  # not wanted with SQLite, where starting quickly matters

        plain = settings.database.replace("postgresql+psycopg://", "postgresql://", 1)
        pool = await asyncpg.create_pool(plain, min_size=1, max_size=POOL_SIZE, command_timeout=TIMEOUT_S)
        try:
            yield PostgresReads(pool, (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError))
        finally:
            await pool.close()
        return
    uri = f"{sqlite_file(settings).as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, check_same_thread=False)
    connection.execute("PRAGMA query_only=ON")
    try:
        yield SqliteReads(connection)
    finally:
        connection.close()
