"""The IMS face: what starts jobs, and how they stand."""

from calotype.web.ims.images import ROUTES as IMAGES
from calotype.web.ims.jobs import ROUTES as JOBS

ROUTES = [*JOBS, *IMAGES]
