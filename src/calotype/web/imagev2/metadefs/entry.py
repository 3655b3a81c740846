"""An entry of the route table of the metadata definitions, with what its routes read from paths and queries."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final, TypeVar, get_args
from urllib.parse import quote, urlencode

from starlette.requests import Request

from calotype.errors import BadFilter
from calotype.metadefs.forms import read
from calotype.metadefs.model import MOST_PER_PAGE, DefinitionQuery, DefinitionSortKey
from calotype.web.request import body
from calotype.web.route import Parameter, Route

T = TypeVar("T")
NAMESPACES: Final = "/v2/metadefs/namespaces"
NAMESPACE: Final = f"{NAMESPACES}/{{namespace}}"
READ: Final = "imagev2:metadefs:get"
# Whoever may not write is told so first: that says nothing about which namespaces there are.
WRITE: Final = ("imagev2:metadefs:get", "imagev2:metadefs:write")

reading = partial(Route, method="GET", family="imagev2", permission=READ)
writing = partial(Route, family="imagev2", permission=WRITE)


def one_of(name: str, values: Iterable[str]) -> Parameter:
    return Parameter(name=name, schema={"type": "string", "enum": list(values)})


def sorting(keys: Any) -> tuple[Parameter, ...]:
    """The parameters of a page. `keys`: the Literal of what it can be sorted by."""
    return (
        Parameter(name="limit", schema={"type": "integer", "minimum": 0}),
        Parameter(name="marker", summary="the name of the last one of the page before"),
        one_of("sort_key", get_args(keys)),
        one_of("sort_dir", ("asc", "desc")),
    )


async def document(request: Request, kind: type[T]) -> T:
    """The body. Raises `ReadOnlyAttribute`, `MalformedBody`, `EmptyBody`, `TooLarge`."""
    return read(await body(request, dict[str, Any]), kind)


def limit(text: str) -> int:
    """Never more than `MOST_PER_PAGE`. Raises `BadFilter`."""
    if not (text.isascii() and text.isdigit()):
        raise BadFilter("limit: wants a whole number, not negative")
    return MOST_PER_PAGE if len(text) > len(str(MOST_PER_PAGE)) else min(int(text), MOST_PER_PAGE)


def word(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`, if it is allowed. Raises `BadFilter`."""
    if value not in (words := tuple(allowed)):
        raise BadFilter(f"{name}: wants one of {', '.join(words)}")
    return value


def definition_query(request: Request) -> DefinitionQuery:
    """What a list of definitions is asked for. Other parameters count for nothing. Raises `BadFilter`."""
    asked: dict[str, Any] = {}
    for name, value in request.query_params.items():
        match name:
            case "limit":
                asked["limit"] = limit(value)
            case "marker":
                asked["marker"] = value
            case "sort_key":
                asked["sort_key"] = word(name, value, get_args(DefinitionSortKey))
            case "sort_dir":
                asked["descending"] = word(name, value, ("asc", "desc")) == "desc"
            case _:
                pass
    return DefinitionQuery(**asked)


def here(namespace: str, *parts: str) -> str:
    """The path of a namespace, or of something in it."""
    return "/".join([NAMESPACES, *(quote(part, safe=":") for part in (namespace, *parts))])


def link(path: str, request: Request, marker: str | None = None) -> str:
    """The path with the parameters of the request, but another marker."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "marker"]
    kept += [] if marker is None else [("marker", marker)]
    return f"{path}?{urlencode(kept)}" if kept else path
