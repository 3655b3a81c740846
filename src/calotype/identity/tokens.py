"""Tokens: what one says, and its form on the wire, a JWT signed with HMAC-SHA-256 (RFC 7515, RFC 7519).

The claims are this service's own, in milliseconds and complete, so that checking a token needs no database.
"""

import base64
import re
import secrets
from collections.abc import Mapping
from typing import Final, Self

import jwt
import msgspec
from msgspec import Struct

from calotype.errors import Unauthenticated
from calotype.identity.model import Caller, ProjectId, Target, TargetKind, UserId

ALGORITHM: Final = "HS256"
KEY_BYTES: Final = 32
MOST_TOKEN_CHARACTERS: Final = 8192
REFUSED: Final = "The request you have made requires authentication."  # Keystone's words, the same for every reason
# A new key signs only when every process had time to read it.
KEY_SETTLES_MS: Final = 60_000
_WIRE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JWS: Final = jwt.PyJWS(algorithms=[ALGORITHM])


class Ref(Struct, frozen=True, array_like=True):
    """An id and the name it had when the token was issued."""

    id: str
    name: str


class Subject(Struct, frozen=True):
    """What tokens can be revoked by: one token, or all of a user, of a user on one target, of a project or a domain."""

    kind: str  # token user project domain
    id: str  # of a token: user id, "/", audit id; of a user on a target: user id, "/", its kind, "/", its id

    @classmethod
    def user_on(cls, user_id: str, target: Target) -> Self:
        return cls("user", f"{user_id}/{target.kind.value}/{target.id}")


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. Exactly one of `project` and `domain` is set, or none when it is unscoped."""

    user: Ref
    user_domain: Ref
    project: Ref | None = None
    project_domain: Ref | None = None
    domain: Ref | None = None
    roles: tuple[Ref, ...] = ()
    methods: tuple[str, ...]
    audit_ids: tuple[str, ...]  # its own, then that of the token it was made from
    issued_at: int  # ms
    expires_at: int  # ms

    def caller(self) -> Caller:
        return Caller(
            user_id=UserId(self.user.id),
            user_name=self.user.name,
            user_domain_id=self.user_domain.id,
            project_id=ProjectId(self.project.id) if self.project else None,
            project_name=self.project.name if self.project else None,
            domain_id=self.domain.id if self.domain else None,
            roles=frozenset(role.name for role in self.roles),
            audit_id=self.audit_ids[0],
            issued_at=self.issued_at,
            expires_at=self.expires_at,
        )

    @property
    def itself(self) -> Subject:
        return Subject("token", f"{self.user.id}/{self.audit_ids[0]}")

    def subjects(self) -> list[Subject]:
        """Every subject whose revocation concerns this token."""
        user = self.user.id
        found = [self.itself, Subject("user", user), Subject("domain", self.user_domain.id)]
        if self.project is not None:
            found += [
                Subject("project", self.project.id),
                Subject.user_on(user, Target(TargetKind.PROJECT, self.project.id)),
            ]
        if self.project_domain is not None:
            found.append(Subject("domain", self.project_domain.id))
        if self.domain is not None:
            found += [
                Subject("domain", self.domain.id),
                Subject.user_on(user, Target(TargetKind.DOMAIN, self.domain.id)),
            ]
        return found


class SigningKey(Struct, frozen=True, kw_only=True):
    id: str
    secret: bytes
    created_at: int  # ms

    def __repr__(self) -> str:
        return f"SigningKey(id={self.id!r})"


class _Header(Struct, frozen=True):
    kid: str


def new_audit_id() -> str:
    """16 random bytes as 22 characters, the form of Keystone's."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


def signing_key(keys: Mapping[str, SigningKey], now: int) -> SigningKey:
    """The newest key that every process knows by now; the oldest where all are new."""
    in_order = sorted(keys.values(), key=lambda key: (key.created_at, key.id))
    settled = [key for key in in_order if key.created_at <= now - KEY_SETTLES_MS]
    return settled[-1] if settled else in_order[0]


def signed(token: Token, key: SigningKey) -> str:
    return _JWS.encode(msgspec.json.encode(token), key.secret, algorithm=ALGORITHM, headers={"kid": key.id})


def verified(wire: str, keys: Mapping[str, SigningKey]) -> Token:
    """Return what the token says when one of `keys` signed it; whether it is in force is another question.

    Raises `Unauthenticated` for anything else.
    """
    if len(wire) > MOST_TOKEN_CHARACTERS or _WIRE.fullmatch(wire) is None:
        raise Unauthenticated(REFUSED)
    try:
        header = wire[: wire.index(".")]
        # Only to find the key; PyJWT reads the header again and lets in one algorithm.
        named = msgspec.json.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)), type=_Header)
        key = keys.get(named.kid)
        if key is None:
            raise Unauthenticated(REFUSED)
        return msgspec.json.decode(_JWS.decode(wire, key.secret, algorithms=[ALGORITHM]), type=Token)
    except (jwt.PyJWTError, msgspec.DecodeError, ValueError) as error:
        raise Unauthenticated(REFUSED) from error
