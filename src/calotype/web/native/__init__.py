"""Calotype's own face: buckets and jobs."""

from calotype.web.native.buckets import ROUTES as BUCKETS
from calotype.web.native.jobs import ROUTES as JOBS

ROUTES = [*BUCKETS, *JOBS]
