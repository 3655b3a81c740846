"""What of a request's body no handler read is taken in and dropped before the answer begins.

A server that answers and closes with bytes of the client's still on the way resets the connection, and then the answer
may be lost: of a DELETE with a body, of an upload that was refused. Only so much and so long: of a body that goes on,
the rest is left to the reset.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

MOST_BYTES: Final = 8 * 1024 * 1024
MOST_S: Final = 5.0  # in all
IDLE_S: Final = 0.25  # without a byte: the client does not send, but waits for the answer
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Unread:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope["headers"]):
            await self.inner(scope, receive, send)
            return
        ended = False

        async def receiving() -> Message:
            nonlocal ended
            message = await receive()
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                await _drop(receiving)
            await send(message)

        await self.inner(scope, receiving, sending)


async def _drop(receive: Receive) -> None:
    left = MOST_BYTES
    try:
        async with asyncio.timeout(MOST_S):
            while left > 0:
                async with asyncio.timeout(IDLE_S):
                    message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """And one that is sent without being asked for: who sends `Expect: 100-continue` waits for the answer first."""
    names = {name: value for name, value in headers if name in (b"content-length", b"transfer-encoding", b"expect")}
    if b"expect" in names:
        return False
    return b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"
