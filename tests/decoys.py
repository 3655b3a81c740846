"""Files and services that hostile images point at, made real and watched: whatever opens one of them is seen.

A file is watched through its folder, so that it does not matter by which process it is opened, nor as whom.
"""

import contextlib
import ctypes
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

IN_ACCESS, IN_OPEN, IN_NONBLOCK = 0x1, 0x20, os.O_NONBLOCK
EVENT: Final = struct.Struct("iIII")
IN_Q_OVERFLOW: Final = 0x4000
BUFFER: Final = 65536
SECRET: Final = b"of the host alone\n" * 64


class Decoys:
    """Watched while the context lasts. `paths`: of a file, a link to it, a FIFO and a socket; `port`: TCP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {name: folder / name for name in ("file", "link", "fifo", "socket")}
        self.connections = 0
        self._held: list[int] = []
        self._listening: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths["file"].write_bytes(SECRET)
        self.paths["link"].symlink_to(self.paths["file"])
        os.mkfifo(self.paths["fifo"])
        # Both ends are held, so that nobody who opens it waits for another.
        self._held.append(os.open(self.paths["fifo"], os.O_RDWR | os.O_NONBLOCK))
        tcp, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
        with _within(self.folder):
            unix.bind("socket")  # the whole path may be longer than a socket's can be
        unix.listen()
        self.port = int(tcp.getsockname()[1])
        for listening in (tcp, unix):
            self._listening.append(listening)
            self._threads.append(threading.Thread(target=self._accept, args=(listening,), daemon=True))
            self._threads[-1].start()
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = int(libc.inotify_init1(IN_NONBLOCK))
        watch = libc.inotify_add_watch(self._inotify, os.fsencode(self.folder), IN_ACCESS | IN_OPEN)
        assert self._inotify >= 0 <= watch, os.strerror(ctypes.get_errno())
        self._held.append(self._inotify)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in self._threads:
            thread.join()
        for descriptor in self._held:
            os.close(descriptor)

    def touched(self) -> list[str]:
        """What was opened, read or connected to since this was last asked."""
        found: list[str] = []
        while select.select([self._inotify], [], [], 0)[0]:
            data, at = os.read(self._inotify, BUFFER), 0
            while at < len(data):
                _, mask, _, length = EVENT.unpack_from(data, at)
                name = data[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0").decode()
                found.append("more than was kept" if mask & IN_Q_OVERFLOW else name or "the folder")
                at += EVENT.size + length
        found += ["a connection"] * self.connections
        self.connections = 0
        return found

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
