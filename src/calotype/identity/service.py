"""Logins and tokens: issue, check, revoke. Users, projects and roles are in `directory`."""

import asyncio
import time
from collections import OrderedDict
from typing import Any, Final, Self

import structlog
from msgspec import Struct
from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.errors import Forbidden, IdentityNotFound, Unauthenticated, Unavailable
from calotype.identity import sql
from calotype.identity.directory import ADMINISTER, NOT_YOURS, Directory, project_in, project_named_in
from calotype.identity.issuing import after_password_in, from_token_in, sought_in
from calotype.identity.keys import AccessKeys
from calotype.identity.model import Caller, Login, PasswordLogin, Project, Scope, TokenLogin
from calotype.identity.passwords import Passwords
from calotype.identity.permissions import may
from calotype.identity.revocations import Revocations, revoke_token_in, void_in
from calotype.identity.tokens import REFUSED, SigningKey, Token, signed, signing_key, verified
from calotype.settings import Settings

log = structlog.get_logger()

MOST_KNOWN: Final = 4_096  # checked tokens that a process remembers, some kilobytes each
# Tokens are not trusted on older knowledge of revocations than this: the promise is that one is honoured by then.
OLDEST_KNOWLEDGE_S: Final = 60.0


class _Known(Struct):
    """A token whose signature was right. `generation` is that of the revocations it was last held against."""

    token: Token
    caller: Caller
    expires_at: int
    generation: int


class Issued(Struct, frozen=True, kw_only=True):
    token: Token
    wire: str  # what the client sends from now on

    def __repr__(self) -> str:
        return f"Issued(token={self.token!r}, wire=********)"


class Identity:
    """`authenticate` is for every request and needs no database; everything else is a call of the identity API.

    Whoever runs it also runs `keep_fresh` beside it and calls `close` at the end.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._keys: dict[str, SigningKey] = {}
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._revocations = Revocations()
        self._passwords = Passwords()
        self._fresh_until = 0.0
        self.directory = Directory(db, self._revocations, self._passwords, region=settings.region)
        self.access_keys = AccessKeys(
            db, self._revocations, lambda: self._keys, fresh_s=settings.identity.revocation_refresh_s
        )

    @classmethod
    async def open(cls, db: Database, settings: Settings) -> Self:
        """Raises `Unavailable` on a database that `bootstrap` has not prepared."""
        identity = cls(db, settings)
        await identity.refresh()
        return identity

    def close(self) -> None:
        self._passwords.close()

    # --- checking -----------------------------------------------------------------------------------------------------

    def authenticate(self, token: str) -> Caller:
        """Who holds this token. Raises `Unauthenticated`: forged, expired and revoked ones are refused alike."""
        known = self._known.get(token)
        if known is None:
            known = self._remembered(token)
        if time.monotonic() > self._fresh_until:
            raise Unavailable("the revoked tokens could not be read for too long; try again shortly")
        if known.generation != self._revocations.generation:
            if self._revocations.void(known.token):
                self._known.pop(token, None)
                raise Unauthenticated(REFUSED)
            known.generation = self._revocations.generation
        if known.expires_at <= now_ms():
            self._known.pop(token, None)
            raise Unauthenticated(REFUSED)
        self._known.move_to_end(token)
        return known.caller

    def _remembered(self, wire: str) -> _Known:
        token = verified(wire, self._keys)
        known = _Known(token=token, caller=token.caller(), expires_at=token.expires_at, generation=-1)
        self._known[wire] = known
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return known

    async def refresh(self) -> None:
        """Read what other processes have revoked, and the signing keys. Raises `Unavailable` when that fails."""
        asked_at = time.monotonic()
        self._revocations.about_to_read()
        keys, changed = await self._db.read(self._read_in)
        if not keys:
            raise Unavailable("the database holds no signing key; the first start has not prepared it")
        if keys != self._keys:
            self._keys = keys
            self._known.clear()  # what a removed key signed is void
        self._revocations.replace(changed)
        self._fresh_until = asked_at + OLDEST_KNOWLEDGE_S

    def _read_in(self, connection: Connection) -> tuple[dict[str, SigningKey], Any]:
        keys = [sql.signing_key(row) for row in connection.execute(sql.SIGNING_KEYS)]
        return {key.id: key for key in keys}, self._revocations.changed_in(connection, now_ms())

    async def keep_fresh(self) -> None:
        """Refresh for ever, every `identity.revocation_refresh_s`. A database that is away is asked again."""
        while True:
            await asyncio.sleep(self._settings.identity.revocation_refresh_s)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed; giving up would refuse all
                log.warning("revocations_not_read", reason=type(error).__name__)

    # --- issuing ------------------------------------------------------------------------------------------------------

    async def log_in(self, login: Login, scope: Scope) -> Issued:
        """A new token. Raises `Unauthenticated`, in the same words whatever was wrong."""
        if isinstance(login, TokenLogin):
            parent = self.token(login.token)
            token = await self._db.read(lambda connection: from_token_in(connection, parent, scope))
        else:
            token = await self._from_password(login, scope)
        return Issued(token=token, wire=signed(token, signing_key(self._keys, now_ms())))

    async def _from_password(self, login: PasswordLogin, scope: Scope) -> Token:
        who, row = await self._db.read(lambda connection: sought_in(connection, login.user))
        known_hash = row.password_hash if row is not None else None
        await self._passwords.check(who, known_hash, login.password)
        user_id = row.id if row is not None else ""
        expires_at = now_ms() + self._settings.identity.token_lifetime_s * 1000
        return await self._db.read(
            lambda connection: after_password_in(connection, user_id, known_hash, scope, expires_at)
        )

    def token(self, wire: str) -> Token:
        """What a token in force says. Raises as `authenticate`."""
        self.authenticate(wire)
        return self._known[wire].token

    async def token_of(self, caller: Caller, wire: str) -> Token:
        """Another token, for who may see it: its own user, or an admin. What other processes revoked counts at once.

        Raises `IdentityNotFound` when it is not in force, `Forbidden` when it is another user's.
        """
        try:
            token = self.token(wire)
        except Unauthenticated as error:
            raise IdentityNotFound("Could not find token.") from error
        if token.user.id != caller.user_id and not may(caller, ADMINISTER):
            raise Forbidden(NOT_YOURS)
        if await self._db.read(lambda connection: void_in(connection, token)):
            raise IdentityNotFound("Could not find token.")
        return token

    async def revoke(self, caller: Caller, wire: str) -> None:
        """Void one token, here at once, elsewhere within a minute. Raises as `token_of`."""
        token = await self.token_of(caller, wire)
        self._revocations.learn([await self._db.write(lambda connection: revoke_token_in(connection, token, now_ms()))])

    # --- lookups of other parts ---------------------------------------------------------------------------------------

    async def project(self, id_or_name: str) -> Project:
        """A project by its id, or by its name (in the default domain first). Raises `IdentityNotFound`."""

        def find(connection: Connection) -> Project:
            found = project_named_in(connection, id_or_name)
            return project_in(connection, found or "")

        return await self._db.read(find)

    async def project_exists(self, project_id: str) -> bool:
        """Whether there is such a project; a name is none."""
        if not sql.storable(project_id):
            return False
        return await self._db.read(
            lambda connection: connection.execute(sql.PROJECT, {"id": project_id}).one_or_none() is not None
        )
