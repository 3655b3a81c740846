"""Which role may do what: one table. Actions are named `service:resource:operation`, as the IMS API names them."""

from collections.abc import Mapping
from typing import Final

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

GRANTS: Final[Mapping[str, frozenset[str]]] = {
    "reader": READ,
    "member": READ | WRITE,
    "admin": READ | WRITE | ADMINISTER,
    "service": frozenset({"imagev2:locations:get", "imagev2:stores:detail"}),
}


def may(caller: Caller, action: str) -> bool:
    return any(action in GRANTS.get(role, ()) for role in caller.roles)


def require(caller: Caller, *actions: str) -> None:
    """Pass, or raise `Forbidden` naming the first action that the caller's roles do not grant."""
    for action in actions:
        if not may(caller, action):
            raise Forbidden(f"your roles on this project do not allow {action}")
