"""Keystone's Identity API v3 under /identity: versions, tokens, the catalog, and what an admin changes."""

from typing import Final

from calotype.web.identity import assignments, catalog, domains, projects, roles, tokens, users, versions
from calotype.web.route import Route

ROUTES: Final[list[Route]] = [
    *versions.ROUTES,
    *tokens.ROUTES,
    *catalog.ROUTES,
    *domains.ROUTES,
    *projects.ROUTES,
    *users.ROUTES,
    *roles.ROUTES,
    *assignments.ROUTES,
]
