"""The IMS face: what starts jobs, and how they stand; the images that are there."""

from calotype.web.ims.images import ROUTES as IMAGES
from calotype.web.ims.jobs import ROUTES as JOBS
from calotype.web.ims.lists import ROUTES as LISTS
from calotype.web.ims.tags import BY_PROJECT
from calotype.web.ims.tags import ROUTES as TAGS
from calotype.web.ims.updates import ROUTES as UPDATES

__all__ = ["BY_PROJECT", "ROUTES"]

ROUTES = [*JOBS, *IMAGES, *LISTS, *UPDATES, *TAGS]
