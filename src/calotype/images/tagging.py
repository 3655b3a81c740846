"""Tags as IMS has them: a key and a value, of which a key has one. Pure.

They are kept as Image v2 writes them, as strings. IMS writes `key=value`, or `key` where the value is empty; older
clients wrote `key.value`. So a tag is split at the first `=`, else at the first `.`.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from calotype.images.model import TagFilter


class Tag(Struct, frozen=True):
    key: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.value else self.key


class TagQuery(Struct, frozen=True, kw_only=True):
    """Which images of a project are asked for by their tags. Everything given must hold."""

    all_of: tuple[TagFilter, ...] = ()
    any_of: tuple[TagFilter, ...] = ()
    not_all_of: tuple[TagFilter, ...] = ()
    none_of: tuple[TagFilter, ...] = ()
    untagged: bool = False
    name: str | None = None  # a part of it; an empty one is the whole
    image_id: str | None = None


def read(text: str) -> Tag:
    """A tag as it is kept."""
    key, _, value = text.partition("=" if "=" in text else ".")
    return Tag(key, value)


def spellings(tag: Tag) -> tuple[str, ...]:
    """Every string that is read as this tag."""
    if "=" in tag.key:
        return ()  # no key holds one: it would have been split there
    found = [f"{tag.key}={tag.value}"]
    if "." not in tag.key and "=" not in tag.value:
        found.append(f"{tag.key}.{tag.value}")
        if not tag.value:
            found.append(tag.key)
    return tuple(found)


def of_values(key: str, values: Sequence[str]) -> TagFilter:
    """A tag of this key with one of the values; without values, with any."""
    if not values:
        return of_key(key)
    return TagFilter(strings=tuple(text for value in values for text in spellings(Tag(key, value))))


def of_key(key: str) -> TagFilter:
    """Any tag of this key, whatever its value."""
    if "=" in key:
        return TagFilter()
    return TagFilter(strings=() if "." in key else (key,), key=key)


def asked(text: str) -> TagFilter:
    """What the filter `tag` of a list finds: `key=value` also where it was written `key.value`; a text without `=` the
    tag that is just this, and any of this key."""
    if "=" in text:
        key, _, value = text.partition("=")
        return TagFilter(strings=tuple(dict.fromkeys((text, *spellings(Tag(key, value))))))
    return TagFilter(strings=(text,), key=text)


def with_tags(kept: Iterable[str], added: Iterable[Tag]) -> tuple[str, ...]:
    """The tags of an image with others added; of a key that is there already, the new value counts, in its place."""
    wanted = {tag.key: str(tag) for tag in added}
    found: dict[str, None] = {}
    done: set[str] = set()
    for text in kept:
        key = read(text).key
        found[wanted.get(key, text)] = None
        done.add(key)
    for key, text in wanted.items():
        if key not in done:
            found[text] = None
    return tuple(found)


def without_keys(kept: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
    """The tags of an image but those of these keys."""
    gone = set(keys)
    return tuple(text for text in kept if read(text).key not in gone)
