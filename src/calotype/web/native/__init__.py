"""Calotype's own face: buckets, jobs, and the servers that images can be made from."""

from calotype.web.native.buckets import ROUTES as BUCKETS
from calotype.web.native.jobs import ROUTES as JOBS
from calotype.web.native.servers import ROUTES as SERVERS

ROUTES = [*BUCKETS, *JOBS, *SERVERS]
