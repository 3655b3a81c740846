"""One upload over a connection of its own, that sees the answer also while bytes are still being sent.

A service that refuses an upload says so before the last byte has come, and then closes: a client that looks for the
answer only when all is sent finds a broken connection in its place.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterable, Mapping
from http.client import HTTPException, HTTPResponse
from socket import socket
from typing import Final, cast
from urllib.parse import urlsplit

from msgspec import Struct

PIECE_BYTES: Final = 64 * 1024
REFUSALS: Final = 300  # and redirects: statuses from here on
LAST_WORDS_S: Final = 1.0  # how long what was said before the connection broke may take to be read


class Sent(Struct, frozen=True, kw_only=True):
    """An answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    raw: bytes


async def put(
    url: str,
    headers: Mapping[str, str],
    chunks: AsyncIterable[bytes],
    *,
    tls: ssl.SSLContext,
    connect_s: float,
    silent_s: float,
    most_bytes: int,
) -> Sent:
    """PUT `chunks`; `headers` have their length. The rest of them is not asked for once the answer begins.

    `silent_s`: how long the other side may take for one chunk, and for its answer. Of an answer no more than
    `most_bytes` are read, with its head. Raises `TimeoutError`; `OSError`, `HTTPException` when there is no answer that
    can be read.
    """
    parts = urlsplit(url)
    https = parts.scheme == "https"
    async with asyncio.timeout(connect_s):
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or (443 if https else 80), ssl=tls if https else None
        )
    answer = _Answer(reader, most_bytes)
    reading = asyncio.create_task(answer.read())
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        told = {"host": parts.netloc, **headers, "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        writer.write(f"PUT {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        try:
            whole = await _write(writer, chunks, answer, silent_s) == int(headers["content-length"])
        except TimeoutError:
            raise
        except OSError:
            whole = False
            await asyncio.wait({reading}, timeout=LAST_WORDS_S)
        else:
            async with asyncio.timeout(silent_s):
                await reading
        sent = answer.parsed()
        if not whole and sent.status < REFUSALS:
            raise ConnectionResetError("the answer came before all was sent, and is no refusal")
        return sent
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        writer.transport.abort()  # nothing is to be told any more


async def _write(writer: asyncio.StreamWriter, chunks: AsyncIterable[bytes], answer: "_Answer", silent_s: float) -> int:
    """How many bytes were sent: not all where the answer began before."""
    sent = 0
    begun = asyncio.create_task(answer.begun.wait())
    try:
        async for chunk in chunks:
            writer.write(chunk)
            sent += len(chunk)
            draining = asyncio.create_task(writer.drain())
            try:
                await asyncio.wait({draining, begun}, timeout=silent_s, return_when=asyncio.FIRST_COMPLETED)
                if not draining.done() and not begun.done():
                    raise TimeoutError
            finally:
                draining.cancel()
                await asyncio.wait({draining})
            if begun.done():
                break
            draining.result()
        return sent
    finally:
        begun.cancel()
        await asyncio.wait({begun})


class _Answer:
    def __init__(self, reader: asyncio.StreamReader, most_bytes: int) -> None:
        self.begun = asyncio.Event()  # also when the connection has ended without one
        self._reader = reader
        self._most_bytes = most_bytes
        self._raw = b""

    async def read(self) -> None:
        """To the end of the connection, or for as much as is allowed."""
        try:
            while len(self._raw) <= self._most_bytes and (piece := await self._reader.read(PIECE_BYTES)):
                self._raw += piece
                self.begun.set()
        except OSError:  # broken: what came before counts
            return
        finally:
            self.begun.set()

    def parsed(self) -> Sent:
        if not self._raw:
            raise ConnectionResetError("the connection ended before the answer")
        response = HTTPResponse(cast(socket, _Kept(self._raw)), method="PUT")
        try:
            response.begin()
            raw = response.read(self._most_bytes)
        except ValueError as error:  # a status line or a length that is none
            raise HTTPException("not an answer") from error
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Sent(status=response.status, headers=headers, raw=raw)


class _Kept:
    """What `http.client` wants of a socket, over bytes that have come."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)
