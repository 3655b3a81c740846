"""The statements of identity, and how their rows become values. Nothing else touches these tables."""

import base64
from typing import Any, Final

from sqlalchemy import Connection, text

from calotype.identity.model import (
    AccessKey,
    Assignment,
    Domain,
    DomainId,
    Project,
    ProjectId,
    Role,
    RoleId,
    Target,
    TargetKind,
    User,
    UserId,
)
from calotype.identity.tokens import SigningKey

# --- domains ----------------------------------------------------------------------------------------------------------

# Add a domain; no row comes back when its id or name is taken.
ADD_DOMAIN: Final = text("""
INSERT INTO domains (id, name, description, enabled) VALUES (:id, :name, :description, :enabled)
ON CONFLICT DO NOTHING
""")

DOMAIN: Final = text("SELECT id, name, description, enabled FROM domains WHERE id = :id")

DOMAIN_NAMED: Final = text("SELECT id, name, description, enabled FROM domains WHERE name = :name")

DOMAINS: Final = text("""
SELECT id, name, description, enabled FROM domains
 WHERE (CAST(:name AS TEXT) IS NULL OR name = :name)
   AND (CAST(:enabled AS BOOLEAN) IS NULL OR enabled = :enabled)
   AND id > :marker
 ORDER BY id LIMIT :limit
""")

CHANGE_DOMAIN: Final = text("""
UPDATE domains SET name = :name, description = :description, enabled = :enabled WHERE id = :id
""")

REMOVE_DOMAIN: Final = text("DELETE FROM domains WHERE id = :id")

# Domains that a user has a role on.
DOMAINS_OF_USER: Final = text("""
SELECT DISTINCT d.id, d.name, d.description, d.enabled
  FROM role_assignments a JOIN domains d ON d.id = a.target_id
 WHERE a.user_id = :user_id AND a.target_kind = 'domain' AND d.enabled = :enabled
 ORDER BY d.id LIMIT :limit
""")

# --- projects ---------------------------------------------------------------------------------------------------------

ADD_PROJECT: Final = text("""
INSERT INTO projects (id, domain_id, name, description, enabled)
VALUES (:id, :domain_id, :name, :description, :enabled)
ON CONFLICT DO NOTHING
""")

PROJECT: Final = text("SELECT id, domain_id, name, description, enabled FROM projects WHERE id = :id")

PROJECT_NAMED: Final = text("""
SELECT id, domain_id, name, description, enabled FROM projects WHERE domain_id = :domain_id AND name = :name
""")

# A project by its id or, in any domain, by its name: the id first, then the default domain.
PROJECTS_LIKE: Final = text("""
SELECT id, domain_id, name, description, enabled FROM projects
 WHERE id = :name_or_id OR name = :name_or_id
 ORDER BY CASE WHEN id = :name_or_id THEN 0 WHEN domain_id = :default_domain THEN 1 ELSE 2 END, id
 LIMIT 2
""")

# All projects, or those that a user has a role on.
PROJECTS: Final = text("""
SELECT id, domain_id, name, description, enabled FROM projects
 WHERE (CAST(:name AS TEXT) IS NULL OR name = :name)
   AND (CAST(:domain_id AS TEXT) IS NULL OR domain_id = :domain_id)
   AND (CAST(:enabled AS BOOLEAN) IS NULL OR enabled = :enabled)
   AND (CAST(:user_id AS TEXT) IS NULL OR EXISTS (
         SELECT 1 FROM role_assignments a
          WHERE a.user_id = :user_id AND a.target_kind = 'project' AND a.target_id = projects.id))
   AND id > :marker
 ORDER BY id LIMIT :limit
""")

CHANGE_PROJECT: Final = text("""
UPDATE projects SET name = :name, description = :description, enabled = :enabled WHERE id = :id
""")

REMOVE_PROJECT: Final = text("DELETE FROM projects WHERE id = :id")

FORGET_DEFAULT_PROJECT: Final = text("UPDATE users SET default_project_id = NULL WHERE default_project_id = :id")

