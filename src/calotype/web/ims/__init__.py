"""The IMS face: what starts jobs, and how they stand; the images that are there."""

from calotype.web.ims.images import ROUTES as IMAGES
from calotype.web.ims.jobs import ROUTES as JOBS
from calotype.web.ims.lists import ROUTES as LISTS
from calotype.web.ims.updates import ROUTES as UPDATES

ROUTES = [*JOBS, *IMAGES, *LISTS, *UPDATES]
