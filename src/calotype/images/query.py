"""What a list is asked for, from the parameters of a URL. Pure.

Source: Image API v2 reference, "List images". A name that is no parameter of the API is a property that must have the
value.
"""

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from calotype.errors import BadFilter
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import Direction, ImageQuery, MemberStatus, SortKey, TimeFilter, Visibility

MOST_PER_PAGE: Final = 1000
LISTS: Final = ("id", "name", "status", "container_format", "disk_format")  # where in:a,b is a list
EXACT: Final = (*LISTS, "owner", "checksum", "os_hash_algo", "os_hash_value")
SIZES: Final = ("size", "virtual_size", "min_disk", "min_ram")
NUMBERS: Final = (*SIZES, *(f"{size}_{end}" for size in SIZES for end in ("min", "max")))
TIMES: Final = ("created_at", "updated_at")
SORT_KEYS: Final[tuple[str, ...]] = get_args(SortKey)
MOST_FILTERS: Final = 50
LARGEST: Final = 2**63 - 1


def parse(parameters: Iterable[tuple[str, str]], *, default_limit: int) -> ImageQuery:
    """Return the query that the decoded parameters, in their order, ask for. Of a filter given twice the last counts.

    Raises `BadFilter` with the parameter's name.
    """
    asked: dict[str, Any] = {}
    exact: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, int] = {}
    times: dict[str, TimeFilter] = {}
    properties: dict[str, str] = {}
    tags: list[str] = []
    sorting: dict[str, list[str]] = {"sort": [], "sort_key": [], "sort_dir": []}
    for name, value in parameters:
        if "\x00" in name or "\x00" in value:
            raise BadFilter("a filter holds a NUL character")
        match name:
            case "limit":
                asked["limit"] = min(_number(name, value), MOST_PER_PAGE)
            case "marker":
                asked["marker"] = value
            case "visibility":
                asked["visibility"] = _word(name, value, (*Visibility, "all"), Visibility)
            case "member_status":
                asked["member_status"] = _word(name, value, (*MemberStatus, "all"), MemberStatus)
            case "os_hidden":
                asked["hidden"] = _boolean(name, value)
            case "protected":
                asked["protected"] = _boolean(name, value)
            case "changes-since":
                raise BadFilter("changes-since: is no filter of this version; use updated_at=gte:TIME")
            case "tag":
                tags.append(value)
            case "sort" | "sort_key" | "sort_dir":
                sorting[name].append(value)
            case _ if name in EXACT:
                exact[name] = _values(name, value)
            case _ if name in NUMBERS:
                numbers[name] = _number(name, value)
            case "created_at" | "updated_at":
                times[name] = _time(name, value)
            case _:
                properties[name] = value
    if len(tags) + len(properties) > MOST_FILTERS:
        raise BadFilter(f"at most {MOST_FILTERS} tags and properties can be asked for at once")
    if "id" in exact:  # of another form than an id is: no image has it
        exact["id"] = tuple(value.lower() for value in exact["id"] if IMAGE_ID.fullmatch(value))
    return ImageQuery(
        one_of=exact,
        numbers=numbers,
        times=tuple((column, times[column]) for column in TIMES if column in times),
        properties=tuple(properties.items()),
        tags=tuple(dict.fromkeys(tags)),
        sort=_sort(sorting),
        **{"limit": default_limit, **asked},
    )


def _sort(given: dict[str, list[str]]) -> tuple[tuple[SortKey, Direction], ...]:
    keys, directions = given["sort_key"], given["sort_dir"]
    if given["sort"]:
        if keys or directions:
            raise BadFilter("sort: not together with sort_key and sort_dir")
        pairs = [part.strip().partition(":")[::2] for part in ",".join(given["sort"]).split(",")]
        return _checked([(key.strip(), direction.strip() or "desc") for key, direction in pairs])
    keys = keys or ["created_at"]
    if len(directions) > 1 and len(directions) != len(keys):
        raise BadFilter("sort_dir: give one, or one for each sort_key")
    if len(directions) <= 1:
        directions = (directions or ["desc"]) * len(keys)
    return _checked(list(zip(keys, directions, strict=True)))


def _checked(pairs: list[tuple[str, str]]) -> tuple[tuple[SortKey, Direction], ...]:
    for key, direction in pairs:
        if key not in SORT_KEYS:
            raise BadFilter(f"sort key: wants one of {', '.join(SORT_KEYS)}")
        if direction not in ("asc", "desc"):
            raise BadFilter("sort direction: wants asc or desc")
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadFilter("sort key: each at most once")
    return tuple(pairs)  # type: ignore[arg-type]  # checked above


def _values(name: str, value: str) -> tuple[str, ...]:
    """One value, or those of `in:a,b`, where double quotes hold a value together that has a comma."""
    if name not in LISTS or not value.startswith("in:"):
        return (value,)
    try:
        (row,) = csv.reader([value.removeprefix("in:")], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise BadFilter(f"{name}: the list after in: is not well formed") from None
    if len(row) > MOST_PER_PAGE:
        raise BadFilter(f"{name}: at most {MOST_PER_PAGE} values after in:")
    return tuple(dict.fromkeys(row))


def _word(name: str, value: str, allowed: tuple[str, ...], kind: Any) -> Any:
    if value not in allowed:
        raise BadFilter(f"{name}: wants one of {', '.join(allowed)}")
    return value if value == "all" else kind(value)


def _boolean(name: str, value: str) -> bool:
    folded = value.lower()
    if folded not in ("true", "false"):
        raise BadFilter(f"{name}: wants true or false")
    return folded == "true"


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 19 or int(value) > LARGEST:
        raise BadFilter(f"{name}: wants a whole number, not negative")
    return int(value)


def _time(name: str, value: str) -> TimeFilter:
    """`op:time` or a bare time, which must be equal. ISO 8601, with a T or a blank; UTC if it says no zone."""
    operator: Literal["gt", "gte", "lt", "lte", "eq", "neq"] = "eq"
    word, _, rest = value.partition(":")
    match word:
        case "gt" | "gte" | "lt" | "lte" | "eq" | "neq":
            operator, value = word, rest
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise BadFilter(f"{name}: wants a time as gte:2026-01-02T03:04:05Z; gt, gte, lt, lte, eq, neq") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        seconds = int(moment.timestamp())
    except (OverflowError, ValueError):
        raise BadFilter(f"{name}: the time is out of bounds") from None
    return TimeFilter(operator=operator, at=seconds * 1000)
