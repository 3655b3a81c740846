"""Which versions of the Image API are spoken here. Clients find their way from these documents; no token is wanted.

`/` and `/v2/` answer 300 with the list, as upstream does and as clients expect; `/versions` answers 200 with the same.
"""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.images.dialect import DIALECTS
from calotype.web.described import ImageVersions
from calotype.web.request import app_of, json
from calotype.web.route import Route

# Of every dialect; those of another than the one in force are not served.
EVERY: Final = tuple(dict.fromkeys(name for dialect in DIALECTS.values() for name, _ in dialect.versions))


def base_url(request: Request) -> str:
    """How the caller reaches the service: the configured URL, else what the request says."""
    configured = app_of(request).settings.http.url
    return configured.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"


def _document(request: Request, *, only: str | None = None) -> dict[str, Any]:
    url = base_url(request)
    versions = [
        {"id": version, "status": status, "links": [{"rel": "self", "href": f"{url}/{version.partition('.')[0]}/"}]}
        for version, status in app_of(request).images.dialect.versions
        if only in (None, version)
    ]
    return {"versions": versions}


async def choices(request: Request) -> Response:
    return json(_document(request), status=300)


async def versions(request: Request) -> Response:
    return json(_document(request))


async def one_version(request: Request) -> Response:
    return json(_document(request, only=request.url.path.strip("/")), status=300)


def _open(path: str, handler: Any, status: int, summary: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        family="imagev2",
        permission=None,
        summary=summary,
        gives=ImageVersions,
        status=status,
    )


ROUTES: Final[list[Route]] = [
    _open("/", choices, 300, "List API versions"),
    _open("/versions", versions, 200, "List API versions"),
    _open("/versions/", versions, 200, "List API versions"),
    _open("/v2", choices, 300, "List API versions"),
    _open("/v2/", choices, 300, "List API versions"),
    *(_open(f"/{version}{slash}", one_version, 300, "Show an API version") for version in EVERY for slash in ("", "/")),
]
