"""A part of a file, read as if it were all there is."""

import io
import os
from typing import BinaryIO, cast

from calotype.disks.model import Window


def opened(descriptor: int, window: Window) -> BinaryIO:
    """What lies in the window of an open file, which stays open when this is closed. Its position is its own."""
    return cast("BinaryIO", io.BufferedReader(_Part(descriptor, window)))


class _Part(io.RawIOBase):
    def __init__(self, descriptor: int, window: Window) -> None:
        self._descriptor = descriptor
        self._window = window
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._window.length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # all that BufferedReader gives
        wanted = max(0, min(len(buffer), self._window.length - self._at))
        data = os.pread(self._descriptor, wanted, self._window.offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
