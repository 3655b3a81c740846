"""Transactions on SQLite or PostgreSQL: one way for the API and the worker.

SQLAlchemy Core, synchronous, in a bounded pool of threads; `read` and `write` run a function inside one transaction.
On SQLite a writing transaction begins with the write lock (BEGIN IMMEDIATE), so that what it read stays true.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from calotype.errors import NoSpace, Unavailable
from calotype.settings import Settings

T = TypeVar("T")
BUSY_TIMEOUT_S: Final = 30.0
THREADS: Final = 8  # at most so many transactions at once in a process


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def database_url(settings: Settings) -> str:
    """In SQLAlchemy's form. DBOS keeps its tables in the same database: a job and its place in a queue are one."""
    if settings.database:
        return settings.database.replace("postgresql://", "postgresql+psycopg://", 1)
    return f"sqlite:///{sqlite_file(settings)}"


def sqlite_file(settings: Settings) -> Path:
    return settings.folder / "calotype.db"


# At which revision a database is; an error before the first migration.
CURRENT_REVISION: Final = text("SELECT version_num FROM alembic_version")


class Database:
    """Transactions. A function given to `read` or `write` may run in any thread and sees one open transaction.

    Raises `Unavailable` when the database does not answer, `NoSpace` when its disk is full.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reading = engine.execution_options(calotype_write=False)
        self._writing = engine.execution_options(calotype_write=True)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with _translated(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with _translated(), self._writing.begin() as connection:
            yield connection

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, self.reading, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a writing transaction. Once begun it ends, also when the caller is cancelled meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, self.writing, work)

    @staticmethod
    def _run(transaction: Callable[[], Any], work: Callable[[Connection], T]) -> T:
        with transaction() as connection:
            return work(connection)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def open_engine(settings: Settings) -> Engine:
    url = database_url(settings)
    if not url.startswith("sqlite"):
        return create_engine(
            url, pool_size=THREADS + 2, max_overflow=4, pool_timeout=BUSY_TIMEOUT_S, pool_pre_ping=True
        )
    sqlite_file(settings).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(open_engine(settings))
    try:
        yield opened
    finally:
        opened.close()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("calotype_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if "full" in str(error.orig).lower() or "No space left" in str(error.orig):
            raise NoSpace("the disk of the database is full; free space and try again") from error
        raise Unavailable("the database does not answer; try again shortly") from error
