"""Which tokens are void before they expire: written with what causes it, and known in memory to each process."""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct, structs
from sqlalchemy import Connection

from calotype.identity import sql
from calotype.identity.tokens import Subject, Token

# A revocation reaches so far ahead of the moment it is written at. A token made from what was true before it (by a
# transaction that began earlier, or on a host whose clock is ahead) is void with the others; one made afterwards sees
# the revocation in its own transaction and is dated behind it.
MARGIN_MS: Final = 2_000
LONGEST_LIFETIME_MS: Final = 30 * 86_400_000  # that the settings allow, so that a changed setting revives no token
# A user who revokes more tokens than this one by one has all of them revoked: what is kept in memory has a bound.
MOST_TOKENS_OF_USER: Final = 1_000


class Revocation(Struct, frozen=True, kw_only=True):
    """Tokens of the subject that were issued before `before` are void."""

    subject: Subject
    before: int  # ms
    expires_at: int  # ms; the last token concerned has expired by itself


Read = tuple[tuple[int, str], dict[Subject, int]]  # the state that was read, and what it holds


class Revocations:
    """What this process knows. `generation` changes with every change, so that a verdict can be kept meanwhile."""

    def __init__(self) -> None:
        self.generation = 0
        self._before: dict[Subject, int] = {}
        self._state = (0, "0")
        self._learned: list[Revocation] = []  # since the last `about_to_read`: a reading may have missed them

    def void(self, token: Token) -> bool:
        known = self._before
        return any(token.issued_at < known.get(subject, 0) for subject in token.subjects())

    def learn(self, revocations: Sequence[Revocation]) -> None:
        """What this process has committed itself."""
        if not revocations:
            return
        self._learned.extend(revocations)
        self._add(revocations)
        self.generation += 1

    def about_to_read(self) -> None:
        self._learned = []

    def changed_in(self, connection: Connection, now: int) -> Read | None:
        """Every revocation that still matters, or None where nothing has changed since the last `replace`."""
        row = connection.execute(sql.REVOCATIONS_STATE).one()
        state = (int(row.amount), str(row.total))
        if state == self._state:
            return None
        rows = connection.execute(sql.REVOCATIONS, {"now": now})
        return state, {Subject(row.subject_kind, row.subject_id): row.before for row in rows}

    def replace(self, read: Read | None) -> None:
        """Know what `changed_in` has read, and what was learned meanwhile."""
        if read is None:
            return
        self._state, self._before = read
        self._add(self._learned)
        self.generation += 1

    def _add(self, revocations: Iterable[Revocation]) -> None:
        for revocation in revocations:
            self._before[revocation.subject] = max(revocation.before, self._before.get(revocation.subject, 0))


def revoke_in(connection: Connection, subject: Subject, now: int) -> Revocation:
    """Void every token of the subject that was issued up to now. The caller lets `Revocations.learn` know after the
    commit."""
    revocation = Revocation(subject=subject, before=now + MARGIN_MS, expires_at=now + MARGIN_MS + LONGEST_LIFETIME_MS)
    _write(connection, revocation, now)
    if subject.kind == "user":
        connection.execute(sql.REMOVE_REVOKED_TOKENS_OF, {"prefix": f"{subject.id}/%"})
    return revocation


def revoke_token_in(connection: Connection, token: Token, now: int) -> Revocation:
    count = connection.execute(sql.REVOKED_TOKENS_OF, {"prefix": f"{token.user.id}/%"}).scalar_one()
    if count >= MOST_TOKENS_OF_USER:
        return revoke_in(connection, Subject("user", token.user.id), now)
    # The token has one date of issue; whatever the clocks say, it lies before this.
    before = max(now, token.issued_at) + MARGIN_MS
    revocation = Revocation(subject=token.itself, before=before, expires_at=token.expires_at)
    _write(connection, revocation, now)
    return revocation


def void_in(connection: Connection, token: Token) -> bool:
    """As `Revocations.void`, from the database: for what is about to be issued on the strength of this token."""
    return any(token.issued_at < _before_in(connection, subject) for subject in token.subjects())


def dated_in(connection: Connection, token: Token) -> Token:
    """The token with a date of issue that no revocation up to now reaches."""
    first = max(_before_in(connection, subject) for subject in token.subjects())
    return structs.replace(token, issued_at=max(token.issued_at, first))


def _before_in(connection: Connection, subject: Subject) -> int:
    found = connection.execute(sql.REVOKED_BEFORE, {"kind": subject.kind, "id": subject.id}).scalar_one_or_none()
    return int(found or 0)


def _write(connection: Connection, revocation: Revocation, now: int) -> None:
    connection.execute(sql.REMOVE_EXPIRED_REVOCATIONS, {"now": now})
    connection.execute(
        sql.REVOKE,
        {
            "kind": revocation.subject.kind,
            "id": revocation.subject.id,
            "before": revocation.before,
            "expires_at": revocation.expires_at,
        },
    )
