"""Regions, services and endpoints: computed from the settings, so read-only."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import IdentityNotFound
from calotype.identity.catalog import Endpoint, Service, catalog, regions
from calotype.settings import Settings
from calotype.web.described import Endpoints, OneEndpoint, OneRegion, OneService, Regions, Services
from calotype.web.identity.entry import ADMIN, ANY_TOKEN, parameters, route
from calotype.web.identity.forms import all_of, url_of
from calotype.web.request import app_of, json

ENDPOINT_FILTERS: Final = ("service_id", "interface", "region_id")


async def list_regions(request: Request) -> Response:
    settings = app_of(request).settings
    return all_of(request, "regions", [_region_form(settings, region) for region in regions(settings)])


async def show_region(request: Request) -> Response:
    settings, region = app_of(request).settings, request.path_params["region_id"]
    if region not in regions(settings):
        raise IdentityNotFound(f"Could not find region: {region}.")
    return json({"region": _region_form(settings, region)})


async def list_services(request: Request) -> Response:
    return all_of(request, "services", _matching(request, _services(app_of(request).settings), "type", "name"))


async def show_service(request: Request) -> Response:
    return json({"service": _one(request, _services(app_of(request).settings), "service")})


async def list_endpoints(request: Request) -> Response:
    endpoints = _endpoints(app_of(request).settings)
    return all_of(request, "endpoints", _matching(request, endpoints, *ENDPOINT_FILTERS))


async def show_endpoint(request: Request) -> Response:
    return json({"endpoint": _one(request, _endpoints(app_of(request).settings), "endpoint")})


def _region_form(settings: Settings, region: str) -> dict[str, Any]:
    return {
        "id": region,
        "description": "",
        "parent_region_id": None,
        "links": {"self": url_of(settings, "regions", region)},
    }


def _services(settings: Settings) -> list[dict[str, Any]]:
    return [_service_form(settings, service) for service in catalog(settings)]


def _service_form(settings: Settings, service: Service) -> dict[str, Any]:
    return {
        "id": service.id,
        "name": service.name,
        "type": service.type,
        "description": "",
        "enabled": True,
        "links": {"self": url_of(settings, "services", service.id)},
    }


def _endpoints(settings: Settings) -> list[dict[str, Any]]:
    return [
        _endpoint_form(settings, service, endpoint) for service in catalog(settings) for endpoint in service.endpoints
    ]


def _endpoint_form(settings: Settings, service: Service, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "service_id": service.id,
        "interface": endpoint.interface,
        "region": endpoint.region,
        "region_id": endpoint.region_id,
        "url": endpoint.url,
        "enabled": True,
        "links": {"self": url_of(settings, "endpoints", endpoint.id)},
    }


def _matching(request: Request, items: list[dict[str, Any]], *filters: str) -> list[dict[str, Any]]:
    given: Mapping[str, str] = {name: request.query_params[name] for name in filters if name in request.query_params}
    return [item for item in items if all(item[name] == value for name, value in given.items())]


def _one(request: Request, items: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    wanted = request.path_params[f"{kind}_id"]
    for item in items:
        if item["id"] == wanted:
            return item
    raise IdentityNotFound(f"Could not find {kind}: {wanted}.")


def _read(path: str, handler: Any, permission: str, summary: str, gives: Any, *filters: str) -> Any:
    return route(
        method="GET",
        path=f"/identity/v3/{path}",
        handler=handler,
        permission=permission,
        summary=summary,
        reads=parameters(*filters),
        gives=gives,
    )


ROUTES: Final = [
    _read("regions", list_regions, ANY_TOKEN, "Regions", Regions),
    _read("regions/{region_id}", show_region, ANY_TOKEN, "A region", OneRegion),
    _read("services", list_services, ADMIN, "Services of the catalog", Services, "type", "name"),
    _read("services/{service_id}", show_service, ADMIN, "A service of the catalog", OneService),
    _read("endpoints", list_endpoints, ADMIN, "Endpoints of the catalog", Endpoints, *ENDPOINT_FILTERS),
    _read("endpoints/{endpoint_id}", show_endpoint, ADMIN, "An endpoint of the catalog", OneEndpoint),
]
