"""Which operating systems images can be said to have."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter
from calotype.images.os_versions import OsVersion, table
from calotype.web.ims import bodies
from calotype.web.request import json
from calotype.web.route import Parameter, Route


def _every(_entry: OsVersion) -> bool:
    return True


# The table tells architecture and firmware apart; what servers of which kind boot it is not for this service to say.
TAGS: Final[Mapping[str, Callable[[OsVersion], bool]]] = {
    "bms": _every,
    "bms_otc": _every,
    "kvm": _every,
    "uefi": lambda entry: entry.uefi,
    "x86": lambda entry: entry.architecture == "x86",
    "arm": lambda entry: entry.architecture == "arm",
}


async def list_os_versions(request: Request) -> Response:
    """A bare array, a platform each. Of several tags all must hold."""
    asked = request.query_params.getlist("tag")
    for tag in asked:
        if tag not in TAGS:
            raise BadFilter(f"tag: wants one of {', '.join(TAGS)}")
    platforms: dict[str, list[dict[str, Any]]] = {}
    for entry in table().values():
        if all(TAGS[tag](entry) for tag in asked):
            platforms.setdefault(entry.platform, []).append(_view(entry))
    return json([{"platform": platform, "version_list": entries} for platform, entries in platforms.items()])


def _view(entry: OsVersion) -> dict[str, Any]:
    return {
        "platform": entry.platform,
        "os_version_key": entry.os_version,
        "os_version": entry.os_version,
        "os_bit": entry.os_bit,
        "os_type": entry.os_type,
    }


ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v1/cloudimages/os_version",
        handler=list_os_versions,
        family="ims",
        permission="ims:images:list",
        summary="List the OS versions that images can have",
        reads=(Parameter(name="tag", schema={"type": "array", "items": {"enum": [*TAGS]}}, summary="all must hold"),),
        gives=bodies.OS_VERSIONS,
    ),
]
