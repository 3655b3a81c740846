"""Databases of a test's own on the PostgreSQL server that `make test-services` starts."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text


@contextmanager
def own_database() -> Iterator[str]:
    """The URL of an empty database, which is dropped at the end; skips where there is no server."""
    url = os.environ.get("TEST_POSTGRESQL_URL") or pytest.skip("wants a PostgreSQL server: make test-services")
    name = f"calotype_{uuid.uuid4().hex}"
    server = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with server.connect() as c:
        c.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        with server.connect() as c:
            c.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
