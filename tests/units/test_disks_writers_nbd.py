"""The client of NBD against servers that lie: it reads images of users through a program that they may own."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.writers.guest_bytes import BLOCK
from calotype.disks.writers.nbd import MOST_EXTENTS, NbdDisk, ServerGone
from calotype.errors import ConversionFailed

SIZE: Final = 1024 * 1024
GREETING: Final = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
NAME: Final = b"base:allocation"


def reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data


def export(size: int = SIZE) -> bytes:
    return reply(7, 3, struct.pack(">HQH", 0, size, 0)) + reply(7, 1)


STRUCTURED: Final = reply(8, 1)
CONTEXT: Final = reply(10, 4, b"\0\0\0\x09" + NAME) + reply(10, 1)
HANDSHAKE: Final = GREETING + STRUCTURED + CONTEXT + export()


def chunk(kind: int, cookie: int, data: bytes = b"", *, flags: int = 1) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data)) + data


def data_at(offset: int, data: bytes) -> bytes:
    return struct.pack(">Q", offset) + data


def extents(*pairs: tuple[int, int], context: int = 9) -> bytes:
    return struct.pack(">I", context) + b"".join(struct.pack(">II", *pair) for pair in pairs)


def told(said: bytes) -> NbdDisk:
    """The client, at a server that says this and goes away."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    kept.append(theirs)
    kept.append(ours)
    return NbdDisk(ours)


kept: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while kept:
        kept.pop().close()


def eight() -> int:
    return 8


def read(answers: bytes, length: int = 4096) -> bytes:
    [(start, _, load)] = told(HANDSHAKE + answers).read([(512, length)], eight)
    data = load()
    assert start == 512
    return bytes(data)


def test_an_answer_in_pieces_is_put_together() -> None:
    answers = (
        chunk(1, 1, data_at(512 + 2048, b"b" * 2048), flags=0)
        + chunk(2, 1, struct.pack(">QI", 512, 1024), flags=0)
        + chunk(1, 1, data_at(512 + 1024, b"a" * 1024), flags=0)
        + chunk(0, 1)
    )

    assert read(answers) == bytes(1024) + b"a" * 1024 + b"b" * 2048


def test_answers_may_come_in_any_order() -> None:
    answers = [chunk(1, number, data_at(number * 512, bytes([number]) * 512)) for number in (3, 1, 2)]

    disk = told(HANDSHAKE + b"".join(answers))

    places = [(512, 512), (1024, 512), (1536, 512)]
    assert [load()[:1] for _, _, load in disk.read(places, eight)] == [b"\x01", b"\x02", b"\x03"]


def test_extents_that_read_as_zeros_are_left_out_and_none_goes_beyond_the_disk() -> None:
    disk = told(HANDSHAKE + chunk(5, 1, extents((4096, 0), (4096, 3), (4096, 1), (2**32 - 512, 0))))

    assert list(disk.extents()) == [(0, 4096), (8192, 4096), (12288, SIZE - 12288)]


