"""An entry of the route table of this API, with what all of its routes share."""

from functools import partial
from typing import Final

from calotype.web.route import Route

ADMIN: Final = "identity:administer"
ANY_TOKEN: Final = ""

# No route here needs a project: an unscoped token is what a client begins with.
route = partial(Route, family="identity", needs_project=False)
