"""Access keys: made, shown and deleted by their users; and whose request it is that was signed with one."""

import secrets
import string
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from msgspec import Struct, structs
from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.errors import (
    Forbidden,
    IdentityNotFound,
    SignatureRefused,
    TooManyAccessKeys,
    Unauthenticated,
    WrongProject,
)
from calotype.identity import sealing, signatures, sql
from calotype.identity.directory import ADMINISTER, NOT_YOURS, project_in, roles_in, user_in
from calotype.identity.issuing import with_key_in
from calotype.identity.model import (
    AccessKey,
    Caller,
    DomainNamed,
    DomainScope,
    Named,
    ProjectId,
    ProjectScope,
    Scope,
    Target,
    TargetKind,
    Unscoped,
    UserId,
)
from calotype.identity.permissions import may
from calotype.identity.revocations import Revocations
from calotype.identity.signatures import Authorization, Message
from calotype.identity.tokens import SigningKey, signing_key

log = structlog.get_logger()

MOST_KEYS_OF_USER: Final = 20
ACCESS_CHARACTERS: Final = 20  # 103 bits
SECRET_CHARACTERS: Final = 40  # 238 bits
FAILURES: Final = 5  # wrong signatures of one key, counted in the database, within ...
WITHIN_MS: Final = 300_000
LOCKED_MS: Final = 300_000  # ... and none is looked at for so long
LOCKED: Final = "AK access failed to reach the limit,forbidden"
MOST_KNOWN: Final = 4_096  # keys that a process remembers
MOST_SCOPES: Final = 64  # of one key
CALLER_MS: Final = 15 * 60_000  # how long a caller is said to be one; a request is looked at when it begins


class NewAccessKey(Struct, frozen=True, kw_only=True):
    key: AccessKey
    secret: str

    def __repr__(self) -> str:
        return f"NewAccessKey(key={self.key!r}, secret=********)"


class _Known(Struct, kw_only=True):
    """A key as it was read at `read_at`, when the revocations had the `generation`."""

    key: AccessKey
    secret: str
    locked_until: int
    callers: dict[Scope, Caller]
    read_at: float
    generation: int
    is_read_again: bool = False

    def __repr__(self) -> str:
        return f"_Known(key={self.key!r}, secret=********)"


class Claim(Struct, frozen=True, kw_only=True):
    """A request that says who has signed it. Nothing is proved yet."""

    message: Message
    authorization: Authorization


