"""Tags as callers of IMS work with them: by key on one image, over a project, and as a way to find images.

The functions take the catalogue. Image ids come as they were sent.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from calotype.errors import TagNotFound, TooManyTags
from calotype.identity.model import Caller
from calotype.images import pages, tags_sql
from calotype.images.model import Image, ImageQuery
from calotype.images.service import Images
from calotype.images.tagging import Tag, TagQuery, read, with_tags, without_keys

MOST_IMAGES: Final = 10_000  # whose tags are told at once; the newest, where a list does not say which


class Found(Struct, frozen=True, kw_only=True):
    total: int
    images: tuple[Image, ...] = ()


async def add(images: Images, caller: Caller, image_id: str, given: Sequence[Tag]) -> None:
    """Give an image these tags; of a key that it has, the new value counts. Done twice it changes nothing.

    Raises `ImageNotFound`, `NotImageOwner`, `TooManyTags`.
    """
    most = images.limits.tags

    def changed(kept: tuple[str, ...]) -> tuple[str, ...]:
        after = with_tags(kept, given)
        if len(after) > max(most, len(kept)):
            raise TooManyTags(f"an image has at most {most} tags; this would be {len(after)}")
        return after

    await images.retag(caller, image_id, changed)


async def remove(images: Images, caller: Caller, image_id: str, keys: Sequence[str]) -> None:
    """Take the tags of these keys from an image; those that it does not have are no matter.

    Raises `ImageNotFound`, `NotImageOwner`.
    """
    await images.retag(caller, image_id, lambda kept: without_keys(kept, keys))


async def remove_one(images: Images, caller: Caller, image_id: str, key: str) -> None:
    """As `remove`, but raises `TagNotFound` when the image has no tag of this key."""

    def without(kept: tuple[str, ...]) -> tuple[str, ...]:
        left = without_keys(kept, [key])
        if len(left) == len(kept):
            raise TagNotFound(key)
        return left

    await images.retag(caller, image_id, without)


async def of_image(images: Images, caller: Caller, image_id: str) -> tuple[Tag, ...]:
    """Raises `ImageNotFound`."""
    return tuple(read(text) for text in (await images.get(caller, image_id)).tags)


async def of_project(images: Images, caller: Caller) -> dict[str, list[str]]:
    """Every key that is on an image of the caller's project, with the values that it has there, in order."""
    texts = await images.db.read(lambda c: tags_sql.of_project(c, caller.project_id or ""))
    found: dict[str, set[str]] = {}
    for tag in map(read, texts):
        found.setdefault(tag.key, set()).add(tag.value)
    return {key: sorted(found[key]) for key in sorted(found)}


async def of_list(images: Images, caller: Caller, query: ImageQuery, *, limit: int, offset: int) -> list[str]:
    """The distinct tags of the first `MOST_IMAGES` images of a list, in order. Raises as `Images.list`."""
    every = replace(query, limit=MOST_IMAGES)
    return await images.db.read(lambda c: pages.tags(c, caller, every, limit=limit, offset=offset))


async def find(images: Images, caller: Caller, query: TagQuery, *, limit: int = 0, offset: int = 0) -> Found:
    """How many images of the caller's project there are, and `limit` of them after the first `offset`, the newest
    first."""
    project_id = caller.project_id or ""
    return await images.db.read(
        lambda c: Found(
            total=tags_sql.count(c, project_id, query),
            images=tags_sql.find(c, project_id, query, limit=limit, offset=offset) if limit else (),
        )
    )
