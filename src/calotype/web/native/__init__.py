"""Calotype's own face: buckets, jobs, servers that images can be made from, and backups that are kept of them."""

from calotype.web.native.backups import ROUTES as BACKUPS
from calotype.web.native.buckets import ROUTES as BUCKETS
from calotype.web.native.jobs import ROUTES as JOBS
from calotype.web.native.servers import ROUTES as SERVERS

ROUTES = [*BACKUPS, *BUCKETS, *JOBS, *SERVERS]
