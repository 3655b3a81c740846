"""The answer of a source: what its head says, read strictly, and its bytes."""

import email.utils
import re
import socket
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Final, Self, cast

from calotype.errors import FetchFailed, SourceUnavailable
from calotype.fetch.wire import READ_AHEAD_BYTES, Wire

PIECE_BYTES: Final = 256 * 1024  # of one read
GATHERED_BYTES: Final = 64 * 1024  # a source may send byte by byte; what follows shall not have to work so
CHUNK_BYTES: Final = GATHERED_BYTES + PIECE_BYTES
MOST_HEAD_BYTES: Final = 64 * 1024
# Of one chunk as it is sent: a source may frame every byte of its own.
MOST_FRAMED_BYTES: Final = 16 * PIECE_BYTES
MOST_RETRY_AFTER_S: Final = 60.0
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Answers that may be another one later. All other refusals are final.
LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})

_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Fetched:
    """An answer whose head has come. A context manager; leaving it closes the connection.

    `size` is the length of the whole in bytes, None where the source does not tell. `offset` is where `chunks` begins:
    what was asked for, whether or not the source knows ranges. `url` is the last one after all redirects.
    """

    def __init__(self, url: str, wire: Wire, *, method: str, offset: int) -> None:
        self.url = url
        self.offset = offset
        self._wire = wire
        self._method = method
        wire.grant(MOST_HEAD_BYTES + READ_AHEAD_BYTES, head=True)
        self._response = HTTPResponse(cast(socket.socket, wire), method=method)
        try:
            self._response.begin()
        except HTTPException as error:  # RemoteDisconnected, too: the connection was cut before the answer
            if isinstance(error, ConnectionError):
                raise SourceUnavailable("the connection to the source broke") from error
            raise FetchFailed("the source does not speak HTTP as is asked for") from error
        if wire.ended:  # `http.client` takes the end of the connection for the end of the head
            raise SourceUnavailable("the connection to the source broke")
        self.status: int = self._response.status
        self.headers: Mapping[str, str] = _joined(self._response.getheaders())
        self.size: int | None = None
        self._skip = 0
        self._left: int | None = None  # bytes of the body that are still to come

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._wire.close()

    @property
    def location(self) -> str | None:
        """Where a redirect leads, as it was sent."""
        if self.status not in REDIRECTS:
            return None
        return self.headers.get("location", "").encode("latin-1", "replace").decode("utf-8", "replace")

    def accept(self) -> None:
        """Check that the answer has what was asked for. Raises `FetchFailed`, `SourceUnavailable`."""
        if self.status in LATER:
            raise SourceUnavailable(f"the source answered {_told(self.status)}", retry_after_s=self._retry_after())
        if self.status not in {200, 206}:
            raise FetchFailed(f"the source answered {_told(self.status)}", status=self.status)
        if self.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise FetchFailed("the source sends encoded content, which was not asked for")
        chunked = "transfer-encoding" in self.headers
        if chunked and self.headers["transfer-encoding"].strip().lower() != "chunked":
            raise FetchFailed("the source sends with a transfer encoding that is not known")
        length = None if chunked else self._content_length()
        if self.status == 200:
            self.size, self._left, self._skip = length, length, self.offset
        else:
            self._accept_part(length)
        if self._method == "HEAD":
            self._left = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes from `offset` on, at most `CHUNK_BYTES` at once; what comes in small pieces is gathered.

        Raises `SourceUnavailable` when the connection breaks before the end, is silent or too slow; `FetchFailed`. What
        came before that has been yielded.
        """
        gathered: list[bytes] = []
        size = 0
        try:
            for piece in self._pieces():
                gathered.append(piece)
                size += len(piece)
                if size >= GATHERED_BYTES:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        except (SourceUnavailable, FetchFailed):
            if gathered:
                yield b"".join(gathered)
            raise
        if gathered:
            yield b"".join(gathered)

    def _pieces(self) -> Iterator[bytes]:
        while self._left != 0:
            self._wire.grant(MOST_FRAMED_BYTES + READ_AHEAD_BYTES)
            try:
                data = self._response.read1(PIECE_BYTES)
            except HTTPException as error:
                raise SourceUnavailable("the source broke off") from error
            if not data:
                break
            if self._left is not None:
                self._left -= len(data)
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
            if data:
                yield data
        if self._left:
            raise SourceUnavailable("the source broke off")
        if self._skip and self._method != "HEAD":
            raise FetchFailed("the source ends before the byte that was asked for")

    def _accept_part(self, length: int | None) -> None:
        found = _CONTENT_RANGE.fullmatch(self.headers.get("content-range", "").strip())
        if found is None or int(found[1]) != self.offset:
            raise FetchFailed("the source answered another range than was asked for")
        first, last = int(found[1]), int(found[2])
        self.size = None if found[3] == "*" else int(found[3])
        part = last - first + 1
        wrong_end = self.size is not None and last + 1 != self.size
        if part < 1 or wrong_end or (length is not None and length != part):
            raise FetchFailed("the source answered another range than was asked for")
        self._left = part

    def _content_length(self) -> int | None:
        told = self.headers.get("content-length")
        if told is None:
            return None
        lengths = {part.strip() for part in told.split(",")}
        text = lengths.pop()
        if lengths or not _LENGTH.fullmatch(text):
            raise FetchFailed("the source tells no length that can be read")
        return int(text)

    def _retry_after(self) -> float | None:
        told = self.headers.get("retry-after", "").strip()
        if _LENGTH.fullmatch(told):
            return min(float(told), MOST_RETRY_AFTER_S)
        try:
            moment = email.utils.parsedate_to_datetime(told).timestamp()
        except (ValueError, OverflowError):
            return None
        return min(max(moment - time.time(), 0.0), MOST_RETRY_AFTER_S)


def _joined(headers: list[tuple[str, str]]) -> Mapping[str, str]:
    """By lower-case name; those that are there several times with commas."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _told(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
