"""The schema is the same whether the migrations build it or the tables' definitions do."""

import multiprocessing
import re
import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from calotype.db.engine import CURRENT_REVISION, open_engine, sqlite_file
from calotype.db.migrate import _config, migrate
from calotype.db.schema import METADATA, REVISION
from calotype.settings import Settings
from tests.postgresql import own_database


def schema_of(settings: Settings) -> dict[str, tuple[object, ...]]:
    """Name of each table and index of ours -> its parts, sorted: the order of columns is no matter."""
    ours = {table.name for table in METADATA.sorted_tables}
    ours |= {str(index.name) for table in METADATA.sorted_tables for index in table.indexes}
    found: dict[str, tuple[object, ...]] = {}
    with sqlite3.connect(sqlite_file(settings)) as connection:
        statements = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for kind, name, sql in statements:
            if name not in ours:
                continue
            if kind == "index":
                found[name] = (" ".join(sql.split()),)
                continue
            columns = [row[1:] for row in connection.execute(f"PRAGMA table_xinfo({name})")]
            constraints = re.findall(r"CONSTRAINT [^\n]*?(?=,? ?\n|, [a-z_]+ [A-Z]+|\)?$)", sql)
            found[name] = (*sorted(map(str, columns)), *sorted(part.strip(" ,)") for part in constraints))
    connection.close()
    return found


def test_migrations_build_the_schema_that_the_code_knows(tmp_path: Path) -> None:
    migrated, defined = Settings(data_dir=str(tmp_path / "a")), Settings(data_dir=str(tmp_path / "b"))
    migrate(migrated)
    engine = open_engine(defined)
    METADATA.create_all(engine)
    engine.dispose()

    assert schema_of(migrated) == schema_of(defined)
    assert "ck_jobs_status" in str(schema_of(migrated)["jobs"])


def test_the_revision_that_the_code_wants_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(_config()).get_current_head() == REVISION


def test_migrating_again_changes_nothing_and_says_where_it_is(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    first = migrate(settings)
    before = schema_of(settings)

    assert migrate(settings) == first == REVISION
    assert schema_of(settings) == before
    engine = open_engine(settings)
    with engine.begin() as connection:
        assert connection.execute(CURRENT_REVISION).scalar_one() == REVISION
    engine.dispose()


def test_processes_that_migrate_at_once_all_end_with_the_schema(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))

    with multiprocessing.get_context("spawn").Pool(3) as pool:
        heads = pool.map(migrate, [settings] * 3)

    assert heads == [REVISION] * 3
    assert schema_of(settings)


@pytest.mark.services
def test_processes_that_migrate_a_postgresql_at_once_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    with own_database() as url, multiprocessing.get_context("spawn").Pool(3) as pool:
        settings = Settings(data_dir=str(tmp_path), database=url)

        heads = pool.map_async(migrate, [settings] * 3).get(timeout=120)

    assert heads == [REVISION] * 3