FORGET_DEFAULT_PROJECTS_OF: Final = text("""
UPDATE users SET default_project_id = NULL
 WHERE default_project_id IN (SELECT id FROM projects WHERE domain_id = :domain_id)
""")

REMOVE_PROJECTS_OF_DOMAIN: Final = text("DELETE FROM projects WHERE domain_id = :domain_id")

# --- users ------------------------------------------------------------------------------------------------------------

ADD_USER: Final = text("""
INSERT INTO users (id, domain_id, name, password_hash, email, description, default_project_id, enabled, created_at)
VALUES (:id, :domain_id, :name, :password_hash, :email, :description, :default_project_id, :enabled, :now)
ON CONFLICT DO NOTHING
""")

_USER: Final = "id, domain_id, name, email, description, default_project_id, enabled"

USER: Final = text(f"SELECT {_USER}, password_hash FROM users WHERE id = :id")  # noqa: S608 - a constant of columns

USER_NAMED: Final = text(
    f"SELECT {_USER}, password_hash FROM users WHERE domain_id = :domain_id AND name = :name"  # noqa: S608 - as above
)

USERS: Final = text(f"""
SELECT {_USER} FROM users
 WHERE (CAST(:name AS TEXT) IS NULL OR name = :name)
   AND (CAST(:domain_id AS TEXT) IS NULL OR domain_id = :domain_id)
   AND (CAST(:enabled AS BOOLEAN) IS NULL OR enabled = :enabled)
   AND id > :marker
 ORDER BY id LIMIT :limit
""")  # noqa: S608 - a constant of columns

CHANGE_USER: Final = text("""
UPDATE users SET name = :name, password_hash = :password_hash, email = :email, description = :description,
       default_project_id = :default_project_id, enabled = :enabled
 WHERE id = :id
""")

# Only while the password is still the one that was checked.
CHANGE_PASSWORD: Final = text("""
UPDATE users SET password_hash = :password_hash WHERE id = :id AND password_hash = :checked
""")

REMOVE_USER: Final = text("DELETE FROM users WHERE id = :id")

REMOVE_USERS_OF_DOMAIN: Final = text("DELETE FROM users WHERE domain_id = :domain_id")

# --- roles and assignments --------------------------------------------------------------------------------------------

ADD_ROLE: Final = text("""
INSERT INTO roles (id, name, description) VALUES (:id, :name, :description) ON CONFLICT DO NOTHING
""")

ROLE: Final = text("SELECT id, name, description FROM roles WHERE id = :id")

ROLES: Final = text("""
SELECT id, name, description FROM roles
 WHERE (CAST(:name AS TEXT) IS NULL OR name = :name) AND id > :marker
 ORDER BY id LIMIT :limit
""")

REMOVE_ROLE: Final = text("DELETE FROM roles WHERE id = :id")

# Roles of a user on a project or a domain.
ROLES_ON: Final = text("""
SELECT r.id, r.name, r.description FROM role_assignments a JOIN roles r ON r.id = a.role_id
 WHERE a.user_id = :user_id AND a.target_kind = :kind AND a.target_id = :target_id
 ORDER BY r.name
""")

ASSIGN: Final = text("""
INSERT INTO role_assignments (user_id, role_id, target_kind, target_id)
VALUES (:user_id, :role_id, :kind, :target_id)
ON CONFLICT DO NOTHING
""")

UNASSIGN: Final = text("""
DELETE FROM role_assignments
 WHERE user_id = :user_id AND role_id = :role_id AND target_kind = :kind AND target_id = :target_id
""")

UNASSIGN_ALL_ON: Final = text("DELETE FROM role_assignments WHERE target_kind = :kind AND target_id = :target_id")

UNASSIGN_ALL_ON_PROJECTS_OF: Final = text("""
DELETE FROM role_assignments
 WHERE target_kind = 'project' AND target_id IN (SELECT id FROM projects WHERE domain_id = :domain_id)
""")

