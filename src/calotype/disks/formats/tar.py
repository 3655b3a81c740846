"""What lies in a tar archive, and where: ustar, with what GNU and pax add for long names and large sizes.

Read strictly, so that no two readers see different things in one archive: only regular files, each with one name and
one size, no name twice, no bytes that nobody accounts for. Nothing is ever extracted.
Source: POSIX.1-2017, "pax - portable archive interchange"; GNU tar, "Basic Tar Format".
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from calotype.disks.formats.reader import DiskFile, rounded_up
from calotype.errors import OvaRefused

BLOCK: Final = 512
MAGIC: Final = b"ustar"
MAGIC_AT: Final = 257
MOST_NAME_BYTES: Final = 255
MOST_EXTENSION_BYTES: Final = 64 * 1024  # of one header with what did not fit into the usual one
MOST_TRAILING_BYTES: Final = 1024 * 1024  # zeros after the last member: writers fill up whole records
MOST_SIZE: Final = 2**63 - 1
MOST_DIGITS: Final = 18  # of a size in a pax header
LARGEST_OCTAL: Final = 8**11 - 1  # bytes; above that the size does not fit into a ustar header
REGULAR: Final = (b"0", b"\0")
GNU_NAME: Final = b"L"
PAX: Final = b"x"
PAX_GLOBAL: Final = b"g"
REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"M": "a part of a file in several volumes",
}


class Member(Struct, frozen=True, kw_only=True):
    """A regular file in an archive. Its bytes lie at `offset`, a multiple of 512, as they are."""

    name: str
    offset: int
    size: int  # bytes


class _Extension(Struct, kw_only=True):
    """What headers before a member's own say about it."""

    name: str | None = None
    size: int | None = None


def is_tar(head: bytes) -> bool:
    return head.startswith(MAGIC, MAGIC_AT)


def members(archive: DiskFile, *, most: int) -> tuple[Member, ...]:
    """Every member, in order, of an archive of at most `most`. Raises `OvaRefused`, `TruncatedDisk` when it is cut."""
    found: dict[str, Member] = {}
    for member in walk(archive):
        if member.name in found:
            raise OvaRefused(f"the archive holds two files of the name {shown(member.name)}")
        if len(found) == most:
            raise OvaRefused(f"the archive holds more than {most} files")
        found[member.name] = member
    return tuple(found.values())


def walk(archive: DiskFile) -> Iterator[Member]:
    """Yield the members as their headers are read: so the first costs a block or three."""
    at, extension, told = 0, _Extension(), 0
    while True:
        header = archive.exactly(at, BLOCK, "the header of a file in the archive")
        if not any(header):
            break
        kind, size = _checked(header)
        start = at + BLOCK
        if kind in (GNU_NAME, PAX, PAX_GLOBAL):
            told += 1
            if told > 3:
                raise OvaRefused("the archive has more headers than a file needs")
            if size > MOST_EXTENSION_BYTES:
                raise OvaRefused(f"a header in the archive is above {MOST_EXTENSION_BYTES} bytes")
            _extend(extension, kind, archive.exactly(start, size, "a header of the archive"))
        else:
            size = _agreed_size(extension.size, size)
            name = extension.name if extension.name is not None else _name(header)
            _check_name(name)
            if kind not in REGULAR:
                what = REFUSED.get(kind, "of a kind that is not known")
                raise OvaRefused(f"{shown(name)} in the archive is {what}; an OVA holds regular files")
            archive.holds(start, size, f"the file {shown(name)} in the archive")
            yield Member(name=name, offset=start, size=size)
            extension, told = _Extension(), 0
        at = start + rounded_up(size, BLOCK)
    if told:
        raise OvaRefused("the archive ends with a header that no file follows")
    _check_end(archive, at)


def _checked(header: bytes) -> tuple[bytes, int]:
    """The kind of a header, and the size in it."""
    if not is_tar(header):
        raise OvaRefused("not a tar archive of the ustar, GNU or pax kind, or a damaged one")
    counted = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if counted != _number(header[148:156], "checksum"):
        raise OvaRefused("a header of the archive is damaged: its checksum is wrong")
    return header[156:157], _number(header[124:136], "size")


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # base-256, of GNU and star
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value > MOST_SIZE:
            raise OvaRefused(f"a {what} in the archive is negative, or more than there can be")
        return value
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise OvaRefused(f"a {what} in the archive is no number")
    return int(digits, 8)


def _agreed_size(in_pax: int | None, in_header: int) -> int:
    """Readers that know pax and those that do not must see one size, unless only pax can tell it."""
    if in_pax is None or in_pax == in_header:
        return in_header
    if in_pax > LARGEST_OCTAL and in_header in (0, LARGEST_OCTAL):
        return in_pax
    raise OvaRefused(f"the archive gives two sizes for one file: {in_header} and {in_pax} bytes")


def _name(header: bytes) -> str:
    name, prefix = header[:100].partition(b"\0")[0], b""
    if header[257:263] == b"ustar\0":  # GNU has other things where ustar has the prefix
        prefix = header[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise OvaRefused("the name of a file in the archive is not UTF-8") from error


def _check_name(name: str) -> None:
    if not name or len(name.encode()) > MOST_NAME_BYTES:
        raise OvaRefused(f"the name of a file in the archive has 1 to {MOST_NAME_BYTES} bytes")
    if name in (".", "..") or not name.isprintable() or any(character in name for character in "/\\:"):
        raise OvaRefused(f"{shown(name)} in the archive: names without folders and control characters are taken")


def _extend(extension: _Extension, kind: bytes, data: bytes) -> None:
    if kind == GNU_NAME:
        _set_name(extension, data.rstrip(b"\0"))
        return
    for key, value in _pax_records(data):
        if key.startswith(b"GNU.sparse"):
            raise OvaRefused("the archive holds a sparse file; make it with a tool for OVAs, or tar without --sparse")
        if key not in (b"path", b"size"):
            continue  # times, owners, comments
        if kind == PAX_GLOBAL:
            raise OvaRefused("the archive gives a name or a size for all its files at once")
        if key == b"path":
            _set_name(extension, value)
        elif extension.size is not None or not value.isdigit() or len(value) > MOST_DIGITS:
            raise OvaRefused("a size in the archive is no number, or is there twice")
        else:
            extension.size = int(value)


def _set_name(extension: _Extension, name: bytes) -> None:
    if extension.name is not None:
        raise OvaRefused("the archive gives two names for one file")
    extension.name = _text(name)


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records of the form `<length> <key>=<value>\\n`, the length counting all of it."""
    at = 0
    while at < len(data):
        digits = data[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not record.endswith(b"\n") or not equals or not key:
            raise OvaRefused("a pax header of the archive is damaged")
        yield key, value
        at += length


def _check_end(archive: DiskFile, at: int) -> None:
    """Zeros, up to the end of the last record: other readers could find further files after them."""
    if archive.size - at > MOST_TRAILING_BYTES:
        raise OvaRefused(f"the archive goes on for more than {MOST_TRAILING_BYTES} bytes after its last file")
    if any(archive.some(at, archive.size - at)):
        raise OvaRefused("the archive goes on after its end")


def shown(name: str) -> str:
    """A name of the archive's, fit to be told: quoted, not long, no control character."""
    kept = name if len(name) <= 80 else f"{name[:77]}..."
    return "'" + "".join(character if character.isprintable() else "?" for character in kept) + "'"
