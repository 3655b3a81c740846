"""A real source of bytes on the loopback, that answers as badly as a test wants."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from calotype.fetch.fetcher import Fetcher, Wait
from calotype.settings import FetchSettings

HEAD_END: Final = b"\r\n\r\n"


class Asked(Struct, frozen=True, kw_only=True):
    method: str
    target: str
    headers: Mapping[str, str]  # by lower-case name

    @property
    def start(self) -> int:
        """The first byte that is asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


Answer = Callable[[Asked], Iterable[bytes]]
NOTHING: Final = Asked(method="", target="", headers={})


class Source:
    """Listens while the context lasts. For each connection one request is read and the bytes of `answer` are sent."""

    def __init__(
        self,
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        speaks_first: bool = False,
    ):
        self._answer = answer
        self._tls = tls
        self._speaks_first = speaks_first
        self._listener = socket.create_server((host, port))
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[Asked] = []
        self.connections = 0
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
            pass  # wakes the accept
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, target: str = "/disk", *, host: str | None = None) -> str:
        return f"{'https' if self._tls else 'http'}://{host or self.host}:{self.port}{target}"

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.closing.is_set():
                connection.close()
                return
            self.connections += 1
            self._spawn(lambda connection=connection: self._serve(connection))  # type: ignore[misc]  # a default argument

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            wrapped = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with wrapped:
                request = NOTHING if self._speaks_first else _read(wrapped)
                if request is None:
                    return
                self.asked.append(request)
                for data in self._answer(request):
                    wrapped.sendall(data)
                wrapped.shutdown(socket.SHUT_WR)
                while wrapped.recv(4096):  # so that what was sent is not lost to a reset
                    pass


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while HEAD_END not in data:
        came = connection.recv(65536)
        if not came:
            return None
        data += came
    first, *lines = data.partition(HEAD_END)[0].decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    return Asked(method=method, target=target, headers={name.lower(): value for name, value in pairs})


def head(status: int = 200, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines)).encode("utf-8") + HEAD_END


def whole(body: bytes, **headers: object) -> Answer:
    """Answers all with `body`, and as a server that knows ranges."""

    def answer(asked: Asked) -> Iterator[bytes]:
        start = asked.start
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            yield head(206, Content_Length=len(body) - start, Content_Range=span, **headers)
        else:
            yield head(200, Content_Length=len(body), **headers)
        if asked.method != "HEAD":
            yield body[start:]

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return lambda _: [head(status, Location=location, Content_Length=0)]


def by_target(answers: Mapping[str, Answer]) -> Answer:
    return lambda asked: answers[asked.target](asked)


def in_turn(*answers: Answer) -> Answer:
    """The first request gets the first, and so on; the last one goes on."""
    pending = list(answers)
    return lambda asked: (pending.pop(0) if len(pending) > 1 else pending[0])(asked)


class Names:
    """A resolver that knows what it is told: name -> the addresses of the first look-up, of the second, …"""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self._names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.looked_up: list[str] = []

    def __call__(self, host: str, within_s: float) -> Sequence[str]:
        assert within_s > 0
        self.looked_up.append(host)
        if host not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answers = self._names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Pauses:
    """Waits for nothing, and remembers how long it was to be."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, event: threading.Event, seconds: float) -> None:
        self.seconds.append(seconds)


def fetcher_for(
    *sources: Source, names: Names | None = None, pauses: Wait | None = None, **settings: object
) -> Fetcher:
    """A fetcher that may fetch from these sources, besides what the rules say."""
    values: dict[str, object] = {"allow": tuple(source.place for source in sources), "read_timeout_s": 10.0} | settings
    return Fetcher(
        FetchSettings(**values),  # type: ignore[arg-type]  # each test gives what the fields want
        resolver=names or Names(),
        wait=pauses or Pauses(),
    )
