"""The objects of a folder in the order of their keys, in memory that does not grow with their number."""

import heapq
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from calotype.buckets.address import object_key
from calotype.buckets.descent import folder_below
from calotype.buckets.model import ObjectKey
from calotype.errors import InvalidObjectKey


class Found(NamedTuple):
    key: ObjectKey
    stat: os.stat_result


def walk(root: Path, *, prefix: str = "", marker: str = "", batch: int) -> Iterator[Found]:
    """Yield the regular files whose keys begin with `prefix` and come after `marker`, in order.

    At most `batch` names of each folder on the way down are in memory. Names that are no keys are passed over, and so
    is everything that is neither a file nor a folder. `prefix` and `marker` are only compared: no folder is opened but
    by a name that was found. Raises `FileNotFoundError` when `root` is gone.
    """
    top = _Folder(root, "", prefix, marker, batch)
    top.refill()
    levels = [top]
    while levels:
        level = levels[-1]
        if level.names:
            name, found = level.names.popleft()
            if found is None:
                levels.append(_Folder(root, level.path + name, prefix, marker, batch))
            else:
                yield Found(ObjectKey(level.path + name), found)
        elif level.complete or not level.refilled():
            levels.pop()


def folders(root: Path) -> list[str]:
    """Every folder below `root`, as paths that end in '/', deeper ones first."""
    todo, found = [""], []
    while todo:
        path = todo.pop()
        try:
            with folder_below(root, path.split("/")[:-1]) as fd, os.scandir(fd) as entries:
                below = [f"{path}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        found += below
        todo += below
    return sorted(found, key=lambda path: path.count("/"), reverse=True)


class _Folder:
    """A folder on the way down. `path` is "" or ends in '/'; folders among `names` end in '/' and have no stat.

    It is not kept open: a key may be 500 folders deep, and a process has few descriptors.
    """

    def __init__(self, root: Path, path: str, prefix: str, marker: str, batch: int) -> None:
        self.root = root
        self.path = path
        self.prefix = prefix
        self.marker = marker
        self.batch = batch
        self.names: deque[tuple[str, os.stat_result | None]] = deque()
        self.complete = False
        self._after = ""

    def refilled(self) -> bool:
        """Read the next names, if the folder is still there."""
        try:
            self.refill()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        return True

    def refill(self) -> None:
        with folder_below(self.root, self.path.split("/")[:-1]) as fd:
            with os.scandir(fd) as entries:
                names = heapq.nsmallest(self.batch, self._wanted(entries))
            self.complete = len(names) < self.batch
            for name in names:
                if not _is_key(self.path + name.rstrip("/")):
                    continue
                if name.endswith("/"):
                    self.names.append((name, None))
                    continue
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                self.names.append((name, found))
            if names:
                self._after = names[-1]

    def _wanted(self, entries: Iterator["os.DirEntry[str]"]) -> Iterator[str]:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                name = f"{entry.name}/"  # as it is in keys: "a-b" comes before "a/b"
            elif entry.is_file(follow_symlinks=False):
                name = entry.name
            else:
                continue
            if name > self._after and self._may_hold(self.path + name):
                yield name

    def _may_hold(self, key: str) -> bool:
        if not key.endswith("/"):
            return key.startswith(self.prefix) and key > self.marker
        below = key.startswith(self.prefix) or self.prefix.startswith(key)
        return below and (key > self.marker or self.marker.startswith(key))


def _is_key(text: str) -> bool:
    try:
        object_key(text)
    except InvalidObjectKey:
        return False
    return True
