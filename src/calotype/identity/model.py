"""The caller of a request, as the rest of the service sees one."""

from typing import NewType

from msgspec import Struct

ProjectId = NewType("ProjectId", str)  # 32 hex
UserId = NewType("UserId", str)  # 32 hex


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

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles
