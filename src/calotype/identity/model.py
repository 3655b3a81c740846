"""Domains, projects, users, roles; and the caller of a request, as the rest of the service sees one."""

from enum import StrEnum
from typing import Annotated, Final, NewType

from msgspec import UNSET, Meta, Struct, UnsetType

ProjectId = NewType("ProjectId", str)  # 32 hex
UserId = NewType("UserId", str)  # 32 hex
DomainId = NewType("DomainId", str)  # 32 hex, or "default"
RoleId = NewType("RoleId", str)  # 32 hex

DEFAULT_DOMAIN: Final = DomainId("default")
BUILT_IN_ROLES: Final = ("admin", "member", "reader")  # made at the first start


class RequestKey(Struct, frozen=True, kw_only=True):
    """The name that a client gives to a request, so that sending it again does nothing again."""

    key: str
    fingerprint: str  # of what was asked: another one under the same name is a mistake


class Caller(Struct, frozen=True, kw_only=True):
    """Who makes a request, from a token that was checked. `project_id` is None when the token is not project-scoped."""

    user_id: UserId
    user_name: str
    user_domain_id: str
    project_id: ProjectId | None = None
    project_name: str | None = None
    domain_id: str | None = None  # of a domain-scoped token
    roles: frozenset[str] = frozenset()  # role names on the scope
    audit_id: str  # names the token without being one
    issued_at: int  # ms
    expires_at: int  # ms
    request_key: RequestKey | None = None  # of the request that is being made

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


# --- what is kept -----------------------------------------------------------------------------------------------------


class Domain(Struct, frozen=True, kw_only=True):
    """A set of users and projects whose names are unique in it."""

    id: DomainId
    name: str
    description: str = ""
    enabled: bool = True


class Project(Struct, frozen=True, kw_only=True):
    """What owns images, jobs and buckets, and what a token is scoped to."""

    id: ProjectId
    domain_id: DomainId
    name: str
    description: str = ""
    enabled: bool = True


class User(Struct, frozen=True, kw_only=True):
    id: UserId
    domain_id: DomainId
    name: str
    email: str | None = None
    description: str | None = None
    default_project_id: ProjectId | None = None
    enabled: bool = True


class Role(Struct, frozen=True, kw_only=True):
    id: RoleId
    name: str
    description: str = ""


class TargetKind(StrEnum):
    """What a role is assigned on."""

    PROJECT = "project"
    DOMAIN = "domain"


class Target(Struct, frozen=True):
    kind: TargetKind
    id: str  # of the project or the domain


class Assignment(Struct, frozen=True, kw_only=True):
    """A role of a user on a target. The names are those of now."""

    user: User
    user_domain: str  # name
    role: Role
    target: Target
    target_name: str
    target_domain: Domain | None  # of a project


class AccessKey(Struct, frozen=True, kw_only=True):
    """What a user signs requests with. Its secret is shown once, where it is made."""

    access: str
    user_id: UserId
    project_id: ProjectId  # of requests that name none
    created_at: int  # ms


# --- who logs in, and for what ----------------------------------------------------------------------------------------


class DomainNamed(Struct, frozen=True, kw_only=True):
    """A domain by its id, or by its name."""

    id: str | None = None
    name: str | None = None


class Named(Struct, frozen=True, kw_only=True):
    """A user or a project by its id, or by its name in a domain."""

    id: str | None = None
    name: str | None = None
    domain: DomainNamed | None = None


class PasswordLogin(Struct, frozen=True, kw_only=True):
    user: Named
    password: str

    def __repr__(self) -> str:
        return f"PasswordLogin(user={self.user!r}, password=********)"


class TokenLogin(Struct, frozen=True, kw_only=True):
    """Another token for the holder of this one; it does not live longer."""

    token: str

    def __repr__(self) -> str:
        return "TokenLogin(token=********)"


Login = PasswordLogin | TokenLogin


class ProjectScope(Struct, frozen=True, kw_only=True):
    project: Named


class DomainScope(Struct, frozen=True, kw_only=True):
    domain: DomainNamed


class Unscoped(Struct, frozen=True):
    """No scope is wanted, not even the user's default project."""


Scope = ProjectScope | DomainScope | Unscoped | None  # None: the default project, if there is one


# --- what arrives -----------------------------------------------------------------------------------------------------

# Not only blanks, and no NUL, which PostgreSQL cannot hold.
ProjectName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
DomainName = ProjectName
UserName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
RoleName = UserName
Text = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00]*$")]
NewPassword = Annotated[str, Meta(min_length=1, max_length=4096)]
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
NoTags = Annotated[list[str], Meta(max_length=0)]
Options = dict[str, object]  # Keystone's resource options; none of them is offered, all are ignored


class DomainCreate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: DomainName
    description: Text | None = None
    enabled: bool = True
    options: Options = {}
    tags: NoTags = []


class DomainChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Id | UnsetType = UNSET  # only the one of the path
    name: DomainName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    options: Options = {}


class ProjectCreate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: ProjectName
    domain_id: Id | None = None  # None: that of the caller
    parent_id: Id | None = None  # projects have no children here: only the domain may be named
    description: Text | None = None
    enabled: bool = True
    is_domain: bool | None = None
    options: Options = {}
    tags: NoTags = []


class ProjectChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Id | UnsetType = UNSET  # only the one of the path
    name: ProjectName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET  # only the one it is in
    options: Options = {}
    tags: NoTags = []


class UserCreate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: UserName
    domain_id: Id | None = None  # None: that of the caller
    password: NewPassword | None = None  # None: no login with a password
    email: Text | None = None
    description: Text | None = None
    default_project_id: Id | None = None
    enabled: bool = True
    options: Options = {}
    project_id: str | None = None  # Tempest sends it; Keystone keeps it as an extra and makes nothing of it

    def __repr__(self) -> str:
        return f"UserCreate(name={self.name!r}, domain_id={self.domain_id!r})"


class UserChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Id | UnsetType = UNSET  # only the one of the path
    name: UserName | UnsetType = UNSET
    password: NewPassword | UnsetType | None = UNSET
    email: Text | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET  # only the one it is in
    options: Options = {}
    original_password: str | UnsetType = UNSET  # keystoneclient may send it; an admin needs none

    def __repr__(self) -> str:
        return "UserChange()"


class RoleCreate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: RoleName
    description: Text | None = None
    domain_id: None = None  # roles belong to no domain here
    options: Options = {}


# --- lists ------------------------------------------------------------------------------------------------------------

MOST_LISTED: Final = 1000  # in one answer


class Page(Struct, frozen=True, kw_only=True):
    """So many in the order of their ids, after the one with the id `marker`."""

    limit: int = MOST_LISTED
    marker: str = ""
