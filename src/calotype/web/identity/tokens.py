"""/auth: logging in, checking and revoking tokens, and what the caller's token is good for."""

from typing import Final, Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import Forbidden, Invalid, NotSupported, Unauthenticated
from calotype.identity.catalog import catalog
from calotype.identity.directory import Filter
from calotype.identity.model import (
    DomainNamed,
    DomainScope,
    Login,
    Named,
    PasswordLogin,
    ProjectScope,
    Scope,
    TokenLogin,
    Unscoped,
)
from calotype.identity.tokens import REFUSED, Token
from calotype.web.described import Catalog, Domains, OneToken, Projects
from calotype.web.identity.entry import ANY_TOKEN, PAGING, parameters, route
from calotype.web.identity.forms import catalog_form, domain_form, listed, page, project_form, token_form
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Parameter

# --- what arrives -----------------------------------------------------------------------------------------------------
# Fields that are not known are ignored, as in Keystone: none of them gives a right.


class UserWithPassword(Struct, frozen=True, kw_only=True):
    password: str
    id: str | None = None
    name: str | None = None
    domain: DomainNamed | None = None

    def __repr__(self) -> str:
        return "UserWithPassword()"


class PasswordMethod(Struct, frozen=True, kw_only=True):
    user: UserWithPassword


class TokenMethod(Struct, frozen=True, kw_only=True):
    id: str

    def __repr__(self) -> str:
        return "TokenMethod()"


class Methods(Struct, frozen=True, kw_only=True):
    methods: list[str]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None


class WantedScope(Struct, frozen=True, kw_only=True):
    project: Named | None = None
    domain: DomainNamed | None = None
    unscoped: dict[str, object] | None = None
    system: dict[str, object] | None = None


class Auth(Struct, frozen=True, kw_only=True):
    identity: Methods
    scope: WantedScope | Literal["unscoped"] | None = None


class AuthBody(Struct, frozen=True, kw_only=True):
    auth: Auth


def login_of(methods: Methods) -> Login:
    """Raises `Unauthenticated` for a method that is not offered, `Invalid` for one that is not described."""
    if not methods.methods:
        raise Invalid("auth.identity.methods names no method")
    if not {*methods.methods} <= {"password", "token"}:
        raise Unauthenticated(REFUSED)
    if len({*methods.methods}) > 1:
        raise Invalid("auth.identity.methods names several methods; one is wanted, password or token")
    if methods.methods[0] == "token":
        if methods.token is None:
            raise Invalid("auth.identity.token is missing")
        return TokenLogin(token=methods.token.id)
    if methods.password is None:
        raise Invalid("auth.identity.password is missing")
    user = methods.password.user
    named = Named(id=user.id, name=user.name, domain=user.domain)
    _identified(named, "auth.identity.password.user")
    return PasswordLogin(user=named, password=user.password)


def scope_of(scope: WantedScope | Literal["unscoped"] | None) -> Scope:
    """Raises `Invalid` for one that does not say what it is, or says several."""
    if scope is None:
        return None
    if isinstance(scope, str):
        return Unscoped()
    if [scope.project, scope.domain, scope.unscoped, scope.system].count(None) != 3:
        raise Invalid("auth.scope wants one of project, domain and unscoped")
    if scope.system is not None:
        raise NotSupported("there is no system scope; an admin administers with a project or a domain")
    if scope.project is not None:
        _identified(scope.project, "auth.scope.project")
        return ProjectScope(project=scope.project)
    if scope.domain is not None:
        _identified_domain(scope.domain, "auth.scope.domain")
        return DomainScope(domain=scope.domain)
    return Unscoped()


def _identified(named: Named, where: str) -> None:
    if named.id is not None:
        return
    if named.name is None:
        raise Invalid(f"{where} wants an id, or a name and a domain")
    if named.domain is None:
        raise Invalid(f"{where}.domain is missing: a name is unique in its domain only")
    _identified_domain(named.domain, f"{where}.domain")


def _identified_domain(domain: DomainNamed, where: str) -> None:
    if domain.id is None and domain.name is None:
        raise Invalid(f"{where} wants an id or a name")


