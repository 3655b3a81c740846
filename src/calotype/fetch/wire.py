"""A connection to one checked address, whose every read is bounded in time and in bytes."""

import io
import socket
import ssl
import threading
import time
from typing import Any, Final

from calotype.errors import FetchFailed, JobCancelled, SourceUnavailable
from calotype.fetch.url import Address, Url

LOOK_EVERY_S: Final = 1.0  # how often a waiting read looks whether it is still wanted
READ_AHEAD_BYTES: Final = 64 * 1024


class Clock:
    """Until when one fetch may go on. `cancelled` ends it sooner."""

    def __init__(self, within_s: float, cancelled: threading.Event | None) -> None:
        self.within_s = within_s
        self.cancelled = cancelled
        self._end = time.monotonic() + within_s

    def left(self, at_most_s: float) -> float:
        """Seconds that a wait may take. Raises `FetchFailed` when there are none, `JobCancelled`."""
        if self.cancelled is not None and self.cancelled.is_set():
            raise JobCancelled("cancelled while fetching")
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchFailed(f"the source took longer than {self.within_s:g} seconds")
        return min(left, at_most_s)


class Wire(io.RawIOBase):
    """The bytes that come. Raises `SourceUnavailable` from any read that waits too long, or when they come too slowly.

    No more than `grant` bytes are read until the next grant; then `FetchFailed`.
    """

    def __init__(self, connection: socket.socket, clock: Clock, *, read_timeout_s: float, slowest: int) -> None:
        self._connection = connection
        self._clock = clock
        self._timeout_s = read_timeout_s
        self._slowest = slowest  # bytes a second, over `read_timeout_s` of waiting
        self._granted = 0
        self._waited_s, self._came = 0.0, 0
        self._head_end: float | None = None
        self.ended = False  # no more bytes will come

    def readable(self) -> bool:
        return True

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` wants of a socket."""
        return io.BufferedReader(self, READ_AHEAD_BYTES)

    def grant(self, most_bytes: int, *, head: bool = False) -> None:
        """`head`: all of it has to come within the read timeout, however slowly it trickles."""
        self._granted = most_bytes
        self._head_end = time.monotonic() + self._timeout_s if head else None

    def send(self, data: bytes) -> None:
        self._connection.settimeout(self._clock.left(self._timeout_s))
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise SourceUnavailable("the connection to the source broke") from error

    def readinto(self, buffer: Any) -> int:  # `collections.abc.Buffer` of Python 3.12
        if self._granted <= 0:
            raise FetchFailed("the source sends more than an answer can have")
        view = memoryview(buffer)[: self._granted]
        begun = time.monotonic()
        came = self._received(view, begun + self._timeout_s if self._head_end is None else self._head_end)
        self._granted -= came
        self.ended = came == 0
        if self._head_end is None:
            self._keep_pace(time.monotonic() - begun, came)
        return came

    def close(self) -> None:
        if not self.closed:
            self._connection.close()
        super().close()

    def _received(self, view: memoryview, end: float) -> int:
        while True:
            wait = self._clock.left(LOOK_EVERY_S)
            left = end - time.monotonic()
            if left <= 0:
                raise SourceUnavailable("the source is silent")
            self._connection.settimeout(min(wait, left))
            try:
                return self._connection.recv_into(view)
            except TimeoutError:
                continue
            except OSError as error:
                raise SourceUnavailable("the connection to the source broke") from error

    def _keep_pace(self, waited_s: float, came: int) -> None:
        self._waited_s += waited_s
        self._came += came
        if self._waited_s >= self._timeout_s:
            if self._came < self._slowest * self._waited_s:
                raise SourceUnavailable(f"the source sends less than {self._slowest} bytes a second")
            self._waited_s, self._came = 0.0, 0


def connect(url: Url, addresses: list[Address], clock: Clock, tls: ssl.SSLContext, timeout_s: float) -> socket.socket:
    """A connection to the first of `addresses` that answers; for https one whose certificate is `url.host`'s.

    Raises `SourceUnavailable`, `FetchFailed`.
    """
    connection = _connected(url, addresses, clock, timeout_s)
    if url.scheme == "http":
        return connection
    try:
        connection.settimeout(clock.left(timeout_s))
        # An answer that ends without TLS's own end was cut by someone.
        return tls.wrap_socket(connection, server_hostname=url.host, suppress_ragged_eofs=False)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise FetchFailed(f"the certificate of {url.written_host} is not valid: {error.verify_message}") from error
    except ssl.SSLEOFError as error:
        connection.close()
        raise SourceUnavailable("the connection to the source broke") from error
    except ssl.SSLError as error:
        connection.close()
        raise FetchFailed(f"{url.written_host} does not speak TLS as is asked for") from error
    except OSError as error:
        connection.close()
        raise SourceUnavailable("the connection to the source broke") from error
    except BaseException:
        connection.close()
        raise


def _connected(url: Url, addresses: list[Address], clock: Clock, timeout_s: float) -> socket.socket:
    last: OSError | None = None
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(clock.left(timeout_s))
            connection.connect((str(address), url.port))
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise SourceUnavailable(f"{url.written_host} cannot be reached") from last
