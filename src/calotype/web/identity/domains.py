"""/domains."""

from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.model import Domain, DomainChange, DomainCreate
from calotype.web.described import Domains, OneDomain
from calotype.web.identity.entry import ADMIN, ANY_TOKEN, LISTING, route
from calotype.web.identity.forms import domain_form, listed, page, wanted
from calotype.web.request import app_of, body, caller, json


class DomainCreateBody(Struct, frozen=True, kw_only=True):
    domain: DomainCreate


class DomainChangeBody(Struct, frozen=True, kw_only=True):
    domain: DomainChange


async def list_domains(request: Request) -> Response:
    shown = page(request)
    found = await app_of(request).identity.directory.domains(wanted(request), shown)
    return listed(request, "domains", found, domain_form, shown)


async def create_domain(request: Request) -> Response:
    new = (await body(request, DomainCreateBody)).domain
    return _shown(request, await app_of(request).identity.directory.create_domain(new), status=201)


async def show_domain(request: Request) -> Response:
    directory = app_of(request).identity.directory
    return _shown(request, await directory.domain(caller(request), request.path_params["domain_id"]))


async def change_domain(request: Request) -> Response:
    change = (await body(request, DomainChangeBody)).domain
    directory = app_of(request).identity.directory
    return _shown(request, await directory.change_domain(request.path_params["domain_id"], change))


async def delete_domain(request: Request) -> Response:
    await app_of(request).identity.directory.delete_domain(request.path_params["domain_id"])
    return Response(status_code=204)


def _shown(request: Request, domain: Domain, status: int = 200) -> Response:
    return json({"domain": domain_form(app_of(request).settings, domain)}, status=status)


_ALL: Final = "/identity/v3/domains"
_ONE: Final = "/identity/v3/domains/{domain_id}"
ROUTES: Final = [
    route(
        method="GET", path=_ALL, handler=list_domains, permission=ADMIN, reads=LISTING, gives=Domains, summary="Domains"
    ),
    route(
        method="POST",
        path=_ALL,
        handler=create_domain,
        permission=ADMIN,
        takes=DomainCreateBody,
        status=201,
        gives=OneDomain,
        summary="Create a domain",
    ),
    route(method="GET", path=_ONE, handler=show_domain, permission=ANY_TOKEN, gives=OneDomain, summary="A domain"),
    route(
        method="PATCH",
        path=_ONE,
        handler=change_domain,
        permission=ADMIN,
        takes=DomainChangeBody,
        gives=OneDomain,
        summary="Change a domain",
    ),
    route(
        method="DELETE",
        path=_ONE,
        handler=delete_domain,
        permission=ADMIN,
        status=204,
        summary="Delete a disabled domain with all in it",
    ),
]
