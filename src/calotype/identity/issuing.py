"""What a token says, in one transaction: who logs in, what for, and that all of it is true at one moment."""

from typing import Any

from sqlalchemy import Connection, Row

from calotype.db.engine import now_ms
from calotype.errors import Unauthenticated
from calotype.identity import sql
from calotype.identity.directory import domain_in, roles_in
from calotype.identity.model import (
    Domain,
    DomainNamed,
    DomainScope,
    Named,
    Project,
    ProjectScope,
    Role,
    Scope,
    Target,
    TargetKind,
    User,
)
from calotype.identity.revocations import dated_in, void_in
from calotype.identity.tokens import REFUSED, Ref, Token, new_audit_id

# The scope of a token: the project (None: the domain itself), the domain, and the user's roles there.
_Found = tuple[Project | None, Domain, list[Role]]


def sought_in(connection: Connection, named: Named) -> tuple[str, Row[Any] | None]:
    """What failures of this login are counted by, and the user's row, if there is such a user."""
    if named.id is not None:
        row = connection.execute(sql.USER, {"id": named.id}).one_or_none() if sql.storable(named.id) else None
        return named.id[:255], row
    domain = _domain_named_in(connection, named.domain)
    name = named.name or ""
    if domain is None or not sql.storable(name):
        return f"{named.domain!r}/{name}"[:512], None
    row = connection.execute(sql.USER_NAMED, {"domain_id": domain.id, "name": name}).one_or_none()
    return (row.id if row is not None else f"{domain.id}/{name}"[:512]), row


def after_password_in(
    connection: Connection, user_id: str, checked_hash: str | None, scope: Scope, expires_at: int
) -> Token:
    """Read everything again: what was true while the password was hashed need not be true now."""
    sql.one_snapshot(connection)
    row = connection.execute(sql.USER, {"id": user_id}).one_or_none()
    if row is None or row.password_hash != checked_hash:
        raise Unauthenticated(REFUSED)
    return _issued_in(connection, sql.user(row), scope, ("password",), (), expires_at)


def from_token_in(connection: Connection, parent: Token, scope: Scope) -> Token:
    """Another token for the holder of `parent`, with its expiry."""
    sql.one_snapshot(connection)
    row = connection.execute(sql.USER, {"id": parent.user.id}).one_or_none()
    if row is None or void_in(connection, parent):
        raise Unauthenticated(REFUSED)
    methods = ("token", *(method for method in parent.methods if method != "token"))
    return _issued_in(connection, sql.user(row), scope, methods, parent.audit_ids[:1], parent.expires_at)


def on_behalf_in(connection: Connection, user_id: str, project_id: str, expires_at: int) -> Token:
    """A token for work that the service does for a user: with the roles that the user has on the project now."""
    sql.one_snapshot(connection)
    row = connection.execute(sql.USER, {"id": user_id}).one_or_none()
    if row is None:
        raise Unauthenticated(REFUSED)
    return _issued_in(connection, sql.user(row), ProjectScope(project=Named(id=project_id)), ("token",), (), expires_at)


def with_key_in(connection: Connection, user_id: str, scope: Scope, expires_at: int) -> Token:
    """What a token of the owner of an access key would say now. It is never issued."""
    sql.one_snapshot(connection)
    row = connection.execute(sql.USER, {"id": user_id}).one_or_none()
    if row is None:
        raise Unauthenticated(REFUSED)
    return _issued_in(connection, sql.user(row), scope, ("ec2credential",), (), expires_at)


def _issued_in(
    connection: Connection,
    user: User,
    scope: Scope,
    methods: tuple[str, ...],
    made_from: tuple[str, ...],
    expires_at: int,
) -> Token:
    issued_at = now_ms()
    domain = domain_in(connection, user.domain_id)
    if not (user.enabled and domain.enabled):
        raise Unauthenticated(REFUSED)
    found = _target_in(connection, user, scope)
    project, of_domain, roles = found if found is not None else (None, None, [])
    token = Token(
        user=Ref(user.id, user.name),
        user_domain=Ref(domain.id, domain.name),
        project=Ref(project.id, project.name) if project else None,
        project_domain=Ref(of_domain.id, of_domain.name) if project and of_domain else None,
        domain=Ref(of_domain.id, of_domain.name) if of_domain and not project else None,
        roles=tuple(Ref(role.id, role.name) for role in roles),
        methods=methods,
        audit_ids=(new_audit_id(), *made_from),
        issued_at=issued_at,
        expires_at=expires_at,
    )
    return dated_in(connection, token)


def _target_in(connection: Connection, user: User, scope: Scope) -> _Found | None:
    """None: unscoped. Raises `Unauthenticated` when the scope is unknown or disabled, or the user has no role on it."""
    if isinstance(scope, DomainScope):
        domain = _domain_named_in(connection, scope.domain)
        if domain is None or not domain.enabled:
            raise Unauthenticated(REFUSED)
        roles = roles_in(connection, user.id, Target(TargetKind.DOMAIN, domain.id))
        found: _Found | None = (None, domain, roles) if roles else None
    elif isinstance(scope, ProjectScope):
        found = _project_scope_in(connection, user, scope.project)
    elif scope is None and user.default_project_id is not None:
        return _project_scope_in(connection, user, Named(id=user.default_project_id))
    else:
        return None
    if found is None:
        raise Unauthenticated(REFUSED)
    return found


def _project_scope_in(connection: Connection, user: User, named: Named) -> _Found | None:
    if named.id is not None:
        row = connection.execute(sql.PROJECT, {"id": named.id}).one_or_none() if sql.storable(named.id) else None
    else:
        domain = _domain_named_in(connection, named.domain)
        name = named.name or ""
        if domain is None or not sql.storable(name):
            return None
        row = connection.execute(sql.PROJECT_NAMED, {"domain_id": domain.id, "name": name}).one_or_none()
    if row is None:
        return None
    project = sql.project(row)
    domain = domain_in(connection, project.domain_id)
    roles = roles_in(connection, user.id, Target(TargetKind.PROJECT, project.id))
    return (project, domain, roles) if project.enabled and domain.enabled and roles else None


def _domain_named_in(connection: Connection, named: DomainNamed | None) -> Domain | None:
    if named is None:
        return None
    if named.id is not None:
        row = connection.execute(sql.DOMAIN, {"id": named.id}).one_or_none() if sql.storable(named.id) else None
    elif named.name is not None and sql.storable(named.name):
        row = connection.execute(sql.DOMAIN_NAMED, {"name": named.name}).one_or_none()
    else:
        row = None
    return sql.domain(row) if row is not None else None
