"""What no handler read of a body is dropped before the answer, within limits."""

import asyncio
from typing import Any

import pytest

from calotype.web.unread import MOST_BYTES, Message, Receive, Send, Unread


class Client:
    """Sends the pieces of a body, and no more; keeps what is answered, with how many pieces had been taken by then."""

    def __init__(self, *pieces: bytes, goes_on: bool = False) -> None:
        self.pieces = list(pieces)
        self.goes_on = goes_on  # it announced more than it sends
        self.taken = 0
        self.answered: list[tuple[str, int]] = []

    async def receive(self) -> Message:
        if self.taken == len(self.pieces):
            await asyncio.Event().wait()
        self.taken += 1
        more = self.taken < len(self.pieces) or self.goes_on
        return {"type": "http.request", "body": self.pieces[self.taken - 1], "more_body": more}

    async def send(self, message: Message) -> None:
        self.answered.append((message["type"], self.taken))


def handler(reads: int) -> Any:
    async def answer(_scope: Message, receive: Receive, send: Send) -> None:
        for _ in range(reads):
            await receive()
        await send({"type": "http.response.start", "status": 409, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return answer


async def answered(client: Client, *headers: tuple[bytes, bytes], reads: int = 0) -> list[tuple[str, int]]:
    await Unread(handler(reads))({"type": "http", "headers": [*headers]}, client.receive, client.send)
    return client.answered


LENGTH = (b"content-length", b"3")


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_the_answer_begins_when_the_body_is_in(reads: int) -> None:
    told = await answered(Client(b"a", b"b", b"c"), LENGTH, reads=reads)

    assert told == [("http.response.start", 3), ("http.response.body", 3)]


async def test_who_waits_for_leave_to_send_is_answered_at_once() -> None:
    told = await answered(Client(b"a", b"b"), LENGTH, (b"expect", b"100-continue"))

    assert told[0] == ("http.response.start", 0)


async def test_without_a_body_nothing_is_waited_for() -> None:
    assert (await answered(Client()))[0] == ("http.response.start", 0)
    assert (await answered(Client(), (b"content-length", b"0")))[0] == ("http.response.start", 0)


async def test_a_body_that_never_ends_is_left_at_the_limit() -> None:
    piece = b"x" * (MOST_BYTES // 4)

    told = await answered(Client(*[piece] * 10), (b"transfer-encoding", b"chunked"))

    assert told[0] == ("http.response.start", 4)


async def test_a_client_that_announces_a_body_and_sends_none_is_answered() -> None:
    told = await answered(Client(b"a", goes_on=True), LENGTH)

    assert told[0] == ("http.response.start", 1)