# --- handlers ---------------------------------------------------------------------------------------------------------


async def create_token(request: Request) -> Response:
    auth = (await body(request, AuthBody)).auth
    issued = await app_of(request).identity.log_in(login_of(auth.identity), scope_of(auth.scope))
    return _shown(request, issued.token, issued.wire, status=201)


async def show_token(request: Request) -> Response:
    wire = _subject(request)
    return _shown(request, await app_of(request).identity.token_of(caller(request), wire), wire)


async def check_token(request: Request) -> Response:
    wire = _subject(request)
    await app_of(request).identity.token_of(caller(request), wire)
    return Response(status_code=200, headers={"X-Subject-Token": wire, "Vary": "X-Auth-Token"})


async def revoke_token(request: Request) -> Response:
    await app_of(request).identity.revoke(caller(request), _subject(request))
    return Response(status_code=204)


async def show_catalog(request: Request) -> Response:
    if not caller(request).roles:
        raise Forbidden("the token has no scope; the catalog is of a project or a domain")
    settings = app_of(request).settings
    links = {"self": f"{settings.url}/identity/v3/auth/catalog", "previous": None, "next": None}
    return json({"catalog": catalog_form(catalog(settings)), "links": links})


async def list_own_projects(request: Request) -> Response:
    shown = page(request)
    found = await app_of(request).identity.directory.projects_of(caller(request).user_id, Filter(enabled=True), shown)
    return listed(request, "projects", found, project_form, shown)


async def list_own_domains(request: Request) -> Response:
    found = await app_of(request).identity.directory.domains_of(caller(request).user_id)
    return listed(request, "domains", found, domain_form, page(request))


def _subject(request: Request) -> str:
    wire = request.headers.get("x-subject-token")
    if not wire:
        raise Invalid("X-Subject-Token is missing: it names the token that is meant")
    return wire


def _shown(request: Request, token: Token, wire: str, status: int = 200) -> Response:
    form = token_form(app_of(request).settings, token, with_catalog="nocatalog" not in request.query_params)
    return json({"token": form}, status=status, headers={"X-Subject-Token": wire, "Vary": "X-Auth-Token"})


_TOKENS: Final = "/identity/v3/auth/tokens"
NO_CATALOG: Final = parameters("nocatalog")
SUBJECT: Final = Parameter(name="X-Subject-Token", where="header", required=True, summary="the token that is meant")
ROUTES: Final = [
    route(
        method="POST",
        path=_TOKENS,
        handler=create_token,
        permission=None,
        takes=AuthBody,
        status=201,
        reads=NO_CATALOG,
        gives=OneToken,
        also=(401,),
        summary="Log in: a token, in X-Subject-Token",
    ),
    route(
        method="GET",
        path=_TOKENS,
        handler=show_token,
        permission=ANY_TOKEN,
        reads=(SUBJECT, *NO_CATALOG),
        gives=OneToken,
        also=(404,),
        summary="What a token says",
    ),
    route(
        method="HEAD",
        path=_TOKENS,
        handler=check_token,
        permission=ANY_TOKEN,
        reads=(SUBJECT,),
        also=(404,),
        summary="Whether a token is valid",
    ),
    route(
        method="DELETE",
        path=_TOKENS,
        handler=revoke_token,
        permission=ANY_TOKEN,
        status=204,
        reads=(SUBJECT,),
        also=(404,),
        summary="Revoke a token",
    ),
    route(
        method="GET",
        path="/identity/v3/auth/catalog",
        handler=show_catalog,
        permission=ANY_TOKEN,
        gives=Catalog,
        summary="The service catalog",
    ),
    route(
        method="GET",
        path="/identity/v3/auth/projects",
        handler=list_own_projects,
        permission=ANY_TOKEN,
        reads=PAGING,
        gives=Projects,
        summary="Projects that the caller can have a token for",
    ),
    route(
        method="GET",
        path="/identity/v3/auth/domains",
        handler=list_own_domains,
        permission=ANY_TOKEN,
        reads=PAGING,
        gives=Domains,
        summary="Domains that the caller can have a token for",
    ),
]
