"""Domains, projects, users, roles and who has which: what an admin changes, and what it does to issued tokens."""

import uuid
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from calotype.db.engine import Database, now_ms
from calotype.errors import Forbidden, IdentityConflict, IdentityNotFound, Invalid, Unauthenticated
from calotype.identity import sql
from calotype.identity.model import (
    BUILT_IN_ROLES,
    DEFAULT_DOMAIN,
    Assignment,
    Caller,
    Domain,
    DomainChange,
    DomainCreate,
    DomainId,
    Page,
    Project,
    ProjectChange,
    ProjectCreate,
    ProjectId,
    Role,
    RoleCreate,
    RoleId,
    Target,
    TargetKind,
    User,
    UserChange,
    UserCreate,
    UserId,
)
from calotype.identity.passwords import Passwords
from calotype.identity.permissions import may
from calotype.identity.revocations import Revocation, Revocations, revoke_in
from calotype.identity.tokens import REFUSED, Subject

T = TypeVar("T")
ADMINISTER: Final = "identity:administer"
MOST_ASSIGNMENTS: Final = 10_000  # in one answer
NOT_YOURS: Final = "You are not authorized to perform the requested action."


class Filter(Struct, frozen=True, kw_only=True):
    """What a listed one must be; None: anything."""

    name: str | None = None
    domain_id: str | None = None
    enabled: bool | None = None

    def values(self, page: Page) -> dict[str, object] | None:
        """Parameters of a listing statement, or None when nothing can match."""
        if not all(value is None or sql.storable(value) for value in (self.name, self.domain_id, page.marker)):
            return None
        return {
            "name": self.name,
            "domain_id": self.domain_id,
            "enabled": self.enabled,
            "marker": page.marker,
            "limit": page.limit,
        }


