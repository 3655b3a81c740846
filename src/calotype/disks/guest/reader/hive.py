"""The registry of Windows: values of one key of a hive. Source: the description that the project hivex gives."""

from collections.abc import Callable, Iterator
from typing import Final

from calotype.disks.guest.reader.blocks import Unreadable, number, unpack

BASE: Final = 4096  # of all offsets in a hive
TEXT, EXPANDED_TEXT, NUMBER = 1, 2, 4  # types of values
MOST_KEYS: Final = 100_000  # below one key
MOST_VALUES: Final = 1000  # of one key
MOST_VALUE: Final = 4096  # bytes
LATIN_KEY, LATIN_VALUE = 0x20, 0x1  # flags: the name has a byte for each character
IN_PLACE: Final = 0x80000000  # in a value's size: up to four bytes, where otherwise their offset is


class Hive:
    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        """`read` as of a file of that size. Raises `Unreadable` if it is no hive."""
        self._read = read
        self._size = size
        header = self._at(0, 64)
        if header[:4] != b"regf":
            raise Unreadable("not a hive")
        self._root = number("<I", header, 36)

    def values(self, path: str) -> dict[str, str | int]:
        """The texts and numbers at a key; none if there is no such key."""
        key = self._root
        for name in path.split("\\"):
            found = self._below(key, name.casefold())
            if found is None:
                return {}
            key = found
        return dict(self._values(key))

    def _below(self, key: int, wanted: str) -> int | None:
        node = self._key(key)
        count, at = number("<I", node, 20), number("<I", node, 28)
        if not count:
            return None
        for seen, offset in enumerate(self._listed(at, nested=True)):
            if seen > MOST_KEYS:
                raise Unreadable("keys without an end")
            below = self._key(offset)
            length = number("<H", below, 72)
            name = self._at(BASE + offset + 4 + 76, length)
            if _named(name, latin=bool(number("<H", below, 2) & LATIN_KEY)).casefold() == wanted:
                return offset
        return None

    def _listed(self, at: int, *, nested: bool) -> Iterator[int]:
        kind, count = unpack("<2sH", self._cell(at, 4))
        width = 8 if kind in (b"lf", b"lh") else 4
        if kind not in (b"lf", b"lh", b"li", b"ri"):
            raise Unreadable("no list of keys")
        entries = self._cell(at, 4 + width * count)
        for index in range(count):
            offset = number("<I", entries, 4 + width * index)
            if kind != b"ri":
                yield offset
            elif nested:
                yield from self._listed(offset, nested=False)

    def _values(self, key: int) -> Iterator[tuple[str, str | int]]:
        node = self._key(key)
        count, at = unpack("<II", node, 36)
        if not count:
            return
        offsets = self._cell(at, 4 * min(count, MOST_VALUES))
        for offset in unpack(f"<{len(offsets) // 4}I", offsets):
            value = self._cell(offset, 20)
            magic, length, size, place, kind, flags = unpack("<2sHIIIH", value)
            if magic != b"vk":
                raise Unreadable("no value of a key")
            name = _named(self._at(BASE + offset + 4 + 20, length), latin=bool(flags & LATIN_VALUE))
            if size & IN_PLACE:
                data = value[8 : 8 + min(size & ~IN_PLACE, 4)]
            elif size <= MOST_VALUE:
                data = self._cell(place, size)
            else:
                continue
            if kind in (TEXT, EXPANDED_TEXT):
                yield name, data.decode("utf-16-le", "replace").partition("\0")[0]
            elif kind == NUMBER and len(data) == 4:
                yield name, number("<I", data)

    def _key(self, offset: int) -> bytes:
        node = self._cell(offset, 76)
        if node[:2] != b"nk":
            raise Unreadable("no key")
        return node

    def _cell(self, offset: int, length: int) -> bytes:
        """The first bytes of a cell, after its size."""
        return self._at(BASE + offset + 4, length)

    def _at(self, offset: int, length: int) -> bytes:
        if offset + length > self._size:
            raise Unreadable("outside of the hive")
        return self._read(offset, length)


def _named(name: bytes, *, latin: bool) -> str:
    return name.decode("latin-1") if latin else name.decode("utf-16-le", "replace")
