"""The forms of the Identity API v3: how values look on the wire, and pages of them."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter
from calotype.identity.catalog import Service, catalog
from calotype.identity.directory import Filter
from calotype.identity.model import MOST_LISTED, Domain, Page, Project, Role, User
from calotype.identity.tokens import Ref, Token
from calotype.settings import Settings
from calotype.web.request import app_of, json

T = TypeVar("T")
FALSE: Final = frozenset({"false", "0", "no", "off"})  # of a filter; Keystone takes anything else for true
_LIMIT: Final = re.compile(r"[0-9]{1,9}")


def url_of(settings: Settings, *parts: str) -> str:
    return "/".join((f"{settings.url}/identity/v3", *parts))


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}000Z"


# --- one of each ------------------------------------------------------------------------------------------------------


def domain_form(settings: Settings, domain: Domain) -> dict[str, Any]:
    return {
        "id": domain.id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "options": {},
        "tags": [],
        "links": {"self": url_of(settings, "domains", domain.id)},
    }


def project_form(settings: Settings, project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "domain_id": project.domain_id,
        "description": project.description,
        "enabled": project.enabled,
        "parent_id": project.domain_id,
        "is_domain": False,
        "options": {},
        "tags": [],
        "links": {"self": url_of(settings, "projects", project.id)},
    }


def user_form(settings: Settings, user: User) -> dict[str, Any]:
    form = {
        "id": user.id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": None,
        "options": {},
        "links": {"self": url_of(settings, "users", user.id)},
    }
    rest = {"email": user.email, "description": user.description, "default_project_id": user.default_project_id}
    return form | {key: value for key, value in rest.items() if value is not None}


def role_form(settings: Settings, role: Role) -> dict[str, Any]:
    return {
        "id": role.id,
        "name": role.name,
        "domain_id": None,
        "description": role.description,
        "options": {},
        "links": {"self": url_of(settings, "roles", role.id)},
    }


def catalog_form(services: Sequence[Service]) -> list[dict[str, Any]]:
    return [
        {
            "id": service.id,
            "name": service.name,
            "type": service.type,
            "endpoints": [structs.asdict(endpoint) for endpoint in service.endpoints],
        }
        for service in services
    ]


def token_form(settings: Settings, token: Token, *, with_catalog: bool) -> dict[str, Any]:
    form: dict[str, Any] = {
        "methods": token.methods,
        "user": {**_named(token.user), "domain": _named(token.user_domain), "password_expires_at": None},
        "audit_ids": token.audit_ids,
        "expires_at": moment(token.expires_at),
        "issued_at": moment(token.issued_at),
    }
    if token.project is not None and token.project_domain is not None:
        form["project"] = {**_named(token.project), "domain": _named(token.project_domain)}
        form["is_domain"] = False
    if token.domain is not None:
        form["domain"] = _named(token.domain)
    if token.roles:
        form["roles"] = [_named(role) for role in token.roles]
        if with_catalog:
            form["catalog"] = catalog_form(catalog(settings))
    return form


def _named(ref: Ref) -> dict[str, str]:
    return {"id": ref.id, "name": ref.name}


# --- many -------------------------------------------------------------------------------------------------------------


def page(request: Request) -> Page:
    """`limit` and `marker` of the query; one more than is shown, to know whether another page follows."""
    given = request.query_params.get("limit", str(MOST_LISTED))
    if _LIMIT.fullmatch(given) is None:
        raise BadFilter("limit wants a whole number")
    return Page(limit=min(int(given) or MOST_LISTED, MOST_LISTED) + 1, marker=request.query_params.get("marker", ""))


def wanted(request: Request) -> Filter:
    query = request.query_params
    enabled = query.get("enabled")
    return Filter(
        name=query.get("name"),
        domain_id=query.get("domain_id"),
        enabled=None if enabled is None else enabled.lower() not in FALSE,
    )


def listed(
    request: Request, key: str, found: Sequence[T], form: Callable[[Settings, T], dict[str, Any]], shown: Page
) -> Response:
    """One page; where another follows, `links.next` names it."""
    settings = app_of(request).settings
    here = f"{settings.url}{request.url.path}"
    items = [form(settings, item) for item in found[: shown.limit - 1]]
    links: dict[str, str | None] = {"self": here, "previous": None, "next": None}
    if request.url.query:
        links["self"] = f"{here}?{request.url.query}"
    document: dict[str, Any] = {key: items, "links": links}
    if len(found) < shown.limit:
        return json(document)
    rest = [(name, value) for name, value in request.query_params.multi_items() if name not in ("marker", "limit")]
    following = f"{here}?{urlencode([*rest, ('limit', shown.limit - 1), ('marker', items[-1]['id'])])}"
    links["next"] = following
    # openstacksdk does not follow Keystone's links, but Image v2's `next` wherever it stands.
    return json({**document, "truncated": True, "next": following})


def all_of(request: Request, key: str, items: Sequence[dict[str, Any]]) -> Response:
    """A list that is never paged."""
    here = f"{app_of(request).settings.url}{request.url.path}"
    return json({key: items, "links": {"self": here, "previous": None, "next": None}})