class Directory:
    def __init__(self, db: Database, revocations: Revocations, passwords: Passwords, *, region: str) -> None:
        self._db = db
        self._revocations = revocations
        self._passwords = passwords
        self._region = region

    # --- domains ------------------------------------------------------------------------------------------------------

    async def domains(self, wanted: Filter, page: Page) -> list[Domain]:
        values = wanted.values(page)
        if values is None:
            return []
        return await self._db.read(lambda c: [sql.domain(row) for row in c.execute(sql.DOMAINS, values)])

    async def domain(self, caller: Caller, domain_id: str) -> Domain:
        """Raises `IdentityNotFound`; `Forbidden` for one that is neither the caller's nor an admin's to see."""
        if domain_id not in (caller.user_domain_id, caller.domain_id):
            _administers(caller)
        return await self._db.read(lambda c: domain_in(c, domain_id))

    async def create_domain(self, wanted: DomainCreate) -> Domain:
        domain = Domain(
            id=DomainId(new_id()), name=wanted.name, description=wanted.description or "", enabled=wanted.enabled
        )

        def create(connection: Connection, _void: list[Subject]) -> None:
            if connection.execute(sql.ADD_DOMAIN, structs.asdict(domain)).rowcount == 0:
                raise IdentityConflict(f"a domain with the name {domain.name} exists")

        await self._changed(create)
        return domain

    async def change_domain(self, domain_id: str, wanted: DomainChange) -> Domain:
        def change(connection: Connection, void: list[Subject]) -> Domain:
            domain = domain_in(connection, domain_id)
            _same_id(wanted.id, domain_id)
            changed = structs.replace(
                domain,
                name=_given(wanted.name, domain.name),
                description=_given(wanted.description, domain.description) or "",
                enabled=_given(wanted.enabled, domain.enabled),
            )
            if not changed.enabled:
                if domain.id == DEFAULT_DOMAIN:
                    raise Forbidden("the default domain cannot be disabled")
                void.append(Subject("domain", domain.id))
            connection.execute(sql.CHANGE_DOMAIN, structs.asdict(changed))
            return changed

        return await self._changed(change)

    async def delete_domain(self, domain_id: str) -> None:
        """With its users and projects; only when it is disabled, as in Keystone."""

        def delete(connection: Connection, void: list[Subject]) -> None:
            domain = domain_in(connection, domain_id)
            if domain.enabled or domain.id == DEFAULT_DOMAIN:
                raise Forbidden("a domain must be disabled before it is deleted; the default domain stays")
            connection.execute(sql.UNASSIGN_ALL_ON, {"kind": "domain", "target_id": domain.id})
            connection.execute(sql.UNASSIGN_ALL_ON_PROJECTS_OF, {"domain_id": domain.id})
            connection.execute(sql.FORGET_DEFAULT_PROJECTS_OF, {"domain_id": domain.id})
            connection.execute(sql.REMOVE_USERS_OF_DOMAIN, {"domain_id": domain.id})
            connection.execute(sql.REMOVE_PROJECTS_OF_DOMAIN, {"domain_id": domain.id})
            connection.execute(sql.REMOVE_DOMAIN, {"id": domain.id})
            void.append(Subject("domain", domain.id))

        await self._changed(delete)

    async def domains_of(self, user_id: str) -> list[Domain]:
        """Enabled domains that the user has a role on."""
        values = {"user_id": user_id, "enabled": True, "limit": Page().limit}
        return await self._db.read(lambda c: [sql.domain(row) for row in c.execute(sql.DOMAINS_OF_USER, values)])

    # --- projects -----------------------------------------------------------------------------------------------------

    async def projects(self, caller: Caller, wanted: Filter, page: Page) -> list[Project]:
        """All projects for an admin, for others those that they have a role on.

        A name that no project has but the region: the project of the token alone. Huawei's SDK looks up the id of "the
        project of the region" so, because in that cloud a region's first project bears its name. Another name that is
        none of the caller's own projects: `Forbidden`.
        """
        of = None if may(caller, ADMINISTER) else caller.user_id
        found = await self._projects(of, wanted, page)
        if found or wanted.name is None:
            return found
        if wanted.name == self._region and caller.project_id is not None:
            mine = caller.project_id
            return [await self._db.read(lambda c: project_in(c, mine))]
        if of is not None:
            # As Keystone refuses it: on this answer, and on no other, clients take what they were given for an id.
            raise Forbidden(NOT_YOURS)
        return found

    async def projects_of(self, user_id: str, wanted: Filter, page: Page) -> list[Project]:
        """Projects that the user has a role on."""
        return await self._projects(user_id, wanted, page)

    async def _projects(self, of_user: str | None, wanted: Filter, page: Page) -> list[Project]:
        values = wanted.values(page)
        if values is None or (of_user is not None and not sql.storable(of_user)):
            return []
        values["user_id"] = of_user
        return await self._db.read(lambda c: [sql.project(row) for row in c.execute(sql.PROJECTS, values)])

    async def project(self, caller: Caller, project_id: str) -> Project:
        """Raises `IdentityNotFound`; `Forbidden` for who has no role there and is no admin."""

        def find(connection: Connection) -> Project:
            if project_id != caller.project_id and not may(caller, ADMINISTER):
                target = Target(TargetKind.PROJECT, project_id)
                if not sql.storable(project_id) or not roles_in(connection, caller.user_id, target):
                    raise Forbidden(NOT_YOURS)
            return project_in(connection, project_id)

        return await self._db.read(find)

    async def create_project(self, wanted: ProjectCreate, home: DomainId) -> Project:
        """In the domain `home` unless another is wanted."""
        if wanted.is_domain:
            raise Invalid("a project cannot be a domain here; create a domain")
        domain_id = DomainId(wanted.domain_id or wanted.parent_id or home)
        no_children = Invalid("projects have no children here; parent_id can only be the domain")
        if wanted.parent_id not in (None, domain_id):
            raise no_children
        project = Project(
            id=ProjectId(new_id()),
            domain_id=domain_id,
            name=wanted.name,
            description=wanted.description or "",
            enabled=wanted.enabled,
        )

        def create(connection: Connection, _void: list[Subject]) -> None:
            if wanted.parent_id is not None and wanted.domain_id is None and not _is_domain_in(connection, domain_id):
                raise no_children
            domain_in(connection, domain_id)
            if connection.execute(sql.ADD_PROJECT, structs.asdict(project)).rowcount == 0:
                raise IdentityConflict(f"the domain has a project with the name {project.name}")

        await self._changed(create)
        return project

    async def change_project(self, project_id: str, wanted: ProjectChange) -> Project:
        def change(connection: Connection, void: list[Subject]) -> Project:
            project = project_in(connection, project_id)
            _same_id(wanted.id, project_id)
            if _given(wanted.domain_id, project.domain_id) != project.domain_id:
                raise Invalid("a project cannot change its domain")
            changed = structs.replace(
                project,
                name=_given(wanted.name, project.name),
                description=_given(wanted.description, project.description) or "",
                enabled=_given(wanted.enabled, project.enabled),
            )
            if not changed.enabled:
                void.append(Subject("project", project.id))
            connection.execute(sql.CHANGE_PROJECT, structs.asdict(changed))
            return changed

        return await self._changed(change)

    async def delete_project(self, project_id: str) -> None:
        """What it owns elsewhere (images, buckets) stays and is an admin's to clear."""

        def delete(connection: Connection, void: list[Subject]) -> None:
            project = project_in(connection, project_id)
            connection.execute(sql.UNASSIGN_ALL_ON, {"kind": "project", "target_id": project.id})
            connection.execute(sql.FORGET_DEFAULT_PROJECT, {"id": project.id})
            connection.execute(sql.REMOVE_PROJECT, {"id": project.id})
            void.append(Subject("project", project.id))

        await self._changed(delete)

    # --- users --------------------------------------------------------------------------------------------------------

    async def users(self, wanted: Filter, page: Page) -> list[User]:
        values = wanted.values(page)
        if values is None:
            return []
        return await self._db.read(lambda c: [sql.user(row) for row in c.execute(sql.USERS, values)])

    async def user(self, caller: Caller, user_id: str) -> User:
        """Raises `IdentityNotFound`; `Forbidden` for who is neither the user nor an admin."""
        if user_id != caller.user_id:
            _administers(caller)
        return await self._db.read(lambda c: user_in(c, user_id)[0])

    async def create_user(self, wanted: UserCreate, home: DomainId) -> User:
        """In the domain `home` unless another is wanted."""
        password_hash = None if wanted.password is None else await self._passwords.hashed(wanted.password)
        project_id = wanted.default_project_id
        user = User(
            id=UserId(new_id()),
            domain_id=DomainId(wanted.domain_id or home),
            name=wanted.name,
            email=wanted.email,
            description=wanted.description,
            default_project_id=None if project_id is None else ProjectId(project_id),
            enabled=wanted.enabled,
        )

        def create(connection: Connection, _void: list[Subject]) -> None:
            domain_in(connection, user.domain_id)
            values = {**structs.asdict(user), "password_hash": password_hash, "now": now_ms()}
            if connection.execute(sql.ADD_USER, values).rowcount == 0:
                raise IdentityConflict(f"the domain has a user with the name {user.name}")

        await self._changed(create)
        return user

    async def change_user(self, user_id: str, wanted: UserChange) -> User:
        new_hash: str | UnsetType | None = UNSET
        if wanted.password is not UNSET:
            new_hash = None if wanted.password is None else await self._passwords.hashed(wanted.password)

        def change(connection: Connection, void: list[Subject]) -> User:
            user, old_hash = user_in(connection, user_id)
            _same_id(wanted.id, user_id)
            if _given(wanted.domain_id, user.domain_id) != user.domain_id:
                raise Invalid("a user cannot change the domain")
            project_id = _given(wanted.default_project_id, user.default_project_id)
            changed = structs.replace(
                user,
                name=_given(wanted.name, user.name),
                email=_given(wanted.email, user.email),
                description=_given(wanted.description, user.description),
                default_project_id=None if project_id is None else ProjectId(project_id),
                enabled=_given(wanted.enabled, user.enabled),
            )
            if new_hash is not UNSET or not changed.enabled:
                void.append(Subject("user", user.id))
            connection.execute(
                sql.CHANGE_USER, {**structs.asdict(changed), "password_hash": _given(new_hash, old_hash)}
            )
            return changed

        return await self._changed(change)

    async def change_own_password(self, caller: Caller, user_id: str, original: str, new: str) -> None:
        """Every token of the user is void afterwards. Raises `Unauthenticated` when `original` is not the password."""
        if user_id != caller.user_id:
            raise Forbidden("only the user can do this; an admin changes the user instead")
        known_hash = (await self._db.read(lambda c: user_in(c, user_id)))[1]
        await self._passwords.check(user_id, known_hash, original)
        new_hash = await self._passwords.hashed(new)

        def change(connection: Connection, void: list[Subject]) -> None:
            values = {"id": user_id, "password_hash": new_hash, "checked": known_hash}
            if connection.execute(sql.CHANGE_PASSWORD, values).rowcount == 0:
                raise Unauthenticated(REFUSED)
            void.append(Subject("user", user_id))

        await self._changed(change)

    async def delete_user(self, user_id: str) -> None:
        def delete(connection: Connection, void: list[Subject]) -> None:
            user, _ = user_in(connection, user_id)
            connection.execute(sql.REMOVE_USER, {"id": user.id})
            void.append(Subject("user", user.id))

        await self._changed(delete)

    # --- roles and assignments ----------------------------------------------------------------------------------------

    async def roles(self, wanted: Filter, page: Page) -> list[Role]:
        values = wanted.values(page)
        if values is None:
            return []
        return await self._db.read(lambda c: [sql.role(row) for row in c.execute(sql.ROLES, values)])

    async def role(self, role_id: str) -> Role:
        return await self._db.read(lambda c: role_in(c, role_id))

    async def create_role(self, wanted: RoleCreate) -> Role:
        role = Role(id=RoleId(new_id()), name=wanted.name, description=wanted.description or "")

        def create(connection: Connection, _void: list[Subject]) -> None:
            if connection.execute(sql.ADD_ROLE, structs.asdict(role)).rowcount == 0:
                raise IdentityConflict(f"a role with the name {role.name} exists")

        await self._changed(create)
        return role

    async def delete_role(self, role_id: str) -> None:
        def delete(connection: Connection, void: list[Subject]) -> None:
            role = role_in(connection, role_id)
            if role.name in BUILT_IN_ROLES:
                raise Forbidden(f"the role {role.name} is built in: the permissions are written in its name")
            holders = connection.execute(sql.HOLDERS_OF_ROLE, {"role_id": role.id}).all()
            void.extend(
                Subject.user_on(row.user_id, Target(TargetKind(row.target_kind), row.target_id)) for row in holders
            )
            connection.execute(sql.REMOVE_ROLE, {"id": role.id})

        await self._changed(delete)

    async def roles_on(self, user_id: str, target: Target) -> list[Role]:
        def find(connection: Connection) -> list[Role]:
            target_in(connection, target)
            user_in(connection, user_id)
            return roles_in(connection, user_id, target)

        return await self._db.read(find)

    async def assign(self, user_id: str, role_id: str, target: Target) -> None:
        def assign(connection: Connection, _void: list[Subject]) -> None:
            target_in(connection, target)
            values = _assignment(user_in(connection, user_id)[0].id, role_in(connection, role_id).id, target)
            connection.execute(sql.ASSIGN, values)

        await self._changed(assign)

    async def unassign(self, user_id: str, role_id: str, target: Target) -> None:
        """The user's tokens of this target are void afterwards: they say more than is true now."""

        def unassign(connection: Connection, void: list[Subject]) -> None:
            values = _assignment(user_in(connection, user_id)[0].id, role_in(connection, role_id).id, target)
            if not sql.storable(target.id) or connection.execute(sql.UNASSIGN, values).rowcount == 0:
                raise IdentityNotFound(f"Could not find role assignment with role: {role_id}.")
            void.append(Subject.user_on(user_id, target))

        await self._changed(unassign)

    async def assignments(self, *, user_id: str | None, role_id: str | None, target: Target | None) -> list[Assignment]:
        values = {
            "user_id": user_id,
            "role_id": role_id,
            "kind": target.kind.value if target else None,
            "target_id": target.id if target else None,
            "limit": MOST_ASSIGNMENTS,
        }
        if not all(value is None or sql.storable(str(value)) for value in values.values()):
            return []
        return await self._db.read(lambda c: [sql.assignment(row) for row in c.execute(sql.ASSIGNMENTS, values)])

    # ------------------------------------------------------------------------------------------------------------------

    async def _changed(self, work: Callable[[Connection, list[Subject]], T]) -> T:
        """Do `work` in one transaction; what it puts in its list is revoked in the same one, and known here at once."""

        def run(connection: Connection) -> tuple[T, list[Revocation]]:
            void: list[Subject] = []
            value = work(connection, void)
            if void and connection.execute(sql.AN_ADMIN, {"yes": True}).one_or_none() is None:
                raise IdentityConflict("nobody would be left who can log in and administer")
            revoked = [revoke_in(connection, subject, now_ms()) for subject in dict.fromkeys(void)]
            return value, revoked

        try:
            value, revoked = await self._db.write(run)
        except IntegrityError as error:
            raise IdentityConflict("the name is taken, or what this refers to is gone") from error
        self._revocations.learn(revoked)
        return value