class AccessKeys:
    """Checking a signature needs no database, but for a look every `fresh_s` at the key and its owner's roles: what
    was changed elsewhere counts by then, what was changed in this process at once."""

    def __init__(
        self,
        db: Database,
        revocations: Revocations,
        signing_keys: Callable[[], Mapping[str, SigningKey]],
        *,
        fresh_s: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._db = db
        self._revocations = revocations
        self._signing_keys = signing_keys
        self._fresh_s = fresh_s
        self._clock = clock
        self._now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()

    # --- keeping them -------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, user_id: str, project_id: str) -> NewAccessKey:
        """A key of the user, whose requests are of the project where they name none. Admins may make one for others.

        Raises `Forbidden`, also when the user has no role on the project; `IdentityNotFound`, `TooManyAccessKeys`.
        """
        _concerns(caller, user_id)
        key = AccessKey(
            access=_random(string.ascii_uppercase + string.digits, ACCESS_CHARACTERS),
            user_id=UserId(user_id),
            project_id=ProjectId(project_id),
            created_at=self._now(),
        )
        secret = _random(string.ascii_letters + string.digits, SECRET_CHARACTERS)
        sealed = sealing.sealed(secret, key.access, signing_key(self._signing_keys(), self._now()))
        await self._db.write(lambda connection: _add_in(connection, key, sealed))
        log.info("access_key_created", access=key.access, user_id=user_id, project_id=project_id)
        return NewAccessKey(key=key, secret=secret)

    async def all(self, caller: Caller, user_id: str) -> list[AccessKey]:
        """The user's, oldest first."""
        _concerns(caller, user_id)

        def find(connection: Connection) -> list[AccessKey]:
            user_in(connection, user_id)
            return [sql.access_key(row) for row in connection.execute(sql.ACCESS_KEYS, {"user_id": user_id})]

        return await self._db.read(find)

    async def one(self, caller: Caller, user_id: str, access: str) -> AccessKey:
        _concerns(caller, user_id)
        row = await self._db.read(lambda connection: _row_in(connection, access))
        if row is None or row.user_id != user_id:
            raise _unknown(access)
        return sql.access_key(row)

    async def delete(self, caller: Caller, user_id: str, access: str) -> None:
        """Void here at once, elsewhere within `fresh_s`."""
        _concerns(caller, user_id)
        if not (sql.storable(access) and sql.storable(user_id)):
            raise _unknown(access)
        values = {"access": access, "user_id": user_id}
        if await self._db.write(lambda connection: connection.execute(sql.REMOVE_ACCESS_KEY, values).rowcount) == 0:
            raise _unknown(access)
        self._known.pop(access, None)
        log.info("access_key_deleted", access=access, user_id=user_id)

    # --- checking -----------------------------------------------------------------------------------------------------

    async def claim(self, message: Message) -> Claim:
        """Who says to have signed this. Raises `SignatureRefused` where no body could make it right."""
        if message.header("x-security-token") is not None:
            raise SignatureRefused("temporary access keys (X-Security-Token) are not offered; sign with a lasting one")
        claim = Claim(message=message, authorization=signatures.authorization(message, self._now()))
        await self._fresh(claim)
        return claim

    async def proved(self, claim: Claim, *hashes: str) -> str:
        """The one of `hashes` that stands for the body in what was signed.

        Raises `SignatureRefused` when none does, and counts that; also when the key was deleted or locked meanwhile.
        """
        known = await self._fresh(claim)
        for hashed in hashes:
            if signatures.is_right(known.secret, claim.authorization, claim.message, hashed):
                return hashed
        await self._failed(claim.authorization.access)
        raise SignatureRefused(signatures.WRONG)

    async def caller(self, claim: Claim, *, path_project: str | None) -> Caller:
        """The owner of the key, with the roles on what the request is about: the project of X-Project-Id, else of the
        path, else the domain of X-Domain-Id, else the key's project.

        Raises `SignatureRefused` when that is none of the owner's, or the owner is disabled; for a project in the path
        `WrongProject`.
        """
        known = await self._fresh(claim)
        named, domain_id = claim.message.header("x-project-id"), claim.message.header("x-domain-id")
        project_id = named or path_project
        scope: Scope = ProjectScope(project=Named(id=project_id or known.key.project_id))
        if not project_id and domain_id:
            scope = DomainScope(domain=DomainNamed(id=domain_id))
        caller = known.callers.get(scope)
        if caller is not None:
            return caller
        try:
            caller = await self._db.read(lambda connection: _caller_in(connection, known.key, scope, self._now()))
        except Unauthenticated as error:
            if path_project and not named:
                raise WrongProject("the project in the path is none of the key owner's") from error
            what = "X-Project-Id" if named else "X-Domain-Id" if domain_id else "the project of the key"
            raise SignatureRefused(f"{what} is none where the owner of the key has a role now") from error
        if len(known.callers) >= MOST_SCOPES:
            known.callers.clear()
        known.callers[scope] = caller
        return caller

    async def _fresh(self, claim: Claim) -> _Known:
        """The key, as it was at most `fresh_s` ago, or twice that while it is read again. Raises `SignatureRefused`
        for one that is not there, or locked."""
        access = claim.authorization.access
        known = self._known.get(access)
        if known is None or not self._is_fresh(known):
            known = await self._read(access)
        if known is None:
            raise SignatureRefused(f"Get secretKey failed,ak:{access},err:ak not exist")
        if known.locked_until > self._now():
            raise SignatureRefused(LOCKED)
        return known

    def _is_fresh(self, known: _Known) -> bool:
        """Of those who find one too old, the first reads it again."""
        age = self._clock() - known.read_at
        if known.generation != self._revocations.generation or age >= 2 * self._fresh_s:
            return False
        if age >= self._fresh_s and not known.is_read_again:
            known.is_read_again = True
            return False
        return True

    async def _read(self, access: str) -> _Known | None:
        generation, read_at = self._revocations.generation, self._clock()
        row = await self._db.read(lambda connection: _row_in(connection, access))
        secret = sealing.opened(row.secret, access, self._signing_keys()) if row is not None else None
        if row is None or secret is None:
            self._known.pop(access, None)
            if row is not None:
                log.warning("access_key_not_readable", access=access)
            return None
        known = _Known(
            key=sql.access_key(row),
            secret=secret,
            locked_until=row.locked_until,
            callers={},
            read_at=read_at,
            generation=generation,
        )
        self._known[access] = known
        self._known.move_to_end(access)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return known

    async def _failed(self, access: str) -> None:
        now = self._now()
        values = {"access": access, "now": now, "since": now - WITHIN_MS, "most": FAILURES, "until": now + LOCKED_MS}
        row = await self._db.write(lambda connection: connection.execute(sql.ACCESS_KEY_FAILED, values).one_or_none())
        if row is None:
            return
        known = self._known.get(access)
        if known is not None:
            known.locked_until = row.locked_until
        log.warning("signature_wrong", access=access, failures=row.failures, locked=row.locked_until > now)


# --- in a transaction -------------------------------------------------------------------------------------------------


def _row_in(connection: Connection, access: str) -> Any:
    return connection.execute(sql.ACCESS_KEY, {"access": access}).one_or_none() if sql.storable(access) else None


def _add_in(connection: Connection, key: AccessKey, sealed: str) -> None:
    user_in(connection, key.user_id)
    project_in(connection, key.project_id)
    if not roles_in(connection, key.user_id, Target(TargetKind.PROJECT, key.project_id)):
        raise Forbidden("the user has no role on the project")
    connection.execute(sql.HOLD_USER, {"id": key.user_id})
    count = connection.execute(sql.ACCESS_KEYS_COUNT, {"user_id": key.user_id}).scalar_one()
    if count >= MOST_KEYS_OF_USER:
        raise TooManyAccessKeys(MOST_KEYS_OF_USER)
    values = {
        "access": key.access,
        "secret": sealed,
        "user_id": key.user_id,
        "project_id": key.project_id,
        "now": key.created_at,
    }
    connection.execute(sql.ADD_ACCESS_KEY, values)


def _caller_in(connection: Connection, key: AccessKey, scope: Scope, now: int) -> Caller:
    expires_at = now + CALLER_MS
    try:
        token = with_key_in(connection, key.user_id, scope, expires_at)
    except Unauthenticated:
        if not isinstance(scope, DomainScope):
            raise
        # The SDK names the domain that the user is in, whether or not the user has a role on it.
        token = with_key_in(connection, key.user_id, Unscoped(), expires_at)
        if token.user_domain.id != scope.domain.id:
            raise
    return structs.replace(token.caller(), audit_id=key.access)


def _concerns(caller: Caller, user_id: str) -> None:
    if user_id != caller.user_id and not may(caller, ADMINISTER):
        raise Forbidden(NOT_YOURS)


def _unknown(access: str) -> IdentityNotFound:
    return IdentityNotFound(f"Could not find credential: {access[:128]}.")


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
