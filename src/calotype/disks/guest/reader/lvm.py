"""Logical volumes of LVM2: linear ones, and striped ones of one stripe, which are the same.

Source: lvm2, lib/format_text/layout.h, and the text that `vgcfgbackup` writes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from calotype.disks.guest.reader.blocks import Joined, Unreadable, Volume, number, unpack

SECTOR: Final = 512
LABEL_SECTORS: Final = 4
MAGIC: Final = b" LVM2 x[5A%r0N*>"
MOST_TEXT: Final = 1024 * 1024
MOST_AREAS: Final = 8
MOST_TOKENS: Final = 200_000
MOST_DEPTH: Final = 16
MOST_VOLUMES: Final = 64
MOST_SEGMENTS: Final = 1024

_TOKEN: Final = re.compile(r'\s+|#[^\n]*|"((?:[^"\\]|\\.)*)"|(-?\d+(?:\.\d+)?)(?![\w.-])|([\w.+-]+)|([={}\[\],])')


def is_physical_volume(volume: Volume) -> bool:
    return _label_at(volume) is not None


def logical_volumes(physical: list[Volume]) -> Iterator[Volume]:
    """Those of which every part is on the given physical volumes. What makes no sense is left out."""
    known: dict[str, Volume] = {}
    texts: list[str] = []
    for volume in physical:
        uuid, text = _read(volume)
        known[uuid] = volume
        if text and text not in texts:
            texts.append(text)
    for text in texts:
        for group in _parsed(text).values():
            if isinstance(group, dict) and "extent_size" in group:
                yield from _of_group(group, known)


def _label_at(volume: Volume) -> int | None:
    for sector in range(LABEL_SECTORS):
        if volume.size >= (sector + 1) * SECTOR:
            label = volume.read(sector * SECTOR, 32)
            if label[:8] == b"LABELONE" and label[24:] == b"LVM2 001":
                return sector * SECTOR
    return None


def _read(volume: Volume) -> tuple[str, str]:
    """The id of a physical volume, and what its metadata area says of the whole group."""
    at = _label_at(volume)
    if at is None:
        raise Unreadable("no physical volume")
    label = volume.read(at, SECTOR)
    header = number("<I", label, 20)
    uuid = bytes(unpack("<32s", label, header)[0]).decode("ascii", "replace")
    data = list(_areas(label, header + 40))
    for place, size in _areas(label, header + 40 + 16 * (len(data) + 1)):
        text = _text(volume, place, size)
        if text:
            return uuid, text
    return uuid, ""


def _areas(label: bytes, at: int) -> Iterator[tuple[int, int]]:
    """A list of places and sizes that ends with zeros."""
    for index in range(MOST_AREAS):
        place, size = unpack("<QQ", label, at + 16 * index)
        if not place:
            return
        yield place, size


def _text(volume: Volume, place: int, size: int) -> str:
    header = volume.read(place, SECTOR)
    if header[4:20] != MAGIC:
        return ""
    offset, length = unpack("<QQ", header, 40)
    if not SECTOR <= offset < size or not 0 < length <= MOST_TEXT:
        return ""
    first = min(length, size - offset)  # the area is a ring; its first sector is the header
    text = volume.read(place + offset, first)
    if length > first:
        text += volume.read(place + SECTOR, length - first)
    return text.rstrip(b"\0").decode(errors="replace")


def _of_group(group: dict[str, Any], known: dict[str, Volume]) -> Iterator[Volume]:
    extent = _int(group, "extent_size") * SECTOR
    places: dict[str, tuple[Volume, int]] = {}
    for name, physical in _dicts(group.get("physical_volumes")):
        volume = known.get(str(physical.get("id", "")).replace("-", ""))
        if volume is not None:
            places[name] = (volume, _int(physical, "pe_start") * SECTOR)
    for _, logical in _dicts(group.get("logical_volumes"))[:MOST_VOLUMES]:
        pieces = []
        segments = [one for name, one in _dicts(logical) if name.startswith("segment")]
        for segment in sorted(segments, key=lambda one: _int(one, "start_extent"))[:MOST_SEGMENTS]:
            stripes = segment.get("stripes")
            linear = segment.get("type") == "striped" and segment.get("stripe_count") == 1
            if not linear or not isinstance(stripes, list) or len(stripes) != 2 or stripes[0] not in places:
                break
            volume, start = places[stripes[0]]
            first = stripes[1] if isinstance(stripes[1], int) else 0
            pieces.append((volume, start + first * extent, _int(segment, "extent_count") * extent))
        else:
            if pieces:
                yield Joined(pieces)


def _int(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or not 0 <= value < 2**50:
        raise Unreadable(f"no number: {name}")
    return value


def _dicts(values: object) -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, one in values.items() if isinstance(one, dict)] if isinstance(values, dict) else []


def _parsed(text: str) -> dict[str, Any]:
    """`name { … }` becomes a dict, `name = value` a str, an int or a list of them."""
    tokens = _tokens(text)
    outer: list[dict[str, Any]] = [{}]
    for token in tokens:
        if token == ("mark", "}"):
            if len(outer) == 1:
                raise Unreadable("one brace too many")
            outer.pop()
            continue
        if token[0] != "name":
            raise Unreadable("a name was expected")
        name, then = str(token[1]), next(tokens, None)
        if then == ("mark", "{"):
            inner: dict[str, Any] = {}
            outer[-1][name] = inner
            outer.append(inner)
            if len(outer) > MOST_DEPTH:
                raise Unreadable("too deep")
        elif then == ("mark", "="):
            outer[-1][name] = _value(tokens)
        else:
            raise Unreadable("neither a section nor a value")
    return outer[0]


def _value(tokens: Iterator[tuple[str, str | int]]) -> str | int | list[str | int]:
    kind, value = next(tokens, ("", ""))
    if (kind, value) != ("mark", "["):
        if kind not in ("text", "number"):
            raise Unreadable("a value was expected")
        return value
    found: list[str | int] = []
    for kind, value in tokens:
        if (kind, value) == ("mark", "]"):
            return found
        if (kind, value) != ("mark", ","):
            found.append(value)
    raise Unreadable("a list without an end")


def _tokens(text: str) -> Iterator[tuple[str, str | int]]:
    at = 0
    for _ in range(MOST_TOKENS):
        match = _TOKEN.match(text, at)
        if match is None:
            if at < len(text):
                raise Unreadable("no text of LVM")
            return
        at = match.end()
        quoted, figure, name, mark = match.groups()
        if quoted is not None:
            yield "text", quoted
        elif figure is not None:
            yield "number", int(figure) if figure.lstrip("-").isdecimal() and len(figure) < 20 else figure
        elif name is not None:
            yield "name", name
        elif mark is not None:
            yield "mark", mark
    raise Unreadable("a text without an end")
