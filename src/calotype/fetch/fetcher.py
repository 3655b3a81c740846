"""Fetches what users name: reads the URL, asks the rules, looks up, asks again, connects; anew on each redirect."""

import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import structlog

from calotype import VERSION
from calotype.errors import FetchFailed, FetchRefused, SourceUnavailable
from calotype.fetch.download import Download
from calotype.fetch.resolve import Resolver, SystemResolver
from calotype.fetch.rules import Rules
from calotype.fetch.source import Fetched
from calotype.fetch.url import Address, Url, unmapped
from calotype.fetch.wire import Clock, Wire, connect
from calotype.settings import FetchSettings, WrongSetting

log = structlog.get_logger()

Method = Literal["GET", "HEAD"]
Wait = Callable[[threading.Event, float], object]  # waits so many seconds, or until the event is set

MOST_ADDRESSES: Final = 8  # of one name that are tried
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
# These the fetcher alone sets.
OWN_HEADERS: Final = frozenset(
    {"host", "connection", "accept-encoding", "range", "if-range", "content-length", "transfer-encoding", "expect"}
)
UNKNOWN_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Fetcher:
    """`trusted` are the operator's own endpoints, "host:port": they may be fetched from whatever the rules say.

    For threads of workers; used by any number of them at once. `resolver` and `wait` stand for the system's.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        trusted: frozenset[str] = frozenset(),
        resolver: Resolver | None = None,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.settings = settings
        self._rules = Rules(settings, trusted)
        self._resolve = resolver or SystemResolver()
        self._wait = wait
        self._tls = _tls(settings.ca_file)

    def check(self, url: str) -> None:
        """Raise `FetchRefused` unless form, scheme, host and port pass. Sends nothing, looks nothing up."""
        self._admit(Url.parse(url))

    def open(
        self, url: str, *, headers: Mapping[str, str] = NO_HEADERS, offset: int = 0, method: Method = "GET"
    ) -> Fetched:
        """Ask for the bytes from `offset` on, and return once the head of the answer is there.

        `headers` go to the origin (scheme, host, port) of `url` only. Raises `FetchRefused`; `FetchFailed` for what
        trying again does not help; `SourceUnavailable`.
        """
        return self.opened(url, headers=headers, offset=offset, method=method, clock=self.clock())

    def download(
        self,
        url: str,
        target: Path,
        *,
        most_bytes: int,
        headers: Mapping[str, str] = NO_HEADERS,
        progress: Callable[[int, int | None], None] | None = None,
        cancelled: threading.Event | None = None,
        grew: Callable[[int], None] | None = None,
    ) -> int:
        """Write all bytes to the file `target`, synced; return how many. See `Download` for the rest."""
        download = Download(
            open_at=lambda offset, extra, clock: self.opened(
                url, headers=headers, own_headers=extra, offset=offset, clock=clock
            ),
            clock=self.clock(cancelled),
            wait=self._wait,
            most_bytes=most_bytes,
            progress=progress,
            grew=grew,
        )
        return download.into(target)

    def clock(self, cancelled: threading.Event | None = None) -> Clock:
        return Clock(self.settings.total_timeout_s, cancelled)

    def opened(
        self,
        url: str,
        *,
        clock: Clock,
        headers: Mapping[str, str] = NO_HEADERS,
        own_headers: Mapping[str, str] = NO_HEADERS,
        offset: int = 0,
        method: Method = "GET",
    ) -> Fetched:
        """`open`, within the time of `clock`."""
        first = at = Url.parse(url)
        written = url
        theirs = _checked(headers)
        for _ in range(self.settings.most_redirects + 1):
            try:
                answer = self._ask(at, written, theirs | dict(own_headers), offset, method, clock)
            except FetchRefused:
                if at is first:
                    raise
                raise _refused_redirect(first) from None
            try:
                location = answer.location
                if location is None:
                    answer.accept()
                    return answer
                target = _leads_to(at, location, first)
            except BaseException:
                answer.close()
                raise
            answer.close()
            if target.origin != at.origin:
                theirs = {}  # and they do not come back when a later redirect leads home
            at, written = target, _text(target)
        raise FetchFailed(f"the source redirects more than {self.settings.most_redirects} times")

    def _ask(
        self, url: Url, written: str, headers: Mapping[str, str], offset: int, method: Method, clock: Clock
    ) -> Fetched:
        self._admit(url)
        addresses = self._looked_up(url, clock)
        connection = connect(url, addresses, clock, self._tls, self.settings.connect_timeout_s)
        wire = Wire(
            connection,
            clock,
            read_timeout_s=self.settings.read_timeout_s,
            slowest=self.settings.slowest_bytes_per_s,
        )
        try:
            wire.send(_request(url, headers, offset, method))
            return Fetched(written, wire, method=method, offset=offset)
        except BaseException:
            wire.close()
            raise

    def _admit(self, url: Url) -> None:
        if not self._rules.admit_name(url):
            log.info("fetch_refused", host=url.host, port=url.port)
            raise _refused(url)

    def _looked_up(self, url: Url, clock: Clock) -> list[Address]:
        """The addresses to connect to: all that there are have passed."""
        if url.address is not None:
            return [url.address]
        try:
            told: Sequence[str] = self._resolve(url.host, clock.left(self.settings.connect_timeout_s))
        except socket.gaierror as error:
            if error.errno in UNKNOWN_NAME:
                raise _refused(url) from None
            raise SourceUnavailable(f"{url.written_host} cannot be looked up now") from error
        except OSError as error:
            raise SourceUnavailable(f"{url.written_host} cannot be looked up now") from error
        addresses = list(dict.fromkeys(map(unmapped, told)))
        for address in addresses:
            if not self._rules.admit_address(url, address):
                log.info("fetch_refused", host=url.host, port=url.port, address=str(address))
                raise _refused(url)
        if not addresses:
            raise _refused(url)
        return addresses[:MOST_ADDRESSES]


def _refused(url: Url) -> FetchRefused:
    """The same words whether a name is barred, unknown, or leads to an address that is barred: the caller is to learn
    nothing of the network from here."""
    return FetchRefused("this host and port are unknown or not open to fetching", host=url.written_host)


def _refused_redirect(first: Url) -> FetchRefused:
    return FetchRefused("it redirects to where nothing may be fetched from", host=first.written_host)


def _leads_to(at: Url, location: str, first: Url) -> Url:
    if not location:
        raise FetchFailed("the source redirects to nowhere")
    try:
        target = at.joined(location)
    except FetchRefused:
        raise _refused_redirect(first) from None
    if at.scheme == "https" and target.scheme == "http":
        raise _refused_redirect(first)
    return target


def _text(url: Url) -> str:
    return f"{url.scheme}://{url.authority}{url.target}"


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Raises `FetchRefused` for a value that would not stay one header, `ValueError` for one that is ours to set."""
    checked = {}
    for name, value in headers.items():
        if name.lower() in OWN_HEADERS or not name.replace("-", "").isalnum() or not name.isascii():
            raise ValueError(f"no header that a caller sets: {name!r}")
        if not value.isascii() or not value.isprintable():
            raise FetchRefused(f"the value for its header {name} has characters that are not allowed")
        checked[name] = value
    return checked


def _request(url: Url, headers: Mapping[str, str], offset: int, method: Method) -> bytes:
    lines = {
        "Host": url.authority,
        "User-Agent": f"calotype/{VERSION}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if offset:
        lines["Range"] = f"bytes={offset}-"
    given = {name.lower() for name in headers}
    lines = {name: value for name, value in lines.items() if name.lower() not in given} | dict(headers)
    head = [f"{method} {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError, too: not a certificate
            raise WrongSetting(
                f"fetch.ca_file: {ca_file} is no readable file of certificates: {error.strerror}"
            ) from None
    return context
