"""Access keys on each database: how long what is known of one counts, the lock, and the secret at rest."""

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Struct, structs

from calotype.db.engine import Database, open_engine
from calotype.db.schema import METADATA
from calotype.errors import IdentityNotFound, SignatureRefused, TooManyAccessKeys
from calotype.identity import sealing
from calotype.identity.bootstrap import bootstrap
from calotype.identity.directory import new_id
from calotype.identity.keys import LOCKED, MOST_KEYS_OF_USER, AccessKeys, NewAccessKey
from calotype.identity.model import Caller, ProjectId, UserId
from calotype.identity.revocations import Revocations
from calotype.identity.signatures import (
    EMPTY,
    WRONG,
    Authorization,
    Dialect,
    Message,
    canonical_requests,
    string_to_sign,
)
from calotype.identity.tokens import SigningKey
from calotype.settings import Settings
from tests.postgresql import own_database

START_MS = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * 1000)
PASSWORDS = {"CALOTYPE_ADMIN_PASSWORD": "of-the-admin", "CALOTYPE_DEMO_PASSWORD": "of-the-demo"}
SIGNING = {"k": SigningKey(id="k", secret=b"s" * 32, created_at=0)}


class Clock:
    """One clock for all that has a time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        return START_MS + int(self.seconds * 1000)


class Parts(Struct, kw_only=True):
    db: Database
    clock: Clock
    signing: dict[str, SigningKey]
    demo: Caller

    def process(self) -> AccessKeys:
        """What one API process has."""
        clock = self.clock
        return AccessKeys(
            self.db,
            Revocations(),
            lambda: self.signing,
            fresh_s=5.0,
            clock=lambda: clock.seconds,
            now=clock.now_ms,
        )

    async def made(self, keys: AccessKeys) -> NewAccessKey:
        return await keys.create(self.demo, self.demo.user_id, self.demo.project_id or "")

    def signed(self, key: NewAccessKey, secret: str = "") -> Message:
        date = datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = [("host", "ims.test"), ("x-sdk-date", date)]
        message = Message(method="GET", path="/v2/images", query="", headers=headers)
        given = Authorization(
            dialect=Dialect.ACCESS,
            access=key.key.access,
            scope="",
            signed=("host", "x-sdk-date"),
            signature="",
            date=date,
        )
        to_sign = string_to_sign(given, next(canonical_requests(given, message, EMPTY)))
        made = hmac.new((secret or key.secret).encode(), to_sign.encode(), hashlib.sha256).hexdigest()
        text = f"SDK-HMAC-SHA256 Access={key.key.access}, SignedHeaders=host;x-sdk-date, Signature={made}"
        return structs.replace(message, headers=[*headers, ("authorization", text)])

    async def caller(self, keys: AccessKeys, key: NewAccessKey) -> Caller:
        claim = await keys.claim(self.signed(key))
        await keys.proved(claim, EMPTY)
        return await keys.caller(claim, path_project=None)

    async def refusal(self, keys: AccessKeys, key: NewAccessKey, secret: str = "") -> str:
        with pytest.raises(SignatureRefused) as refused:
            await keys.proved(await keys.claim(self.signed(key, secret)), EMPTY)
        return refused.value.message


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parts]:
    with ExitStack() as opened:
        url = opened.enter_context(own_database()) if request.param == "postgresql" else ""
        settings = Settings(data_dir=str(tmp_path), database=url)
        db = Database(open_engine(settings))
        opened.callback(db.close)
        METADATA.create_all(db.engine)
        bootstrap(db, settings, PASSWORDS)
        with db.reading() as connection:
            row = connection.exec_driver_sql("SELECT id, default_project_id FROM users WHERE name = 'demo'").one()
        demo = Caller(
            user_id=UserId(row[0]),
            user_name="demo",
            user_domain_id="default",
            project_id=ProjectId(row[1]),
            audit_id="a",
            issued_at=0,
            expires_at=0,
        )
        yield Parts(db=db, clock=Clock(), signing=dict(SIGNING), demo=demo)


def executed(parts: Parts, statement: str) -> int:
    with parts.db.writing() as connection:
        return connection.exec_driver_sql(statement).rowcount


async def test_the_caller_is_the_owner_with_the_roles_of_now(parts: Parts) -> None:
    keys = parts.process()
    key = await parts.made(keys)

    caller = await parts.caller(keys, key)

    assert (caller.user_id, caller.project_id) == (parts.demo.user_id, parts.demo.project_id)
    assert (caller.roles, caller.audit_id) == (frozenset({"member", "reader"}), key.key.access)


async def test_what_is_known_of_a_key_counts_for_five_seconds(parts: Parts) -> None:
    here, there = parts.process(), parts.process()
    key = await parts.made(here)
    await parts.caller(there, key)
    assert executed(parts, "DELETE FROM role_assignments") > 0

    parts.clock.seconds += 4.9
    known = await parts.caller(there, key)
    parts.clock.seconds += 0.2
    with pytest.raises(SignatureRefused) as refused:
        await parts.caller(there, key)

    assert known.roles
    assert "has a role now" in refused.value.message


async def test_a_deleted_key_is_void_here_at_once_and_elsewhere_within_five_seconds(parts: Parts) -> None:
    here, there = parts.process(), parts.process()
    key = await parts.made(here)
    await parts.caller(here, key)
    await parts.caller(there, key)

    await here.delete(parts.demo, parts.demo.user_id, key.key.access)
    gone = await parts.refusal(here, key)
    known = await parts.caller(there, key)
    parts.clock.seconds += 5

    assert gone == await parts.refusal(there, key) == f"Get secretKey failed,ak:{key.key.access},err:ak not exist"
    assert known.user_id == parts.demo.user_id


async def test_a_key_that_is_deleted_during_an_upload_does_not_prove_it(parts: Parts) -> None:
    keys = parts.process()
    key = await parts.made(keys)
    claim = await keys.claim(parts.signed(key))

    await keys.delete(parts.demo, parts.demo.user_id, key.key.access)

    with pytest.raises(SignatureRefused):
        await keys.proved(claim, EMPTY)


async def test_five_wrong_signatures_in_any_process_lock_the_key_for_five_minutes(parts: Parts) -> None:
    processes = [parts.process() for _ in range(5)]
    key = await parts.made(processes[0])

    wrong = [await parts.refusal(keys, key, "x") for keys in processes]
    parts.clock.seconds += 5
    locked = [await parts.refusal(keys, key) for keys in processes]
    parts.clock.seconds += 294
    still = await parts.refusal(processes[0], key)
    parts.clock.seconds += 2
    caller = await parts.caller(processes[0], key)

    assert wrong == [WRONG] * 5
    assert locked == [LOCKED] * 5
    assert still == LOCKED
    assert caller.user_id == parts.demo.user_id
    assert await parts.refusal(processes[0], key, "x") == WRONG  # a new count


async def test_wrong_signatures_now_and_then_lock_nothing(parts: Parts) -> None:
    keys = parts.process()
    key = await parts.made(keys)

    for _ in range(8):
        assert await parts.refusal(keys, key, "x") == WRONG
        parts.clock.seconds += 90

    assert (await parts.caller(keys, key)).user_id == parts.demo.user_id


async def test_many_wrong_signatures_at_once_are_all_counted(parts: Parts) -> None:
    keys = parts.process()
    key = await parts.made(keys)
    claims = [await keys.claim(parts.signed(key, "x")) for _ in range(5)]

    answers = await asyncio.gather(*(keys.proved(claim, EMPTY) for claim in claims), return_exceptions=True)

    assert all(isinstance(answer, SignatureRefused) for answer in answers)
    assert await parts.refusal(keys, key) == LOCKED


async def test_of_many_keys_made_at_once_no_more_are_made_than_a_user_may_have(parts: Parts) -> None:
    keys = parts.process()

    made = await asyncio.gather(*(parts.made(keys) for _ in range(MOST_KEYS_OF_USER + 5)), return_exceptions=True)

    assert sum(isinstance(one, NewAccessKey) for one in made) == MOST_KEYS_OF_USER
    assert sum(isinstance(one, TooManyAccessKeys) for one in made) == 5
    assert len(await keys.all(parts.demo, parts.demo.user_id)) == MOST_KEYS_OF_USER


@pytest.mark.parametrize("table", ["users", "projects"])
async def test_a_key_goes_with_its_owner_and_its_project(parts: Parts, table: str) -> None:
    keys = parts.process()
    key = await parts.made(keys)
    gone = parts.demo.user_id if table == "users" else parts.demo.project_id

    executed(parts, f"DELETE FROM {table} WHERE id = '{gone}'")  # noqa: S608 - of the test's own

    with pytest.raises(IdentityNotFound):
        await keys.one(parts.demo, parts.demo.user_id, key.key.access)


async def test_a_key_whose_signing_key_was_removed_is_void(parts: Parts) -> None:
    key = await parts.made(parts.process())
    parts.signing["new"] = SigningKey(id="new", secret=b"n" * 32, created_at=1)
    other_key_signs = await parts.caller(parts.process(), key)

    del parts.signing["k"]

    assert other_key_signs.user_id == parts.demo.user_id
    assert "ak not exist" in await parts.refusal(parts.process(), key)


def test_a_sealed_secret_is_opened_for_its_owner_with_its_key_only() -> None:
    key = SIGNING["k"]
    text = sealing.sealed("the secret", "AK1", key)
    other = SigningKey(id="k", secret=b"t" * 32, created_at=0)

    assert sealing.opened(text, "AK1", SIGNING) == "the secret"
    assert "secret" not in text
    assert text != sealing.sealed("the secret", "AK1", key)
    assert sealing.opened(text, "AK2", SIGNING) is None
    assert sealing.opened(text, "AK1", {"k": other}) is None
    assert sealing.opened(text, "AK1", {"l": key}) is None
    for broken in ("", "k", "k.", "k.!", text[:-4], new_id()):
        assert sealing.opened(broken, "AK1", SIGNING) is None
