"""What an IMS list is asked for, from the parameters of its URL. Pure. Contract: images-ims.md §8.

Where IMS and Image v2 have a parameter in common it means the same, and `images.query` reads it; here is the rest.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from msgspec.structs import replace

from calotype.errors import BadFilter, UnknownFlavor
from calotype.images import os_versions, query, tagging
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import ImageQuery, TagFilter, Visibility

PAGE: Final = 500  # images, when a list does not say how many
IGNORED: Final = frozenset({"__protected"})  # a client sends it beside `protected`
VISIBILITIES: Final = ("public", "private", "shared")
ALL_PROJECTS: Final = "all_granted_eps"
ARCHITECTURES: Final = {"arm": ("__support_arm", "true"), "x86": ("__support_arm", "false")}


def parse(parameters: Iterable[tuple[str, str]]) -> ImageQuery:
    """Return the query that the decoded parameters ask for. Of a filter given twice the last counts, except of `tag`.

    Raises `BadFilter` with the parameter's name, `UnknownFlavor`.
    """
    rest: list[tuple[str, str]] = []
    tags: dict[TagFilter, None] = {}
    defaulted: dict[str, str] = {}
    answered = False
    for name, value in parameters:
        if "\x00" in name or "\x00" in value:
            raise BadFilter("a filter holds a NUL character")
        match name:
            case _ if name in IGNORED:
                continue
            case "tag":
                tags[tagging.asked(value)] = None
            case "visibility" if value not in VISIBILITIES:
                raise BadFilter(f"visibility: wants one of {', '.join(VISIBILITIES)}")
            case "__platform":
                rest.append((name, _platform(value)))
            case "__whole_image":
                wanted = _truth(name, value)
                if wanted == "true":
                    rest.append((name, wanted))
                else:
                    defaulted[name] = wanted
            case "enterprise_project_id":
                _enterprise_project(value, rest, defaulted)
            case "flavor_id":
                raise UnknownFlavor(f"flavor_id: this service knows no flavors; {value[:64]!r} is none")
            case "architecture" if value in ARCHITECTURES:
                attribute, mark = ARCHITECTURES[value]
                if mark == "true":
                    rest.append((attribute, mark))
                else:
                    defaulted[attribute] = mark
            case _:
                answered = answered or name == "member_status"
                rest.append((name, value))
    if len(tags) > query.MOST_FILTERS:
        raise BadFilter(f"at most {query.MOST_FILTERS} tags can be asked for at once")
    asked = query.parse(rest, default_limit=PAGE)
    return replace(
        asked,
        tagged=tuple(tags),
        defaulted=tuple(defaulted.items()),
        by_members=True,
        offered=answered and asked.visibility is Visibility.SHARED,
    )


def _enterprise_project(value: str, rest: list[tuple[str, str]], defaulted: dict[str, str]) -> None:
    if value == "0":
        defaulted["enterprise_project_id"] = value
    elif IMAGE_ID.fullmatch(value):
        rest.append(("enterprise_project_id", value))
    elif value != ALL_PROJECTS:
        raise BadFilter(f"enterprise_project_id: wants a UUID, 0 or {ALL_PROJECTS}")


def _truth(name: str, value: str) -> str:
    folded = value.lower()
    if folded not in ("true", "false"):
        raise BadFilter(f"{name}: wants true or false")
    return folded


def _platform(value: str) -> str:
    """As images have it: pages differ on case and blanks."""
    return _platforms().get(_folded(value), value)


@cache
def _platforms() -> dict[str, str]:
    return {_folded(entry.platform): entry.platform for entry in os_versions.table().values()}


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def parameters() -> dict[str, Any]:
    """Names of the parameters with what they may be, as JSON Schemas, for the published description."""
    exact = ("id", "name", "owner", "status", "container_format", "disk_format", "tag", "created_at", "updated_at")
    marks = ("virtual_env_type", "__imagetype", "__os_type", "__os_bit", "__os_version", "__platform", "__isregistered")
    number = {"type": "integer", "minimum": 0, "maximum": query.LARGEST}
    return {
        "limit": number,
        "marker": {"type": "string"},
        "sort_key": {"type": "string", "enum": [*query.SORT_KEYS]},
        "sort_dir": {"type": "string", "enum": ["asc", "desc"]},
        "visibility": {"type": "string", "enum": [*VISIBILITIES]},
        "member_status": {"type": "string", "enum": ["pending", "accepted", "rejected"]},
        "protected": {"type": "boolean"},
        "__whole_image": {"type": "boolean"},
        "enterprise_project_id": {"type": "string"},
        **dict.fromkeys(("min_disk", "min_ram", "size_min", "size_max"), number),
        **{name: {"type": "string"} for name in (*exact, *marks)},
    }