# --- in a transaction -------------------------------------------------------------------------------------------------


def domain_in(connection: Connection, domain_id: str) -> Domain:
    row = connection.execute(sql.DOMAIN, {"id": domain_id}).one_or_none() if sql.storable(domain_id) else None
    if row is None:
        raise IdentityNotFound(f"Could not find domain: {domain_id}.")
    return sql.domain(row)


def _is_domain_in(connection: Connection, domain_id: str) -> bool:
    return connection.execute(sql.DOMAIN, {"id": domain_id}).one_or_none() is not None


def project_in(connection: Connection, project_id: str) -> Project:
    row = connection.execute(sql.PROJECT, {"id": project_id}).one_or_none() if sql.storable(project_id) else None
    if row is None:
        raise IdentityNotFound(f"Could not find project: {project_id}.")
    return sql.project(row)


def project_named_in(connection: Connection, name_or_id: str) -> ProjectId | None:
    """The project with this id; else the one with this name, in the default domain before others; None where there is
    none, or several outside of the default domain."""
    if not sql.storable(name_or_id):
        return None
    values = {"name_or_id": name_or_id, "default_domain": DEFAULT_DOMAIN}
    found = [sql.project(row) for row in connection.execute(sql.PROJECTS_LIKE, values)]
    if len(found) == 1 or (found and (found[0].id == name_or_id or found[0].domain_id == DEFAULT_DOMAIN)):
        return found[0].id
    return None


