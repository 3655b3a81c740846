"""The OpenStack Image API v2: decodes, names the permission, calls the catalogue, encodes."""

from typing import Final

from calotype.web.imagev2 import (
    actions,
    cache,
    data,
    images,
    imports,
    info,
    locations,
    members,
    metadefs,
    schemas,
    stores,
    tags,
    tasks,
    versions,
)
from calotype.web.route import Route

ROUTES: Final[list[Route]] = [
    *versions.ROUTES,
    *schemas.ROUTES,
    *images.ROUTES,
    *data.ROUTES,
    *imports.ROUTES,
    *tasks.ROUTES,
    *tags.ROUTES,
    *members.ROUTES,
    *actions.ROUTES,
    *info.ROUTES,
    *stores.ROUTES,
    *locations.ROUTES,
    *cache.ROUTES,
    *metadefs.ROUTES,
]
