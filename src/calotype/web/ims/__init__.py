"""The IMS face: what starts jobs, and how they stand; the images that are there."""

from calotype.web.ims import (
    creating,
    images,
    jobs,
    legacy,
    lists,
    members,
    os_versions,
    quota,
    regions,
    tags,
    updates,
    whole,
)
from calotype.web.ims.tags import BY_PROJECT

__all__ = ["BY_PROJECT", "ROUTES"]

ROUTES = [
    *jobs.ROUTES,
    *creating.ROUTES,
    *images.ROUTES,
    *regions.ROUTES,
    *lists.ROUTES,
    *updates.ROUTES,
    *tags.ROUTES,
    *quota.ROUTES,
    *os_versions.ROUTES,
    *members.ROUTES,
    *legacy.ROUTES,
    *whole.ROUTES,
]
