"""The version documents, which need no token."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.settings import Settings
from calotype.web.described import IdentityVersions, OneIdentityVersion
from calotype.web.identity.entry import route
from calotype.web.request import app_of, json

MULTIPLE_CHOICES: Final = 300


async def show_versions(request: Request) -> Response:
    return json({"versions": {"values": [_version(app_of(request).settings)]}}, status=MULTIPLE_CHOICES)


async def show_version(request: Request) -> Response:
    return json({"version": _version(app_of(request).settings)})


def _version(settings: Settings) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{settings.url}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


ROUTES: Final = [
    *(
        route(
            method="GET",
            path=path,
            handler=show_versions,
            permission=None,
            status=MULTIPLE_CHOICES,
            gives=IdentityVersions,
            summary="Versions of the Identity API",
        )
        for path in ("/identity", "/identity/")
    ),
    *(
        route(
            method="GET",
            path=path,
            handler=show_version,
            permission=None,
            gives=OneIdentityVersion,
            summary="Version 3 of the Identity API",
        )
        for path in ("/identity/v3", "/identity/v3/")
    ),
]