def user_in(connection: Connection, user_id: str) -> tuple[User, str | None]:
    """The user, and the hash of the password."""
    row = connection.execute(sql.USER, {"id": user_id}).one_or_none() if sql.storable(user_id) else None
    if row is None:
        raise IdentityNotFound(f"Could not find user: {user_id}.")
    return sql.user(row), row.password_hash


def role_in(connection: Connection, role_id: str) -> Role:
    row = connection.execute(sql.ROLE, {"id": role_id}).one_or_none() if sql.storable(role_id) else None
    if row is None:
        raise IdentityNotFound(f"Could not find role: {role_id}.")
    return sql.role(row)


def roles_in(connection: Connection, user_id: str, target: Target) -> list[Role]:
    """Roles of the user on the target, by name."""
    values = {"user_id": user_id, "kind": target.kind.value, "target_id": target.id}
    return [sql.role(row) for row in connection.execute(sql.ROLES_ON, values)]


def target_in(connection: Connection, target: Target) -> Project | Domain:
    return project_in(connection, target.id) if target.kind is TargetKind.PROJECT else domain_in(connection, target.id)


def _assignment(user_id: str, role_id: str, target: Target) -> dict[str, str]:
    return {"user_id": user_id, "role_id": role_id, "kind": target.kind.value, "target_id": target.id}


def _administers(caller: Caller) -> None:
    if not may(caller, ADMINISTER):
        raise Forbidden(NOT_YOURS)


def _same_id(in_body: str | UnsetType, in_path: str) -> None:
    if in_body not in (UNSET, in_path):
        raise Invalid("the id of the body is not that of the path; ids never change")


def _given(wanted: T | UnsetType, now: T) -> T:
    return now if isinstance(wanted, UnsetType) else wanted


def new_id() -> str:
    return uuid.uuid4().hex
