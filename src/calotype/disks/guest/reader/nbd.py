"""A disk image read through qemu-nbd, which knows the formats: a client of NBD that can do nothing but read.

Source: the NBD protocol, doc/proto.md of the NetworkBlockDevice project; "fixed newstyle".
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from calotype.disks.guest.reader.blocks import Disk, Unreadable

TIMEOUT_S: Final = 15.0  # of one answer
GREETING: Final = struct.Struct(">8s8sH")
OPTION: Final = struct.Struct(">I8sII")  # the client's flags, then an option without data
EXPORT: Final = struct.Struct(">QH")
REQUEST: Final = struct.Struct(">IHHQQI")
REPLY: Final = struct.Struct(">IIQ")
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
EXPORT_NAME: Final = 1
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
READ: Final = 0
FIRST_PASSED_FILE: Final = 3  # where a server that is started with a listening socket finds it


@contextmanager
def served(image: str, folder: str) -> Iterator[Disk]:
    """The disk that is in `image`, which names its format as qemu wants it told; `folder` is for the socket.

    Raises `Unreadable` if qemu-nbd does not take the image.
    """
    name = f"{folder}/nbd"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connection:
        listening.bind(name)
        listening.listen(1)
        connection.settimeout(TIMEOUT_S)
        connection.connect(name)  # it waits in the queue until the server takes it
        os.unlink(name)  # noqa: PTH108 - a name at /proc/self/fd, which pathlib has no more of than os
        pid = _start(image, listening)
        listening.close()
        try:
            yield _disk(connection)
        except OSError as error:
            raise Unreadable("the server of the disk went away") from error
        finally:
            connection.close()
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _start(image: str, listening: socket.socket) -> int:
    """qemu-nbd serves one client, read-only, at the socket it is given, and ends with it."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(listening.fileno(), FIRST_PASSED_FILE)
        os.set_inheritable(FIRST_PASSED_FILE, True)  # dup2 leaves it alone if it is that one already
        environment = {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        arguments = ["qemu-nbd", "--read-only", "--shared=1", "--cache=writeback", image]
        os.execvpe("qemu-nbd", arguments, environment)  # noqa: S606 - without a shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"qemu-nbd does not start: {error}\n")
    finally:
        os._exit(127)


def _disk(connection: socket.socket) -> Disk:
    start, option, flags = GREETING.unpack(_received(connection, GREETING.size))
    if (start, option) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & FIXED_NEWSTYLE:
        raise Unreadable("no server of NBD")
    connection.sendall(OPTION.pack(FIXED_NEWSTYLE | (flags & NO_ZEROES), b"IHAVEOPT", EXPORT_NAME, 0))
    size, _ = EXPORT.unpack(_received(connection, EXPORT.size))
    if not flags & NO_ZEROES:
        _received(connection, 124)
    cookie = 0

    def read_at(offset: int, length: int) -> bytes:
        nonlocal cookie
        cookie += 1
        connection.sendall(REQUEST.pack(REQUEST_MAGIC, 0, READ, cookie, offset, length))
        magic, error, answered = REPLY.unpack(_received(connection, REPLY.size))
        if (magic, answered) != (REPLY_MAGIC, cookie):
            raise Unreadable("an answer to no question")
        if error:
            raise Unreadable("the image cannot be read there")
        return _received(connection, length)

    return Disk(read_at, size)


def _received(connection: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        piece = connection.recv(length - len(received))
        if not piece:
            raise Unreadable("the server of the disk went away")
        received += piece
    return bytes(received)
