"""Identity on each database: the first start, revocation across processes, and races between a login and a change."""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from calotype.db.engine import Database, database_url, now_ms, open_engine
from calotype.db.schema import METADATA
from calotype.errors import IdentityConflict, IdentityNotFound, Unauthenticated, Unavailable
from calotype.identity import sql
from calotype.identity.bootstrap import Bootstrapped, bootstrap
from calotype.identity.clouds import clouds_file, known_password, read
from calotype.identity.directory import Filter, project_named_in
from calotype.identity.model import (
    DEFAULT_DOMAIN,
    DomainCreate,
    DomainNamed,
    Named,
    Page,
    PasswordLogin,
    ProjectCreate,
    ProjectScope,
    RoleCreate,
    Target,
    TargetKind,
    TokenLogin,
    UserChange,
    UserCreate,
)
from calotype.identity.passwords import FAILURES, MOST_WAITING
from calotype.identity.revocations import MARGIN_MS, MOST_TOKENS_OF_USER, Revocation, revoke_in
from calotype.identity.service import Identity, Issued
from calotype.identity.tokens import Subject, signed, signing_key
from calotype.settings import Http, IdentitySettings, Settings, WrongSetting

PASSWORDS = {"CALOTYPE_ADMIN_PASSWORD": "of-the-admin", "CALOTYPE_DEMO_PASSWORD": "of-the-demo"}
DEFAULT = DomainNamed(id="default")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Of an empty database with the tables in it."""
    settings = Settings(data_dir=str(tmp_path / "data"))
    if request.param == "sqlite":
        engine = open_engine(settings)
        METADATA.create_all(engine)
        engine.dispose()
        yield settings
        return
    server = os.environ["TEST_POSTGRESQL_URL"]
    name = f"identity_{secrets.token_hex(6)}"
    root = create_engine(database_url(Settings(database=server)), isolation_level="AUTOCOMMIT")
    with root.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    settings = msgspec.structs.replace(settings, database=f"{server.rpartition('/')[0]}/{name}")
    engine = open_engine(settings)
    METADATA.create_all(engine)
    engine.dispose()
    yield settings
    with root.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    root.dispose()


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    opened = Database(open_engine(settings))
    yield opened
    opened.close()


@pytest.fixture
def started(db: Database, settings: Settings) -> Bootstrapped:
    return bootstrap(db, settings, PASSWORDS)


@asynccontextmanager
async def process(db: Database, settings: Settings) -> AsyncIterator[Identity]:
    """What one API process has."""
    identity = await Identity.open(db, settings)
    try:
        yield identity
    finally:
        identity.close()


@pytest.fixture
async def identity(db: Database, settings: Settings, started: Bootstrapped) -> AsyncIterator[Identity]:
    async with process(db, settings) as opened:
        yield opened


@pytest.fixture
async def elsewhere(db: Database, settings: Settings, identity: Identity) -> AsyncIterator[Identity]:
    async with process(db, settings) as opened:
        yield opened


async def log_in(identity: Identity, name: str, password: str = "", project: str | None = None) -> Issued:
    login = PasswordLogin(
        user=Named(name=name, domain=DEFAULT), password=password or PASSWORDS[f"CALOTYPE_{name.upper()}_PASSWORD"]
    )
    return await identity.log_in(login, ProjectScope(project=Named(name=project or name, domain=DEFAULT)))


# --- the first start --------------------------------------------------------------------------------------------------


async def test_the_first_start_makes_two_users_who_can_log_in(identity: Identity) -> None:
    admin, demo = await log_in(identity, "admin"), await log_in(identity, "demo")

    assert identity.authenticate(admin.wire).roles == {"admin", "member", "reader"}
    assert identity.authenticate(demo.wire).roles == {"member", "reader"}
    assert identity.authenticate(demo.wire).user_domain_id == "default"


def test_the_first_start_writes_the_clouds_of_both_users(settings: Settings, started: Bootstrapped) -> None:
    document = read(clouds_file(settings))

    assert started.first
    assert document is not None
    assert [*document["clouds"]] == ["calotype-admin", "calotype-demo"]
    assert known_password(document, "demo") == "of-the-demo"
    assert clouds_file(settings).stat().st_mode & 0o777 == 0o600


async def test_passwords_that_are_not_given_are_generated(db: Database, settings: Settings) -> None:
    bootstrap(db, settings, {"CALOTYPE_DEMO_PASSWORD": ""})

    document = read(clouds_file(settings))
    assert document is not None
    passwords = {user: known_password(document, user) for user in ("admin", "demo")}
    assert passwords["admin"] != passwords["demo"]
    async with process(db, settings) as identity:
        for user, password in passwords.items():
            assert password is not None
            assert len(password) >= 24
            await log_in(identity, user, password)


async def test_a_later_start_changes_nothing(db: Database, settings: Settings, started: Bootstrapped) -> None:
    before = clouds_file(settings).read_bytes()

    again = bootstrap(db, settings, {"CALOTYPE_ADMIN_PASSWORD": "another"})

    assert (again.first, again.clouds_changed) == (False, False)
    assert clouds_file(settings).read_bytes() == before
    async with process(db, settings) as identity:
        await log_in(identity, "admin")
        with pytest.raises(Unauthenticated):
            await log_in(identity, "admin", "another")


def test_a_later_start_brings_the_clouds_in_step_with_the_url(
    db: Database, settings: Settings, started: Bootstrapped
) -> None:
    moved = msgspec.structs.replace(settings, http=Http(url="https://images.example.test"), region="Studio")

    again = bootstrap(db, moved, {})

    assert again.clouds_changed
    document = read(clouds_file(settings))
    assert document is not None
    cloud = document["clouds"]["calotype-demo"]
    assert cloud["auth"]["auth_url"] == "https://images.example.test/identity/v3"
    assert cloud["auth"]["password"] == "of-the-demo"
    assert cloud["region_name"] == "Studio"


def test_lost_clouds_come_back_with_passwords_that_are_given_and_right(
    db: Database, settings: Settings, started: Bootstrapped
) -> None:
    clouds_file(settings).unlink()

    without = bootstrap(db, settings, {})
    exists = clouds_file(settings).exists()
    wrong_and_right = bootstrap(db, settings, {**PASSWORDS, "CALOTYPE_ADMIN_PASSWORD": "wrong"})

    assert (without.clouds_file, exists) == (None, False)
    assert wrong_and_right.clouds_changed
    document = read(clouds_file(settings))
    assert document is not None
    assert [*document["clouds"]] == ["calotype-demo"]


@pytest.mark.parametrize("content", [b"\xff", b"- a list\n"])
def test_a_file_that_is_no_clouds_file_stops_no_start(
    db: Database, settings: Settings, started: Bootstrapped, content: bytes
) -> None:
    clouds_file(settings).write_bytes(content)

    bootstrap(db, settings, PASSWORDS)

    assert clouds_file(settings).read_bytes() == content


def test_the_first_start_keeps_a_file_that_is_not_its_own_under_another_name(db: Database, settings: Settings) -> None:
    settings.folder.mkdir(exist_ok=True)
    clouds_file(settings).write_bytes(b"- a list\n")

    bootstrap(db, settings, PASSWORDS)

    (aside,) = settings.folder.glob("clouds.yaml.*.old")
    assert aside.read_bytes() == b"- a list\n"
    assert known_password(read(clouds_file(settings)) or {}, "demo") == "of-the-demo"


async def test_of_many_first_starts_at_once_one_does_it_and_all_agree(db: Database, settings: Settings) -> None:
    ready = threading.Barrier(4)

    def start(_: int) -> Bootstrapped:
        ready.wait(timeout=30)
        return bootstrap(db, settings, {})

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(start, range(4)))

    assert [result.first for result in results].count(True) == 1
    document = read(clouds_file(settings))
    assert document is not None
    async with process(db, settings) as identity:
        for user in ("admin", "demo"):
            await log_in(identity, user, known_password(document, user) or "")
    with db.reading() as connection:
        assert len(connection.execute(sql.SIGNING_KEYS).all()) == 1


def test_a_first_start_that_fails_leaves_the_next_one_to_do_it(db: Database, settings: Settings) -> None:
    """No users whose passwords nobody has: the database keeps nothing when the file cannot be written."""
    settings.folder.mkdir(exist_ok=True)
    (settings.folder / "a-file").touch()
    nowhere = msgspec.structs.replace(settings, data_dir=str(settings.folder / "a-file"))

    with pytest.raises(NotADirectoryError):
        bootstrap(db, nowhere, PASSWORDS)

    assert bootstrap(db, settings, PASSWORDS).first


@pytest.mark.parametrize("password", ["half of a surrogate \udcff", "a\0b", "x" * 5000])
def test_a_password_that_cannot_be_one_stops_the_first_start_with_its_name(
    db: Database, settings: Settings, password: str
) -> None:
    with pytest.raises(WrongSetting, match="CALOTYPE_DEMO_PASSWORD"):
        bootstrap(db, settings, {"CALOTYPE_DEMO_PASSWORD": password})

    assert bootstrap(db, settings, PASSWORDS).first


async def test_a_database_that_was_never_started_is_not_opened(db: Database, settings: Settings) -> None:
    with pytest.raises(Unavailable):
        await Identity.open(db, settings)


# --- revocation -------------------------------------------------------------------------------------------------------


async def test_a_revocation_is_known_at_once_here_and_elsewhere_after_a_refresh(
    identity: Identity, elsewhere: Identity
) -> None:
    issued = await log_in(identity, "demo")
    caller = elsewhere.authenticate(issued.wire)

    await identity.revoke(caller, issued.wire)

    with pytest.raises(Unauthenticated):
        identity.authenticate(issued.wire)
    assert elsewhere.authenticate(issued.wire) == caller
    await elsewhere.refresh()
    with pytest.raises(Unauthenticated):
        elsewhere.authenticate(issued.wire)


async def test_a_token_is_told_to_be_revoked_at_once_by_every_process(identity: Identity, elsewhere: Identity) -> None:
    issued, mine = await log_in(identity, "demo"), await log_in(identity, "demo")
    caller = elsewhere.authenticate(mine.wire)
    assert await elsewhere.token_of(caller, issued.wire) == issued.token

    await identity.revoke(caller, issued.wire)

    with pytest.raises(IdentityNotFound):
        await elsewhere.token_of(caller, issued.wire)


async def test_keep_fresh_honours_what_others_revoke_and_survives_a_database_that_is_away(
    db: Database, settings: Settings, identity: Identity
) -> None:
    quick = msgspec.structs.replace(settings, identity=IdentitySettings(revocation_refresh_s=0.01))
    async with process(db, quick) as other:
        issued = await log_in(identity, "demo")
        caller = other.authenticate(issued.wire)
        fresh = asyncio.create_task(other.keep_fresh())
        db.engine.dispose()  # every connection is lost once
        await identity.revoke(caller, issued.wire)

        async with asyncio.timeout(30):
            while True:
                try:
                    other.authenticate(issued.wire)
                except Unauthenticated:
                    break
                await asyncio.sleep(0.01)

        assert not fresh.done()
        fresh.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fresh


async def test_keep_fresh_goes_on_after_an_error_of_the_database(
    db: Database, settings: Settings, started: Bootstrapped
) -> None:
    quick = msgspec.structs.replace(settings, identity=IdentitySettings(revocation_refresh_s=0.01))
    async with process(db, quick) as identity:
        issued = await log_in(identity, "demo")
        with db.writing() as connection:
            connection.execute(text("ALTER TABLE revocations RENAME TO away"))
        fresh = asyncio.create_task(identity.keep_fresh())
        with pytest.raises((Unavailable, SQLAlchemyError)):
            await identity.refresh()
        with db.writing() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO revocations"))
            revoke_in(connection, Subject("user", issued.token.user.id), now_ms())

        async with asyncio.timeout(30):
            while True:
                try:
                    identity.authenticate(issued.wire)
                except Unauthenticated:
                    break
                await asyncio.sleep(0.01)

        fresh.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fresh


async def test_a_token_made_before_a_revocation_was_seen_is_void_and_one_made_after_is_not(
    identity: Identity, elsewhere: Identity
) -> None:
    """Also within the margin that a revocation reaches ahead of its moment."""
    before = await log_in(elsewhere, "demo")
    user_id = before.token.user.id

    await identity.directory.change_user(user_id, UserChange(password="another"))
    after = await log_in(elsewhere, "demo", "another")
    await elsewhere.refresh()

    assert after.token.issued_at >= before.token.issued_at
    for process_of in (identity, elsewhere):
        with pytest.raises(Unauthenticated):
            process_of.authenticate(before.wire)
        assert process_of.authenticate(after.wire).user_id == user_id


async def test_a_token_cannot_be_made_from_one_that_another_process_revoked(
    identity: Identity, elsewhere: Identity
) -> None:
    issued = await log_in(identity, "demo")
    elsewhere.authenticate(issued.wire)
    await identity.revoke(identity.authenticate(issued.wire), issued.wire)

    with pytest.raises(Unauthenticated):
        await elsewhere.log_in(TokenLogin(token=issued.wire), None)


async def test_a_taken_role_is_in_no_token_that_is_made_while_it_is_taken(identity: Identity, db: Database) -> None:
    """Whichever way the race of a login and a change ends, no token in force says what is no longer true."""
    admin = identity.directory
    demo = await log_in(identity, "demo")
    project, user = demo.token.project, demo.token.user.id
    assert project is not None
    member = next(role.id for role in demo.token.roles if role.name == "member")
    target = Target(TargetKind.PROJECT, project.id)

    for _ in range(5):
        rescoped = [identity.log_in(TokenLogin(token=demo.wire), None) for _ in range(4)]
        *made, _ = await asyncio.gather(*rescoped, admin.unassign(user, member, target), return_exceptions=True)

        for issued in made:
            if isinstance(issued, Issued):
                with pytest.raises(Unauthenticated):
                    assert "member" not in identity.authenticate(issued.wire).roles
        await admin.assign(user, member, target)
        demo = await log_in(identity, "demo")


async def test_expired_revocations_go_when_another_is_written(identity: Identity, db: Database) -> None:
    with db.writing() as connection:
        long_ago = {"kind": "token", "id": "a/b", "before": 5, "expires_at": 6}
        connection.execute(sql.REVOKE, long_ago)
        assert connection.execute(sql.REVOCATIONS_STATE).one().amount == 1

    issued = await log_in(identity, "demo")
    await identity.revoke(identity.authenticate(issued.wire), issued.wire)

    with db.reading() as connection:
        rows = connection.execute(sql.REVOCATIONS, {"now": 0}).all()
    assert [row.subject_id for row in rows] == [issued.token.itself.id]
    assert rows[0].expires_at == issued.token.expires_at


async def test_a_later_revocation_wins_in_the_database(db: Database, started: Bootstrapped) -> None:
    subject = Subject("user", "0" * 32)
    now = now_ms()

    with db.writing() as connection:
        late: Revocation = revoke_in(connection, subject, now)
        revoke_in(connection, subject, now - 10_000)

    with db.reading() as connection:
        before = connection.execute(sql.REVOKED_BEFORE, {"kind": "user", "id": subject.id}).scalar_one()
    assert before == late.before == now + MARGIN_MS


async def test_a_user_who_revokes_tokens_without_end_takes_bounded_room(identity: Identity, db: Database) -> None:
    issued = await log_in(identity, "demo")
    other = await log_in(identity, "demo")
    admin = await log_in(identity, "admin")
    rows = [
        {"kind": "token", "id": f"{issued.token.user.id}/{n}", "before": now_ms(), "expires_at": now_ms() + 600_000}
        for n in range(MOST_TOKENS_OF_USER)
    ]
    with db.writing() as connection:
        connection.execute(sql.REVOKE, rows)

    await identity.revoke(identity.authenticate(issued.wire), issued.wire)

    with db.reading() as connection:
        assert connection.execute(sql.REVOCATIONS_STATE).one().amount == 1
    for wire in (issued.wire, other.wire):
        with pytest.raises(Unauthenticated):
            identity.authenticate(wire)
    assert identity.authenticate(admin.wire).is_admin


async def test_an_expired_token_is_refused(identity: Identity, db: Database, settings: Settings) -> None:
    brief = msgspec.structs.replace(settings, identity=IdentitySettings(token_lifetime_s=60))
    async with process(db, brief) as short:
        issued = await log_in(short, "demo")
        assert issued.token.expires_at <= now_ms() + 60_000
        # The same token as it will be in an hour, signed by the same key.
        past = msgspec.structs.replace(issued.token, expires_at=now_ms() - 1)
        wire = signed(past, signing_key(short._keys, now_ms()))

        with pytest.raises(Unauthenticated):
            short.authenticate(wire)


async def test_tokens_are_not_trusted_when_revocations_are_unknown_for_too_long(identity: Identity) -> None:
    issued = await log_in(identity, "demo")
    identity._fresh_until = 0.0

    with pytest.raises(Unavailable):
        identity.authenticate(issued.wire)

    await identity.refresh()
    assert identity.authenticate(issued.wire).user_name == "demo"


async def test_a_token_of_a_key_that_was_removed_is_refused(identity: Identity, db: Database) -> None:
    issued = await log_in(identity, "demo")
    identity.authenticate(issued.wire)

    with db.writing() as connection:
        connection.execute(text("DELETE FROM signing_keys"))
        connection.execute(sql.ADD_SIGNING_KEY, {"id": "f" * 32, "secret": "eHh4" * 10 + "eHg=", "now": 0})
    await identity.refresh()

    with pytest.raises(Unauthenticated):
        identity.authenticate(issued.wire)


# --- logins -----------------------------------------------------------------------------------------------------------


async def test_a_flood_of_logins_is_throttled_and_does_not_lock_out_the_right_password(identity: Identity) -> None:
    flood = [log_in(identity, f"nobody-{n}", "wrong", "demo") for n in range(MOST_WAITING + 20)]

    results = await asyncio.gather(*flood, return_exceptions=True)

    kinds = {type(result).__name__ for result in results}
    assert kinds == {"Unauthenticated", "Throttled"}
    assert (await log_in(identity, "demo")).token.user.name == "demo"


async def test_parallel_logins_of_one_user_all_succeed(identity: Identity) -> None:
    results = await asyncio.gather(*(log_in(identity, "demo") for _ in range(FAILURES + 2)))

    assert len({issued.token.audit_ids for issued in results}) == FAILURES + 2


async def test_a_password_that_was_changed_while_it_was_checked_is_refused(identity: Identity) -> None:
    """The hash in the database is compared again in the transaction that issues the token."""
    demo = await log_in(identity, "demo")
    user = demo.token.user.id

    results = await asyncio.gather(
        *(log_in(identity, "demo") for _ in range(8)),
        identity.directory.change_user(user, UserChange(password="another")),
        return_exceptions=True,
    )

    for issued in results[:-1]:
        if isinstance(issued, Issued):
            with pytest.raises(Unauthenticated):
                identity.authenticate(issued.wire)


# --- projects, users, roles -------------------------------------------------------------------------------------------


async def test_a_project_is_found_by_id_and_by_name(identity: Identity, db: Database) -> None:
    films = await identity.directory.create_project(ProjectCreate(name="films"), DEFAULT_DOMAIN)

    assert await identity.project(films.id) == films
    assert await identity.project("films") == films
    assert await identity.project_exists(films.id)
    assert not await identity.project_exists("films")
    assert not await identity.project_exists("\0")
    for unknown in ("0" * 32, "none", "\0", ""):
        with pytest.raises(IdentityNotFound):
            await identity.project(unknown)


async def test_a_name_in_several_domains_is_that_of_the_default_one_or_of_none(
    identity: Identity, db: Database
) -> None:
    directory = identity.directory
    studio = await directory.create_domain(DomainCreate(name="Studio"))
    school = await directory.create_domain(DomainCreate(name="School"))
    for domain in (studio, school):
        for name in ("films", "demo"):
            await directory.create_project(ProjectCreate(name=name, domain_id=domain.id), DEFAULT_DOMAIN)
    only = await directory.create_project(ProjectCreate(name="only", domain_id=studio.id), DEFAULT_DOMAIN)

    with db.reading() as connection:
        demo = project_named_in(connection, "demo")
        assert project_named_in(connection, "films") is None
        assert project_named_in(connection, "only") == only.id
        assert demo is not None
        assert sql.project(connection.execute(sql.PROJECT, {"id": demo}).one()).domain_id == "default"


async def test_lists_filter_and_page_in_the_order_of_ids(identity: Identity) -> None:
    directory = identity.directory
    caller = identity.authenticate((await log_in(identity, "admin")).wire)
    for n in range(5):
        await directory.create_project(ProjectCreate(name=f"p{n}", enabled=n % 2 == 0), DEFAULT_DOMAIN)

    everything = await directory.projects(caller, Filter(), Page())
    first = await directory.projects(caller, Filter(), Page(limit=3))
    rest = await directory.projects(caller, Filter(), Page(marker=first[-1].id))
    disabled = await directory.projects(caller, Filter(enabled=False), Page())

    assert len(everything) == 7
    assert first + rest == everything
    assert {project.name for project in disabled} == {"p1", "p3"}
    assert await directory.projects(caller, Filter(domain_id="none"), Page()) == []


async def test_of_two_who_take_a_name_at_once_one_gets_it(identity: Identity) -> None:
    directory = identity.directory

    for kind in ("project", "user", "role", "domain"):
        results = await asyncio.gather(*(_create(identity, kind) for _ in range(4)), return_exceptions=True)
        conflicts = [result for result in results if isinstance(result, IdentityConflict)]
        assert len(conflicts) == 3, (kind, results)
    assert len(await directory.users(Filter(name="same"), Page())) == 1


async def _create(identity: Identity, kind: str) -> object:
    directory = identity.directory
    if kind == "project":
        return await directory.create_project(ProjectCreate(name="same"), DEFAULT_DOMAIN)
    if kind == "user":
        return await directory.create_user(UserCreate(name="same"), DEFAULT_DOMAIN)
    if kind == "role":
        return await directory.create_role(RoleCreate(name="same"))
    return await directory.create_domain(DomainCreate(name="same"))


async def test_a_user_goes_with_the_roles(identity: Identity) -> None:
    directory = identity.directory
    demo = await log_in(identity, "demo")

    await directory.delete_user(demo.token.user.id)

    assert await directory.assignments(user_id=demo.token.user.id, role_id=None, target=None) == []
