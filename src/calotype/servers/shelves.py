"""The folders of an inventory, and what is described in each: found, checked, and kept until its file changes."""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic

import structlog
from msgspec import Struct, structs

from calotype.buckets.descent import folder_below, open_regular
from calotype.errors import SourceUnreadable
from calotype.servers.describing import ID, MOST_BYTES, F, form_of, tables_of
from calotype.servers.model import Project

log = structlog.get_logger()

MOST_ENTRIES: Final = 10_000  # of one shelf
SETTLED_NS: Final = 1_000_000_000  # a file that was changed since may change again without a new time of change
Version = tuple[int, int, int, int, int]


class Described(Struct, Generic[F], frozen=True, kw_only=True):
    """What is said of one server, volume, backup or vault. Either `form` or `problem` is there."""

    id: str
    place: tuple[str, ...]  # of its folder, below that of the inventory
    project: str | None  # name or id of the one that sees it; None: every one
    shared_with: tuple[str, ...] = ()
    form: F | None = None
    problem: str = ""

    def seen_by(self, project: Project) -> bool:
        return self.project is None or bool({project.id, project.name} & {self.project, *self.shared_with})

    def known(self) -> F:
        """Raises `SourceUnreadable` where there is a problem."""
        if self.form is None:
            raise SourceUnreadable(self.problem)
        return self.form


Kept = dict[str, tuple[Version, Described[F]]]  # by the name in the folder


class Shelf(Generic[F]):
    """One kind of things in an inventory: a folder each, with a TOML file of the name `file` in it; with no `file`,
    a TOML file each. Any number of threads may ask."""

    def __init__(self, root: Path, name: str, kind: type[F], file: str | None) -> None:
        self._root = root
        self._name = name
        self._kind: type[F] = kind
        self._file = file
        self._kept: Kept[F] = {}
        self._told: dict[str, str] = {}

    def everything(self) -> Sequence[Described[F]]:
        """All that is described, by id; what is described twice has a problem. Raises `SourceUnreadable`."""
        keep: Kept[F] = {}
        with readable(f"the folder {self._name} of the inventory"):
            try:
                with folder_below(self._root, [self._name]) as folder:
                    found = [self._entry(folder, name, keep) for name in self._names(folder)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        self._kept = keep
        entries = _each_once([entry for entry in found if entry is not None])
        self._tell(entries)
        return sorted(entries, key=lambda entry: (entry.id, entry.place))

    def _names(self, folder: int) -> set[str]:
        """Names that begin with a dot are not there yet: programs that write them rename them when they are ready."""
        names = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or (self._file is None and not entry.name.endswith(".toml")):
                    continue
                names.add(entry.name)
                if len(names) > MOST_ENTRIES:
                    raise SourceUnreadable(f"the folder {self._name} of the inventory has above {MOST_ENTRIES} entries")
        return names

    def _entry(self, folder: int, name: str, keep: Kept[F]) -> Described[F] | None:
        """None for what is no description, such as a folder that has no TOML file yet."""
        if self._file is None:
            return self._read(folder, name, name, keep)
        found = _status(folder, name)
        if found is None or stat.S_ISREG(found.st_mode):
            return None
        if not stat.S_ISDIR(found.st_mode):
            return self._broken(name, f"{printable(name)} is a symbolic link, or no folder")
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):  # it was there a moment ago
            return None
        except OSError as error:
            return self._broken(name, f"the folder cannot be read: {error.strerror}")
        try:
            return self._read(inner, self._file, name, keep)
        finally:
            os.close(inner)

    def _read(self, folder: int, file: str, name: str, keep: Kept[F]) -> Described[F] | None:
        found = _status(folder, file)
        if found is None:
            return None
        if not stat.S_ISREG(found.st_mode):
            return self._broken(name, f"{printable(file)} is a symbolic link, or no regular file")
        kept = self._kept.get(name)
        if kept is not None and kept[0] == version_of(found):
            keep[name] = kept
            return kept[1]
        try:
            fd = open_regular(folder, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._broken(name, f"{printable(file)} cannot be read: {error.strerror}")
        with os.fdopen(fd, "rb") as opened:
            known = os.fstat(fd)
            try:
                data = opened.read(MOST_BYTES + 1)
            except OSError as error:
                return self._broken(name, f"{printable(file)} cannot be read: {error.strerror}")
        entry = self._described(data, file, name)
        if time.time_ns() - known.st_ctime_ns > SETTLED_NS:
            keep[name] = (version_of(known), entry)
        return entry

    def _described(self, data: bytes, file: str, name: str) -> Described[F]:
        tables: dict[str, Any] = {}
        try:
            tables = tables_of(data, printable(file))
            form = form_of(tables, self._kind, printable(file))
        except SourceUnreadable as error:
            return self._broken(name, error.message, tables)
        if form.id is None and not re.fullmatch(ID, self._stem(name)):
            return self._broken(name, f"{printable(name)} is no id; give {printable(file)} the key id")
        return Described(
            id=form.id or self._stem(name),
            place=self._place(name),
            project=form.project,
            shared_with=getattr(form, "shared_with", ()),
            form=form,
        )

    def _broken(self, name: str, problem: str, tables: dict[str, Any] | None = None) -> Described[F]:
        """As much as can be known of who may ask for it, and by which id."""
        given = tables or {}
        own, project = given.get("id"), given.get("project")
        return Described(
            id=own if isinstance(own, str) and re.fullmatch(ID, own) else self._stem(name),
            place=self._place(name),
            project=project if isinstance(project, str) else None,
            problem=problem,
        )

    def _stem(self, name: str) -> str:
        """What the id is where none is given; of a name that is no text, something that can be shown."""
        return printable(name).removesuffix(".toml") if self._file is None else printable(name)

    def _place(self, name: str) -> tuple[str, ...]:
        return (self._name, name)

    def _tell(self, entries: Sequence[Described[F]]) -> None:
        """Log a problem when it is new."""
        problems = {entry.place[-1]: entry.problem for entry in entries if entry.problem}
        for name, problem in problems.items():
            if self._told.get(name) != problem:
                log.warning("inventory_unreadable", kind=self._name, name=printable(name), reason=problem)
        self._told = problems


def printable(name: str) -> str:
    """A file name as one line of text; those on disk may be any bytes."""
    return "".join(c if c.isprintable() else "?" for c in name)


def version_of(found: os.stat_result) -> Version:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Raise `SourceUnreadable` for what the operating system refuses; what is not there passes."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise SourceUnreadable(f"{what} cannot be read: {error.strerror}") from error


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _each_once(entries: list[Described[F]]) -> list[Described[F]]:
    times = Counter(entry.id for entry in entries)
    return [
        entry
        if times[entry.id] == 1
        else structs.replace(entry, form=None, problem=f"{times[entry.id]} descriptions have the id {entry.id}")
        for entry in entries
    ]
