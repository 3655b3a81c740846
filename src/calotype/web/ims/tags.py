"""Tags as IMS has them: a key with a value, on one image, over a project, and as a way to find images."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import BadFilter, ImageNotFound, InvalidTag, MalformedBody, UnknownImage
from calotype.images import tags
from calotype.images.model import TagFilter
from calotype.images.tagging import Tag, TagQuery, of_values, read
from calotype.web.ims import bodies, fields, filters
from calotype.web.ims.lists import LISTING
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Parameter, Route

PAGE: Final = 500  # tags, when a list does not say how many
MOST_PAGE: Final = 1000
MOST_PAGES: Final = 1_000_000
FOUND: Final = 10  # images that a query by tags tells, when it does not say how many
MOST_KEYS: Final = 10  # in each list of a query
MOST_VALUES: Final = 10  # of each key
LONGEST_KEY: Final = 128
LONGEST_VALUE: Final = 255

OF_IMAGE: Final = "/v2/{project_id}/images/{image_id}/tags"


# --- one image --------------------------------------------------------------------------------------------------------


async def put_tag(request: Request) -> Response:
    """One of `tag` and `image_tag`; an empty `image_tag` beside `tag` is none: a client sends it always."""
    given = await body(request, dict[str, Any])
    image_id = fields.text(given, "image_id")
    plain, pair = given.get("tag") or None, given.get("image_tag") or None
    if isinstance(pair, Mapping) and not pair.get("key") and plain is not None:
        pair = None
    if image_id is None or (plain is None) == (pair is None):
        raise MalformedBody("give image_id, and one of tag and image_tag")
    tag = fields.written(plain, "tag") if pair is None else fields.pair(pair, "image_tag")
    try:
        await tags.add(app_of(request).images, caller(request), image_id, [tag])
    except ImageNotFound as error:
        raise UnknownImage(error.message) from error
    return Response(status_code=204)


async def add_tag(request: Request) -> Response:
    tag = fields.pair((await body(request, dict[str, Any])).get("tag"), "tag")
    await tags.add(app_of(request).images, caller(request), _image_id(request), [tag])
    return Response(status_code=204)


async def remove_tag(request: Request) -> Response:
    """The last part of the path is the key, also where that is the name of another call."""
    key = request.path_params.get("key", "action")
    await tags.remove_one(app_of(request).images, caller(request), _image_id(request), key)
    return Response(status_code=204)


async def change_tags(request: Request) -> Response:
    given = await body(request, dict[str, Any])
    images, who, image_id = app_of(request).images, caller(request), _image_id(request)
    match given.get("action"):
        case "create":
            most = app_of(request).settings.image.tags
            await tags.add(images, who, image_id, fields.pairs(given.get("tags"), "tags", most=most))
        case "delete":
            await tags.remove(images, who, image_id, fields.keys(given.get("tags"), "tags"))
        case _:
            raise MalformedBody("action: wants create or delete")
    return Response(status_code=204)


async def remove_tags(request: Request) -> Response:
    given = fields.keys((await body(request, dict[str, Any])).get("tags"), "tags")
    await tags.remove(app_of(request).images, caller(request), _image_id(request), given)
    return Response(status_code=204)


async def tags_of_image(request: Request) -> Response:
    found = await tags.of_image(app_of(request).images, caller(request), _image_id(request))
    return json({"tags": [_pair(tag) for tag in found]})


# --- many images ------------------------------------------------------------------------------------------------------


async def tags_of_project(request: Request) -> Response:
    found = await tags.of_project(app_of(request).images, caller(request))
    return json({"tags": [{"key": key, "values": values} for key, values in found.items()]})


async def list_tags(request: Request) -> Response:
    """The tags of the images that the filters of the image list find. `limit` and `page` count tags, not images."""
    given = request.query_params.multi_items()
    query = filters.parse([(name, value) for name, value in given if name not in ("limit", "page")])
    asked = dict(given)
    limit = min(MOST_PAGE, _counted("limit", asked.get("limit", str(PAGE)), least=0, most=2**31))
    page = _counted("page", asked.get("page", "1"), least=1, most=MOST_PAGES)
    found = await tags.of_list(app_of(request).images, caller(request), query, limit=limit, offset=(page - 1) * limit)
    return json({"tags": found})


async def find_images(request: Request) -> Response:
    given = await body(request, dict[str, Any])
    action = given.get("action")
    if action not in ("filter", "count"):
        raise MalformedBody("action: wants filter or count")
    query = tag_query(given)
    images = app_of(request).images
    if action == "count":
        return json({"total_count": (await tags.find(images, caller(request), query)).total})
    limit = _within(given, "limit", least=1, most=1000, default=FOUND)
    offset = _within(given, "offset", least=0, most=2**31 - 1, default=0)
    found = await tags.find(images, caller(request), query, limit=limit, offset=offset)
    return json(
        {
            "total_count": found.total,
            "resources": [
                {
                    "resource_id": image.id,
                    "resource_name": image.name or "",
                    "resource_detail": {"status": image.status.value},
                    "tags": [_pair(read(text)) for text in image.tags],
                }
                for image in found.images
            ],
        }
    )


def tag_query(given: Mapping[str, Any]) -> TagQuery:
    """Raises `MalformedBody`, `InvalidTag`."""
    name, image_id = _matches(given.get("matches"))
    if fields.flag(given, "without_any_tag"):
        return TagQuery(untagged=True, name=name, image_id=image_id)
    return TagQuery(
        all_of=_tag_list(given, "tags"),
        any_of=_tag_list(given, "tags_any"),
        not_all_of=_tag_list(given, "not_tags"),
        none_of=_tag_list(given, "not_tags_any"),
        name=name,
        image_id=image_id,
    )


def _tag_list(given: Mapping[str, Any], field: str) -> tuple[TagFilter, ...]:
    entries = given.get(field)
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise MalformedBody(f"{field}: wants an array")
    found: dict[str, TagFilter] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise MalformedBody(f'{field}: wants objects of the form {{"key": "…", "values": ["…"]}}')
        key, values = entry["key"], entry.get("values") or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise MalformedBody(f"{field}: values is an array of strings")
        if key in found:
            raise InvalidTag(f"{field}: a key stands there once")
        _check_searched(field, key, values)
        found[key] = of_values(key, values)
    if len(found) > MOST_KEYS:
        raise InvalidTag(f"{field}: at most {MOST_KEYS} keys")
    return tuple(found.values())


def _check_searched(field: str, key: str, values: Sequence[str]) -> None:
    if not 1 <= len(key) <= LONGEST_KEY or any(len(value) > LONGEST_VALUE for value in values):
        raise InvalidTag(f"{field}: a key has 1 to {LONGEST_KEY}, a value at most {LONGEST_VALUE} characters")
    if len(values) > MOST_VALUES or len(set(values)) != len(values):
        raise InvalidTag(f"{field}: a key has at most {MOST_VALUES} values, each once")
    if any("\x00" in text for text in (key, *values)):
        raise InvalidTag(f"{field}: must not hold NUL")


def _matches(entries: Any) -> tuple[str | None, str | None]:
    """What the name must hold, and the id."""
    found: dict[str, str] = {}
    if entries is not None and not isinstance(entries, list):
        raise MalformedBody("matches: wants an array")
    for entry in entries or []:
        if not isinstance(entry, dict) or entry.get("key") not in ("resource_name", "resource_id"):
            raise MalformedBody("matches: wants objects with the key resource_name or resource_id")
        value = entry.get("value")
        if not isinstance(value, str) or len(value) > LONGEST_VALUE or "\x00" in value or entry["key"] in found:
            raise MalformedBody(f"matches: a key stands there once, its value has at most {LONGEST_VALUE} characters")
        found[entry["key"]] = value
    image_id = found.get("resource_id")
    return found.get("resource_name"), None if image_id is None else image_id.lower()


def _within(given: Mapping[str, Any], field: str, *, least: int, most: int, default: int) -> int:
    """A whole number, as a string as documented or as a number. Raises `MalformedBody`."""
    value = given.get(field)
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(most)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise MalformedBody(f"{field}: wants a whole number from {least} to {most}")
    return value


def _counted(name: str, value: str, *, least: int, most: int) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > len(str(most)) or not least <= int(value) <= most:
        raise BadFilter(f"{name}: wants a whole number from {least} to {most}")
    return int(value)


def _pair(tag: Tag) -> dict[str, str]:
    return {"key": tag.key, "value": tag.value}


def _image_id(request: Request) -> str:
    image_id: str = request.path_params["image_id"]
    return image_id


def _route(method: str, path: str, handler: Any, permission: str | tuple[str, ...], summary: str, **more: Any) -> Route:
    return Route(
        method=method, path=path, handler=handler, family="ims", permission=permission, summary=summary, **more
    )


LIST: Final = "ims:images:list"
UPDATE: Final = "ims:images:update"
ROUTES: Final[list[Route]] = [
    _route(
        "PUT",
        "/v1/cloudimages/tags",
        put_tag,
        ("ims:images:get", UPDATE),
        "Add or change a tag",
        takes=bodies.PUT_TAG,
        status=204,
    ),
    _route(
        "GET",
        "/v1/cloudimages/tags",
        list_tags,
        LIST,
        "List the tags of the images that filters find",
        reads=(*LISTING, Parameter(name="page", schema={"type": "integer", "minimum": 1, "maximum": MOST_PAGES})),
        gives=bodies.TAG_TEXTS,
    ),
    _route(
        "DELETE",
        "/v1/{project_id}/cloudimages/{image_id}/tags/delete",
        remove_tags,
        UPDATE,
        "Remove tags from an image",
        takes=bodies.GONE_TAGS,
        status=204,
    ),
]
# A project stands where other calls have a word: these come after all of those.
BY_PROJECT: Final[list[Route]] = [
    _route(
        "GET", "/v2/{project_id}/images/tags", tags_of_project, LIST, "List the project's tags", gives=bodies.ALL_TAGS
    ),
    _route(
        "POST",
        "/v2/{project_id}/images/resource_instances/action",
        find_images,
        LIST,
        "Find or count images by tags",
        takes=bodies.TAG_QUERY,
        gives=bodies.FOUND,
    ),
    _route("GET", OF_IMAGE, tags_of_image, LIST, "List the tags of an image", gives=bodies.TAGS),
    _route("POST", OF_IMAGE, add_tag, UPDATE, "Add a tag", takes=bodies.ADD_TAG, status=204),
    _route(
        "POST",
        f"{OF_IMAGE}/action",
        change_tags,
        UPDATE,
        "Add or remove tags",
        takes=bodies.TAG_ACTION,
        status=204,
    ),
    _route("DELETE", f"{OF_IMAGE}/action", remove_tag, UPDATE, "Remove the tag with the key action", status=204),
    _route("DELETE", f"{OF_IMAGE}/{{key:path}}", remove_tag, UPDATE, "Remove a tag", status=204),
]
