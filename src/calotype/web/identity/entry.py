"""An entry of the route table of this API, with what all of its routes share."""

from functools import partial
from typing import Final

from calotype.web.route import Parameter, Route

ADMIN: Final = "identity:administer"
ANY_TOKEN: Final = ""


def parameters(*names: str) -> tuple[Parameter, ...]:
    """Parameters of the query that are any text."""
    return tuple(Parameter(name=name) for name in names)


PAGING: Final = (Parameter(name="limit", schema={"type": "integer", "minimum": 0}), *parameters("marker"))
LISTING: Final = (*PAGING, *parameters("name", "domain_id", "enabled"))

# No route here needs a project: an unscoped token is what a client begins with.
route = partial(Route, family="identity", needs_project=False)
