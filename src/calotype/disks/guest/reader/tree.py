"""Files by their path, in any file system."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from calotype.disks.guest.reader.blocks import Unreadable

MOST_LINKS: Final = 16  # symbolic links on the way to one file
MOST_NAMES: Final = 128  # on the way to one file, those of links included
MOST_ENTRIES: Final = 100_000  # of a folder
LONGEST_LINK: Final = 4096

# The type bits of a mode, as all file systems of Unix have them.
_TYPE, _FOLDER, _FILE, _LINK = 0xF000, 0x4000, 0x8000, 0xA000


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


class Node(NamedTuple):
    """A file, a folder or a symbolic link."""

    kind: Kind
    size: int
    inner: Any  # what its file system knows it by


class FileSystem(Protocol):
    """What a parser of a file system can do. Each method raises `Unreadable` and `Spent`."""

    name: str
    ignores_case: bool

    def root(self) -> Node: ...

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        """Each name in a folder, without `.` and `..`, and what `node` takes."""
        ...

    def node(self, reference: Any) -> Node: ...

    def read(self, node: Node, offset: int, length: int) -> bytes:
        """The bytes of a file, or of the target of a link, within its size; the caller keeps to it."""
        ...


def kind_of(mode: int) -> Kind:
    return {_FOLDER: Kind.FOLDER, _FILE: Kind.FILE, _LINK: Kind.LINK}.get(mode & _TYPE, Kind.OTHER)


def find(files: FileSystem, path: str) -> Node | None:
    """Follow links; None if there is no such file. A link out of the file system ends at its root, as in a chroot."""
    way = [files.root()]
    names = _names(path)
    links = walked = 0
    while names:
        name = names.pop()
        walked += 1
        if walked > MOST_NAMES:
            raise Unreadable("a path without an end")
        if name == "..":
            way = way[:-1] or way
            continue
        if way[-1].kind is not Kind.FOLDER:
            return None
        node = _child(files, way[-1], name)
        if node is None:
            return None
        if node.kind is not Kind.LINK:
            way.append(node)
            continue
        links += 1
        if links > MOST_LINKS:
            raise Unreadable("links without an end")
        target = files.read(node, 0, min(node.size, LONGEST_LINK)).decode(errors="replace")
        if target.startswith("/"):
            way = way[:1]
        names += _names(target)
    return way[-1]


def content(files: FileSystem, path: str, most: int) -> bytes | None:
    """The first `most` bytes of a file; None if there is none of that name."""
    node = find(files, path)
    return files.read(node, 0, min(node.size, most)) if node is not None and node.kind is Kind.FILE else None


def names_in(files: FileSystem, path: str, most: int) -> list[str]:
    """The first `most` names in a folder; none if there is no such folder."""
    node = find(files, path)
    if node is None or node.kind is not Kind.FOLDER:
        return []
    return [name for _, (name, _) in zip(range(most), files.entries(node), strict=False)]


def _child(files: FileSystem, folder: Node, name: str) -> Node | None:
    wanted = name.casefold() if files.ignores_case else name
    for count, (found, reference) in enumerate(files.entries(folder)):
        if (found.casefold() if files.ignores_case else found) == wanted:
            return files.node(reference)
        if count > MOST_ENTRIES:
            raise Unreadable("a folder without an end")
    return None


def _names(path: str) -> list[str]:
    """The last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
