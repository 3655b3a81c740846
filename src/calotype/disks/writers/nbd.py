"""A client of NBD that can do nothing but read, and ask where there is data: several questions under way at once.

What the server says is not trusted: it reads images of users. Every length is held against what was asked for.
Source: the NBD protocol, doc/proto.md of the NetworkBlockDevice project; "fixed newstyle", structured replies.
"""

import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from calotype.disks.formats.reader import SECTOR
from calotype.disks.writers.guest_bytes import BLOCK, Ahead, Load, Place
from calotype.errors import ConversionFailed

TIMEOUT_S: Final = 120  # of one answer
ASKED: Final = 1 << 30  # bytes of the disk whose extents are asked for at once
MOST_EXTENTS: Final = 1 << 17  # in one answer; QEMU's own limit
MOST_ANSWER: Final = 64 * 1024  # of the handshake

GREETING: Final = struct.Struct(">8s8sH")
OPTION: Final = struct.Struct(">8sII")
OPTION_REPLY: Final = struct.Struct(">QIII")
REQUEST: Final = struct.Struct(">IHHQQI")
CHUNK: Final = struct.Struct(">IHHQI")
EXPORT: Final = struct.Struct(">HQH")
OFFSET: Final = struct.Struct(">Q")
HOLE: Final = struct.Struct(">QI")

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
GO, STRUCTURED, SET_CONTEXT = 7, 8, 10  # options
ACK, INFO, CONTEXT, REFUSED = 1, 3, 4, 1 << 31  # replies to them
OPTION_MAGIC, REQUEST_MAGIC, CHUNK_MAGIC = 0x3E889045565A9, 0x25609513, 0x668E33EF
READ, DISCONNECT, BLOCK_STATUS = 0, 2, 7
DONE: Final = 1
DATA_CHUNK, HOLE_CHUNK, STATUS_CHUNK, ERROR_CHUNK = 1, 2, 5, 1 << 15
READS_ZERO: Final = 2  # of the flags of an extent
ALLOCATION: Final = b"base:allocation"


class ServerGone(Exception):
    """The server has ended, or does not answer, or not as the protocol says."""


class _Question:
    """One request: what was asked, and what has come of it."""

    def __init__(self, kind: int, start: int, length: int) -> None:
        self.kind, self.start, self.length = kind, start, length
        self.data = bytearray(length if kind == READ else 0)
        self.received = 0
        self.extents: list[tuple[int, int]] = []
        self.failed = False
        self.done = False

    def taken(self) -> bytearray:
        return self.data


