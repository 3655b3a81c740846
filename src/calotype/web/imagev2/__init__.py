"""The OpenStack Image API v2: decodes, names the permission, calls the catalogue, encodes."""

from typing import Final

from calotype.web.imagev2 import actions, data, images, info, members, schemas, tags, versions
from calotype.web.route import Route

ROUTES: Final[list[Route]] = [
    *versions.ROUTES,
    *schemas.ROUTES,
    *images.ROUTES,
    *data.ROUTES,
    *tags.ROUTES,
    *members.ROUTES,
    *actions.ROUTES,
    *info.ROUTES,
]