# On what whom a role is given.
HOLDERS_OF_ROLE: Final = text("SELECT user_id, target_kind, target_id FROM role_assignments WHERE role_id = :role_id")

# Whether someone is left who can log in and administer.
AN_ADMIN: Final = text("""
SELECT 1 FROM role_assignments a
  JOIN roles r ON r.id = a.role_id AND r.name = 'admin'
  JOIN users u ON u.id = a.user_id AND u.enabled = :yes AND u.password_hash IS NOT NULL
  JOIN domains ud ON ud.id = u.domain_id AND ud.enabled = :yes
  LEFT JOIN projects p ON a.target_kind = 'project' AND p.id = a.target_id AND p.enabled = :yes
  JOIN domains d ON d.enabled = :yes
                AND d.id = CASE a.target_kind WHEN 'domain' THEN a.target_id ELSE p.domain_id END
 LIMIT 1
""")

# Who has which role on what, with the names.
ASSIGNMENTS: Final = text("""
SELECT a.target_kind, a.target_id,
       u.id AS user_id, u.name AS user_name, u.domain_id AS user_domain_id, ud.name AS user_domain_name,
       r.id AS role_id, r.name AS role_name,
       p.name AS project_name, pd.id AS project_domain_id, pd.name AS project_domain_name, d.name AS domain_name
  FROM role_assignments a
  JOIN users u ON u.id = a.user_id
  JOIN domains ud ON ud.id = u.domain_id
  JOIN roles r ON r.id = a.role_id
  LEFT JOIN projects p ON a.target_kind = 'project' AND p.id = a.target_id
  LEFT JOIN domains pd ON pd.id = p.domain_id
  LEFT JOIN domains d ON a.target_kind = 'domain' AND d.id = a.target_id
 WHERE (CAST(:user_id AS TEXT) IS NULL OR a.user_id = :user_id)
   AND (CAST(:role_id AS TEXT) IS NULL OR a.role_id = :role_id)
   AND (CAST(:kind AS TEXT) IS NULL OR a.target_kind = :kind)
   AND (CAST(:target_id AS TEXT) IS NULL OR a.target_id = :target_id)
 ORDER BY a.user_id, a.target_kind, a.target_id, a.role_id LIMIT :limit
""")

# --- revocations ------------------------------------------------------------------------------------------------------

# A later revocation of a subject replaces the earlier one, never the other way round.
REVOKE: Final = text("""
INSERT INTO revocations (subject_kind, subject_id, before, expires_at) VALUES (:kind, :id, :before, :expires_at)
ON CONFLICT (subject_kind, subject_id) DO UPDATE
   SET before = CASE WHEN excluded.before > revocations.before THEN excluded.before ELSE revocations.before END,
       expires_at = CASE WHEN excluded.expires_at > revocations.expires_at
                         THEN excluded.expires_at ELSE revocations.expires_at END
""")

REVOKED_BEFORE: Final = text("SELECT before FROM revocations WHERE subject_kind = :kind AND subject_id = :id")

REVOCATIONS: Final = text("""
SELECT subject_kind, subject_id, before, expires_at FROM revocations WHERE expires_at > :now
""")

# Changes whenever a revocation is added, replaced or removed: cheap to ask often.
REVOCATIONS_STATE: Final = text("SELECT count(*) AS amount, coalesce(sum(before), 0) AS total FROM revocations")

# How many tokens of a user are revoked one by one. `prefix` is the user's id, "/%".
REVOKED_TOKENS_OF: Final = text("""
SELECT count(*) FROM revocations WHERE subject_kind = 'token' AND subject_id LIKE :prefix
""")

REMOVE_REVOKED_TOKENS_OF: Final = text("""
DELETE FROM revocations WHERE subject_kind = 'token' AND subject_id LIKE :prefix
""")

REMOVE_EXPIRED_REVOCATIONS: Final = text("DELETE FROM revocations WHERE expires_at <= :now")

