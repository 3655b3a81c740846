"""Metadata definitions: namespaces, and the objects, properties, tags and resource types in them."""

from typing import Final

from calotype.web.imagev2.metadefs import namespaces, objects, properties, resource_types, schemas, tags
from calotype.web.route import Route

ROUTES: Final[list[Route]] = [
    *schemas.ROUTES,
    *resource_types.ROUTES,
    *namespaces.ROUTES,
    *properties.ROUTES,
    *objects.ROUTES,
    *tags.ROUTES,
]
