"""Tokens that the service makes for itself, to ask another service for what a user wants."""

from typing import Final

from calotype.db.engine import Database, now_ms
from calotype.errors import Unavailable
from calotype.identity import sql
from calotype.identity.issuing import on_behalf_in
from calotype.identity.tokens import signed, signing_key

LIFETIME_MS: Final = 10 * 60 * 1000  # a token is looked at when a request begins, however long its answer takes


def token_for(db: Database, user_id: str, project_id: str) -> str:
    """A short-lived token with the roles that the user has on the project now. Waits for the database.

    Raises `Unauthenticated` when the user or project is disabled or gone, or has no role there any more.
    """
    now = now_ms()
    with db.reading() as c:
        token = on_behalf_in(c, user_id, project_id, now + LIFETIME_MS)
        keys = [sql.signing_key(row) for row in c.execute(sql.SIGNING_KEYS)]
    if not keys:
        raise Unavailable("the database holds no signing key")
    return signed(token, signing_key({key.id: key for key in keys}, now))