class NbdDisk:
    """The disk at the other end of `connection`, a blocking socket that is ours alone."""

    def __init__(self, connection: socket.socket) -> None:
        """Shake hands. Raises `ServerGone`."""
        self._connection = connection
        self._questions: dict[int, _Question] = {}
        self._cookie = 0
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", TIMEOUT_S, 0))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", TIMEOUT_S, 0))
        start, option, flags = GREETING.unpack(self._received(GREETING.size))
        if (start, option) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & FIXED_NEWSTYLE:
            raise ServerGone("no server of NBD")
        self._send(struct.pack(">I", FIXED_NEWSTYLE | (flags & NO_ZEROES)))
        self._negotiated(STRUCTURED, b"")
        named = struct.pack(">III", 0, 1, len(ALLOCATION)) + ALLOCATION
        contexts = [data for kind, data in self._negotiated(SET_CONTEXT, named) if kind == CONTEXT]
        if len(contexts) != 1 or contexts[0][4:] != ALLOCATION:
            raise ServerGone("a server that does not tell where there is data")
        self._context = contexts[0][:4]
        infos = [data for kind, data in self._negotiated(GO, bytes(6)) if kind == INFO]
        exports = [data for data in infos if len(data) == EXPORT.size and data[:2] == b"\0\0"]
        if len(exports) != 1:
            raise ServerGone("a server that does not tell the disk's size")
        self.size: int = EXPORT.unpack(exports[0])[1]
        if self.size % SECTOR or self.size >= 1 << 63:
            raise ServerGone("a disk of no possible size")

    def extents(self) -> Iterator[Place]:
        at = 0
        while at < self.size:
            question = self._ask(BLOCK_STATUS, at, min(ASKED, self.size - at))
            self._until(question)
            if question.failed or not question.extents:
                raise ConversionFailed(f"the image cannot be read at byte {at} of the disk")
            for length, flags in question.extents:
                length = min(length, self.size - at)
                if not flags & READS_ZERO and length:
                    yield at, length
                at += length

    def read(self, places: Iterable[Place], ahead: Ahead) -> Iterator[tuple[int, int, Load]]:
        asked = deque[_Question]()
        for start, length in places:
            if not 0 < length <= BLOCK:
                raise ValueError(length)
            asked.append(self._ask(READ, start, length))
            while len(asked) >= ahead():
                yield self._answered(asked.popleft())
        while asked:
            yield self._answered(asked.popleft())

    def interrupt(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already

    def close(self) -> None:
        """Say goodbye, if somebody is there to hear it."""
        try:
            self._connection.send(REQUEST.pack(REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0), socket.MSG_DONTWAIT)
        except OSError:
            return

    def _answered(self, question: _Question) -> tuple[int, int, Load]:
        self._until(question)
        if question.failed:
            raise ConversionFailed(f"the image cannot be read at byte {question.start} of the disk")
        if question.received != question.length:
            raise ServerGone("an answer that is not whole")
        return question.start, question.length, question.taken

    # --- the protocol -------------------------------------------------------------------------------------------------

    def _negotiated(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """The replies to an option, but the last one, which must be the acknowledgement."""
        self._send(OPTION.pack(b"IHAVEOPT", option, len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, answered, kind, length = OPTION_REPLY.unpack(self._received(OPTION_REPLY.size))
            if (magic, answered) != (OPTION_MAGIC, option) or length > MOST_ANSWER or len(replies) > 16:
                raise ServerGone("an answer to no question")
            told = bytes(self._received(length))
            if kind == ACK:
                return replies
            if kind & REFUSED:
                raise ServerGone(f"a server that does not know option {option}")
            replies.append((kind, told))

    def _ask(self, kind: int, start: int, length: int) -> _Question:
        self._cookie += 1
        question = self._questions[self._cookie] = _Question(kind, start, length)
        self._send(REQUEST.pack(REQUEST_MAGIC, 0, kind, self._cookie, start, length))
        return question

    def _until(self, question: _Question) -> None:
        while not question.done:
            self._chunk()

    def _chunk(self) -> None:
        """Take one piece of an answer to whatever was asked."""
        magic, flags, kind, cookie, length = CHUNK.unpack(self._received(CHUNK.size))
        question = self._questions.get(cookie)
        if magic != CHUNK_MAGIC or question is None:
            raise ServerGone("an answer to no question")
        if question.kind == READ and kind == DATA_CHUNK and length > OFFSET.size:
            (offset,) = OFFSET.unpack(self._received(OFFSET.size))
            self._into(self._part(question, offset, length - OFFSET.size))
        elif question.kind == READ and kind == HOLE_CHUNK and length == HOLE.size:
            self._part(question, *HOLE.unpack(self._received(HOLE.size)))  # is zeros already
        elif question.kind == BLOCK_STATUS and kind == STATUS_CHUNK and 4 < length <= 4 + 8 * MOST_EXTENTS:
            told = self._received(length)
            if told[:4] != self._context or (length - 4) % 8 or question.extents:
                raise ServerGone("an answer to no question")
            question.extents = list(struct.iter_unpack(">II", memoryview(told)[4:]))
            if not all(size for size, _ in question.extents):
                raise ServerGone("an extent of no bytes")
        elif kind & ERROR_CHUNK and length <= MOST_ANSWER:
            self._received(length)
            question.failed = True
        elif kind or length:
            raise ServerGone("an answer to no question")
        if flags & DONE:
            question.done = True
            del self._questions[cookie]

    def _part(self, question: _Question, offset: int, length: int) -> memoryview:
        """Where in the question's bytes an answer of so many bytes belongs."""
        at = offset - question.start
        if at < 0 or length > question.length - at or question.received + length > question.length:
            raise ServerGone("more than was asked for")
        question.received += length
        return memoryview(question.data)[at : at + length]

    def _received(self, length: int) -> bytearray:
        data = bytearray(length)
        self._into(memoryview(data))
        return data

    def _into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._connection.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise ServerGone(f"no answer: {os.strerror(error.errno or 0)}") from error
            if not count:
                raise ServerGone("the server of the disk went away")
            view = view[count:]

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ServerGone(f"no answer: {os.strerror(error.errno or 0)}") from error
