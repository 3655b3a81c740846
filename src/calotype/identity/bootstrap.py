"""The first start: a domain, roles, two users with a project each, a key that signs tokens, and `clouds.yaml`."""

import base64
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection

from calotype.db.engine import Database, now_ms
from calotype.identity import clouds, sql
from calotype.identity.directory import new_id
from calotype.identity.model import BUILT_IN_ROLES, DEFAULT_DOMAIN
from calotype.identity.passwords import HASHER, MOST_CHARACTERS, generated, matches
from calotype.identity.tokens import KEY_BYTES
from calotype.settings import Settings, WrongSetting

log = structlog.get_logger()

# User, who has a project of the same name -> roles on it.
USERS: Final[Mapping[str, tuple[str, ...]]] = {"admin": ("admin", "member", "reader"), "demo": ("member", "reader")}
PASSWORD_VARIABLES: Final[Mapping[str, str]] = {"admin": "CALOTYPE_ADMIN_PASSWORD", "demo": "CALOTYPE_DEMO_PASSWORD"}


class Bootstrapped(Struct, frozen=True, kw_only=True):
    first: bool  # whether this was the first start
    clouds_file: Path | None  # None: there is none, and the passwords to write one with are not known here
    clouds_changed: bool


def bootstrap(db: Database, settings: Settings, environment: Mapping[str, str]) -> Bootstrapped:
    """Prepare an empty database; leave another as it is, and bring `clouds.yaml` in step with the settings.

    Several processes may do it at once: one of them does it, the others wait for its end. Passwords are the ones in
    `environment`, or generated; they are known only now and are kept in `clouds.yaml`, which is written before the
    commit, so that no crash leaves users whose passwords nobody has. Raises `WrongSetting` for one that cannot be.
    """
    document = clouds.read(clouds.clouds_file(settings))
    if not _prepared(db):
        passwords = {user: _given(environment, user) or generated() for user in USERS}
        hashes = {user: HASHER.hash(password) for user, password in passwords.items()}
        with db.writing() as connection:
            first = _prepare_in(connection, hashes)
            if first:
                kept = document if document is not None else _set_aside(settings)
                clouds.write(settings, kept, passwords)
        if first:
            return Bootstrapped(first=True, clouds_file=clouds.clouds_file(settings), clouds_changed=True)
        document = clouds.read(clouds.clouds_file(settings))
    return _in_step(db, settings, environment, document)


def _given(environment: Mapping[str, str], user: str) -> str | None:
    password = environment.get(PASSWORD_VARIABLES[user])
    if password and (len(password) > MOST_CHARACTERS or not sql.storable(password)):
        raise WrongSetting(f"{PASSWORD_VARIABLES[user]}: wants text in UTF-8 of at most {MOST_CHARACTERS} characters")
    return password


def _prepared(db: Database) -> bool:
    with db.reading() as connection:
        return connection.execute(sql.DOMAIN, {"id": DEFAULT_DOMAIN}).one_or_none() is not None


def _prepare_in(connection: Connection, hashes: Mapping[str, str]) -> bool:
    """Write everything; False where another process has done it. The domain's row is what only one can add."""
    domain = {"id": DEFAULT_DOMAIN, "name": "Default", "description": "The default domain", "enabled": True}
    if connection.execute(sql.ADD_DOMAIN, domain).rowcount == 0:
        return False
    roles = {name: new_id() for name in BUILT_IN_ROLES}
    for name, role_id in roles.items():
        connection.execute(sql.ADD_ROLE, {"id": role_id, "name": name, "description": ""})
    now = now_ms()
    for name, granted in USERS.items():
        project_id, user_id = new_id(), new_id()
        row: dict[str, Any] = {"domain_id": DEFAULT_DOMAIN, "name": name, "description": "", "enabled": True}
        connection.execute(sql.ADD_PROJECT, {**row, "id": project_id})
        user = {"id": user_id, "password_hash": hashes[name], "email": None, "default_project_id": project_id}
        connection.execute(sql.ADD_USER, {**row, **user, "description": None, "now": now})
        for role in granted:
            assignment = {"user_id": user_id, "role_id": roles[role], "kind": "project", "target_id": project_id}
            connection.execute(sql.ASSIGN, assignment)
        if name == "admin":
            on_domain = {"user_id": user_id, "role_id": roles["admin"], "kind": "domain", "target_id": DEFAULT_DOMAIN}
            connection.execute(sql.ASSIGN, on_domain)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    connection.execute(sql.ADD_SIGNING_KEY, {"id": new_id(), "secret": secret, "now": now})
    return True


def _in_step(
    db: Database, settings: Settings, environment: Mapping[str, str], document: dict[str, Any] | None
) -> Bootstrapped:
    """Keep `clouds.yaml` true where this process knows the passwords: from the file, or from the environment."""
    path = clouds.clouds_file(settings)
    if document is None:
        log.warning("clouds_file_left_alone", reason="clouds.yaml cannot be read as a clouds file")
        return Bootstrapped(first=False, clouds_file=path, clouds_changed=False)
    passwords = {}
    for user in USERS:
        password = clouds.known_password(document, user)
        given = _given(environment, user) if password is None else None
        if given and _is_password(db, user, given):
            password = given
        if password is not None:
            passwords[user] = password
    if not passwords:
        return Bootstrapped(first=False, clouds_file=path if document else None, clouds_changed=False)
    return Bootstrapped(first=False, clouds_file=path, clouds_changed=clouds.write(settings, document, passwords))


def _is_password(db: Database, user: str, password: str) -> bool:
    with db.reading() as connection:
        row = connection.execute(sql.USER_NAMED, {"domain_id": DEFAULT_DOMAIN, "name": user}).one_or_none()
    return row is not None and matches(row.password_hash, password)


def _set_aside(settings: Settings) -> dict[str, Any]:
    """A file that is there and not readable as ours is kept under another name."""
    path = clouds.clouds_file(settings)
    aside = path.with_name(f"{path.name}.{now_ms()}.old")
    path.rename(aside)
    log.warning("clouds_file_set_aside", now=aside.name)
    return {}