# --- signing keys -----------------------------------------------------------------------------------------------------

ADD_SIGNING_KEY: Final = text("INSERT INTO signing_keys (id, secret, created_at) VALUES (:id, :secret, :now)")

SIGNING_KEYS: Final = text("SELECT id, secret, created_at FROM signing_keys")

# --- access keys ------------------------------------------------------------------------------------------------------

# Hold the user's row until the end of the transaction, so that keys of one user are counted one after the other.
HOLD_USER: Final = text("UPDATE users SET id = id WHERE id = :id")

ACCESS_KEYS_COUNT: Final = text("SELECT count(*) FROM access_keys WHERE user_id = :user_id")

ADD_ACCESS_KEY: Final = text("""
INSERT INTO access_keys (access, secret, user_id, project_id, created_at)
VALUES (:access, :secret, :user_id, :project_id, :now)
""")

ACCESS_KEY: Final = text("""
SELECT access, secret, user_id, project_id, created_at, locked_until FROM access_keys WHERE access = :access
""")

ACCESS_KEYS: Final = text("""
SELECT access, user_id, project_id, created_at FROM access_keys WHERE user_id = :user_id ORDER BY created_at, access
""")

REMOVE_ACCESS_KEY: Final = text("DELETE FROM access_keys WHERE access = :access AND user_id = :user_id")

# Count a wrong signature: so many since `since` lock the key. Later ones begin a new count.
ACCESS_KEY_FAILED: Final = text("""
UPDATE access_keys
   SET failures = CASE WHEN failing_since > :since THEN failures + 1 ELSE 1 END,
       failing_since = CASE WHEN failing_since > :since THEN failing_since ELSE :now END,
       locked_until = CASE WHEN failing_since > :since AND failures + 1 >= :most THEN :until ELSE locked_until END
 WHERE access = :access
RETURNING failures, locked_until
""")

# ----------------------------------------------------------------------------------------------------------------------

_ONE_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def one_snapshot(connection: Connection) -> None:
    """Let every statement of the transaction see the same moment. The first call in it; SQLite does so by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(_ONE_SNAPSHOT)


def storable(value: str) -> bool:
    """Whether a database can hold the text, and so whether it can match anything: no NUL, no half of a surrogate."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def domain(row: Any) -> Domain:
    return Domain(id=DomainId(row.id), name=row.name, description=row.description, enabled=bool(row.enabled))


def project(row: Any) -> Project:
    return Project(
        id=ProjectId(row.id),
        domain_id=DomainId(row.domain_id),
        name=row.name,
        description=row.description,
        enabled=bool(row.enabled),
    )


def user(row: Any) -> User:
    return User(
        id=UserId(row.id),
        domain_id=DomainId(row.domain_id),
        name=row.name,
        email=row.email,
        description=row.description,
        default_project_id=row.default_project_id,
        enabled=bool(row.enabled),
    )


def role(row: Any) -> Role:
    return Role(id=RoleId(row.id), name=row.name, description=row.description)


def assignment(row: Any) -> Assignment:
    on_project = row.target_kind == TargetKind.PROJECT
    return Assignment(
        user=User(id=row.user_id, domain_id=row.user_domain_id, name=row.user_name),
        user_domain=row.user_domain_name,
        role=Role(id=row.role_id, name=row.role_name),
        target=Target(TargetKind(row.target_kind), row.target_id),
        target_name=(row.project_name if on_project else row.domain_name) or "",
        target_domain=Domain(id=row.project_domain_id, name=row.project_domain_name)
        if on_project and row.project_domain_id
        else None,
    )


def signing_key(row: Any) -> SigningKey:
    return SigningKey(id=row.id, secret=base64.urlsafe_b64decode(row.secret), created_at=row.created_at)


def access_key(row: Any) -> AccessKey:
    return AccessKey(
        access=row.access,
        user_id=UserId(row.user_id),
        project_id=ProjectId(row.project_id),
        created_at=row.created_at,
    )