HANDSHAKES: Final = {
    "nothing": b"",
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "the old handshake": b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53" + bytes(200),
    "no structured replies": GREETING + reply(8, 2**31 + 1),
    "an answer to another option": GREETING + reply(7, 1),
    "another magic": GREETING + b"\0" + STRUCTURED,
    "no context": GREETING + STRUCTURED + reply(10, 1),
    "another context": GREETING + STRUCTURED + reply(10, 4, b"\0\0\0\x09qemu:dirty") + reply(10, 1),
    "two contexts": GREETING + STRUCTURED + reply(10, 4, b"\0\0\0\x09" + NAME) * 2 + reply(10, 1),
    "no size": GREETING + STRUCTURED + CONTEXT + reply(7, 1),
    "an odd size": GREETING + STRUCTURED + CONTEXT + export(1000),
    "a size of 2**63": GREETING + STRUCTURED + CONTEXT + export(2**63),
    "an endless answer": GREETING + struct.pack(">QIII", 0x3E889045565A9, 8, 4, 2**32 - 1),
    "endless answers": GREETING + reply(8, 3) * 1000,
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_is_none_ends_it(name: str) -> None:
    with pytest.raises(ServerGone):
        told(HANDSHAKES[name])


LIES: Final = {
    "nothing": b"",
    "half a chunk": chunk(1, 1, data_at(512, bytes(4096)))[:-1],
    "a simple reply": struct.pack(">IIQ", 0x67446698, 0, 1) + bytes(4096),
    "another cookie": chunk(1, 2, data_at(512, bytes(4096))),
    "before what was asked for": chunk(1, 1, data_at(0, bytes(4096))),
    "after what was asked for": chunk(1, 1, data_at(1024, bytes(4096))),
    "far away": chunk(1, 1, data_at(2**64 - 512, bytes(4096))),
    "more than was asked for": chunk(1, 1, data_at(512, bytes(4097))),
    "the same twice": chunk(1, 1, data_at(512, bytes(4096)), flags=0) + chunk(1, 1, data_at(512, bytes(4096))),
    "less than was asked for": chunk(1, 1, data_at(512, bytes(4095))),
    "done without data": chunk(0, 1),
    "no bytes": chunk(1, 1, data_at(512, b"")),
    "a hole that is too long": chunk(2, 1, struct.pack(">QI", 512, 2**32 - 1)),
    "a hole of another form": chunk(2, 1, bytes(11)),
    "extents": chunk(5, 1, extents((4096, 0))),
    "a kind that nobody knows": chunk(77, 1, bytes(16)),
    "done with data": chunk(0, 1, b"data"),
    "an endless error": struct.pack(">IHHQI", 0x668E33EF, 1, 0x8001, 1, 2**32 - 1),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_data_ends_it(name: str) -> None:
    with pytest.raises(ServerGone):
        read(LIES[name])


@pytest.mark.parametrize(
    "answer",
    [
        chunk(5, 1, extents((0, 0))),
        chunk(5, 1, extents((4096, 0), context=8)),
        chunk(5, 1, extents((4096, 0)) + b"1234"),
        chunk(5, 1, extents((4096, 0)), flags=0) + chunk(5, 1, extents((4096, 0))),
        struct.pack(">IHHQI", 0x668E33EF, 1, 5, 1, 4 + 8 * (MOST_EXTENTS + 1)),
        chunk(1, 1, data_at(0, bytes(512))),
    ],
    ids=["no bytes", "another context", "an odd length", "twice", "too many", "data"],
)
def test_a_lie_about_extents_ends_it(answer: bytes) -> None:
    with pytest.raises(ServerGone):
        list(told(HANDSHAKE + answer).extents())


@pytest.mark.parametrize(
    "asking",
    [lambda disk: list(disk.read([(512, 4096)], eight)), lambda disk: list(disk.extents())],
    ids=["data", "extents"],
)
def test_an_error_of_the_image_is_told_as_one(asking: Callable[[NbdDisk], object]) -> None:
    disk = told(HANDSHAKE + chunk(0x8001, 1, struct.pack(">IH", 5, 3) + b"bad"))

    with pytest.raises(ConversionFailed, match="cannot be read at byte"):
        asking(disk)


def test_extents_that_are_not_told_are_an_error_of_the_image() -> None:
    with pytest.raises(ConversionFailed):
        list(told(HANDSHAKE + chunk(0, 1)).extents())


@given(st.binary(max_size=200), st.integers(0, len(HANDSHAKE)))
def test_no_bytes_of_a_server_are_more_than_an_error(noise: bytes, after: int) -> None:
    with suppress(ServerGone, ConversionFailed):
        disk = told(HANDSHAKE[:after] + noise)
        list(disk.read([(0, BLOCK // 4)], eight))
    while kept:
        kept.pop().close()


def test_goodbye_is_said_to_nobody_too() -> None:
    disk = told(HANDSHAKE)
    kept[-2].close()

    disk.interrupt()
    disk.close()
