"""Keystone's Identity API v3 under /identity: versions, tokens, the catalog, and what an admin changes."""

from typing import Final

from msgspec import structs

from calotype.web.identity import assignments, catalog, credentials, domains, projects, roles, tokens, users, versions
from calotype.web.route import Route

ROUTES: Final[list[Route]] = [
    *versions.ROUTES,
    *tokens.ROUTES,
    *catalog.ROUTES,
    *domains.ROUTES,
    *projects.ROUTES,
    *users.ROUTES,
    *credentials.ROUTES,
    *roles.ROUTES,
    *assignments.ROUTES,
    # The vendor's SDKs keep only the host of an identity endpoint; they look up the project of a region.
    *(
        structs.replace(route, path="/v3/projects")
        for route in projects.ROUTES
        if (route.method, route.path) == ("GET", "/identity/v3/projects")
    ),
]
