"""The program: `raw FILE [OFFSET LENGTH]` or `nbd IMAGE FOLDER` in, one line of JSON out: what was found, or null."""

import json
import os
import sys

from calotype.disks.guest.reader.blocks import Disk, Spent, Unreadable
from calotype.disks.guest.reader.nbd import served
from calotype.disks.guest.reader.search import search


def main(arguments: list[str]) -> None:
    try:
        told = (
            _raw(arguments[1], *map(int, arguments[2:]))
            if arguments[0] == "raw"
            else _served(arguments[1], arguments[2])
        )
    except (Unreadable, Spent) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        told = None
    json.dump(told, sys.stdout)


def _raw(name: str, start: int = 0, size: int = -1) -> dict[str, object] | None:
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - a name at /proc/self/fd
        size = size if size >= 0 else os.fstat(file.fileno()).st_size
        return _told(Disk(lambda offset, length: os.pread(file.fileno(), length, start + offset), size))


def _served(image: str, folder: str) -> dict[str, object] | None:
    with served(image, folder) as disk:
        return _told(disk)


def _told(disk: Disk) -> dict[str, object] | None:
    found = search(disk)
    if found is None:
        return None
    words = {**found.system._asdict(), "firmware": found.firmware, "root_filesystem": found.file_system}
    return {name: _printable(value) if isinstance(value, str) else value for name, value in words.items()}


def _printable(text: str) -> str:
    """The words are the guest's own, and end in a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
