"""What can go wrong, as one hierarchy; no HTTP in it.

A *family* says what a program can do about an error and is what `web/problems.py` maps to the wire.
A *leaf* says what happened: `code` is stable and readable, `img` is the code that the IMS API has for the same fact
(its message is in `calotype/jobs/img_codes.json`). The text of an error is for the caller: what was wrong and what to
do, in the API's words, without paths, queries or secrets.
"""

from calotype.errors.buckets import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.disks import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.families import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.fetching import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.identity import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.images import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.jobs import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.metadefs import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.regions import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.requests import *  # noqa: F403 - the names of all are those of this package
from calotype.errors.servers import *  # noqa: F403 - the names of all are those of this package
