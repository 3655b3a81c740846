"""Which role may do what: one table. Actions are named `service:resource:operation`, as the IMS API names them."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from msgspec import Struct

from calotype.errors import Forbidden
from calotype.identity.model import Caller

READ: Final = frozenset(
    {
        "ims:images:list",
        "ims:images:get",
        "ims:quotas:get",
        "ims:imageJobs:getPercentage",
        "calotype:buckets:get",
        "calotype:jobs:get",
        "imagev2:metadefs:get",
    }
)
WRITE: Final = frozenset(
    {
        "ims:images:create",
        "ims:images:update",
        "ims:images:delete",
        "ims:images:upload",
        "ims:images:export",
        "ims:images:copy",
        "ims:images:share",
        "ims:serverImages:create",
        "ims:dataImages:create",
        "ims:wholeImages:create",
        "calotype:buckets:write",
        "calotype:jobs:cancel",
        "imagev2:locations:add",
    }
)
ADMINISTER: Final = frozenset(
    {
        "ims:images:publish",
        "identity:administer",
        "imagev2:tasks",
        "imagev2:metadefs:write",
        "imagev2:stores:detail",
        "imagev2:stores:drop",
        "imagev2:locations:get",
        "imagev2:cache",
    }
)

# Of IMS, as its API names them.
IMS_READ: Final = frozenset(action for action in READ if action.startswith("ims:"))
IMS: Final = IMS_READ | frozenset(action for action in WRITE if action.startswith("ims:"))

ADMINISTRATOR: Final = "IMS Administrator"
TENANT_ADMINISTRATOR: Final = "Tenant Administrator"
GRANTS: Final[Mapping[str, frozenset[str]]] = {
    "reader": READ,
    "member": READ | WRITE,
    "admin": READ | WRITE | ADMINISTER,
    "service": frozenset({"imagev2:locations:get", "imagev2:stores:detail"}),
    # Roles and policies that the IMS API documents, where an administrator makes roles of these names.
    "IMS FullAccess": IMS,
    "IMS ReadOnlyAccess": IMS_READ,
    ADMINISTRATOR: IMS,
    "Server Administrator": frozenset(
        {
            "ims:images:list",
            "ims:images:get",
            "ims:images:create",
            "ims:images:update",
            "ims:images:delete",
            "ims:images:upload",
        }
    ),
    TENANT_ADMINISTRATOR: frozenset({"calotype:buckets:get", "calotype:buckets:write"}),
    "op_gated_lld": frozenset(),
}
# A role that grants nothing unless the caller has another one too, on the same project.
BESIDE: Final[Mapping[str, str]] = {
    ADMINISTRATOR: TENANT_ADMINISTRATOR,
    "Server Administrator": ADMINISTRATOR,
}


class OneOf(Struct, frozen=True):
    """Actions of which any is enough."""

    actions: tuple[str, ...]


@lru_cache(maxsize=1024)
def granted(roles: frozenset[str]) -> frozenset[str]:
    """Every action that these roles on one project allow together."""
    found: frozenset[str] = frozenset()
    for role in roles:
        if role not in BESIDE or BESIDE[role] in roles:
            found |= GRANTS.get(role, frozenset())
    return found


def may(caller: Caller, action: str) -> bool:
    return action in granted(caller.roles)


def require(caller: Caller, *actions: str) -> None:
    """Pass, or raise `Forbidden` naming the first action that the caller's roles do not grant."""
    for action in actions:
        if not may(caller, action):
            raise Forbidden(f"your roles on this project do not allow {action}")


def require_one(caller: Caller, actions: Iterable[str]) -> None:
    """Pass when the caller's roles grant any of them. Raises `Forbidden`."""
    if granted(caller.roles).isdisjoint(actions):
        raise Forbidden(f"your roles on this project allow none of {', '.join(actions)}")
