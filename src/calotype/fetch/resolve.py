"""Looking a name up, for a limited time."""

import socket
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

MOST_LOOKUPS: Final = 16  # at once; one that the system's resolver does not end soon holds its place

# Every address of a name, for so many seconds at most. Raises `OSError`: `socket.gaierror`, `TimeoutError`.
Resolver = Callable[[str, float], Sequence[str]]


class SystemResolver:
    """As the host's own resolver says, in its order. The C library knows no time limit: a thread waits for it."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(MOST_LOOKUPS)

    def __call__(self, host: str, within_s: float) -> Sequence[str]:
        if not self._places.acquire(timeout=within_s):
            raise TimeoutError("too many names are being looked up")
        answer: SimpleQueue[list[str] | OSError] = SimpleQueue()
        threading.Thread(target=self._look_up, args=(host, answer), name="resolve", daemon=True).start()
        try:
            found = answer.get(timeout=within_s)
        except Empty:
            raise TimeoutError("the name server does not answer") from None
        if isinstance(found, OSError):
            raise found
        return found

    def _look_up(self, host: str, answer: "SimpleQueue[list[str] | OSError]") -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer.put([str(entry[4][0]) for entry in found])
        except OSError as error:
            answer.put(error)
        except UnicodeError:
            answer.put(socket.gaierror(socket.EAI_NONAME, "not a name"))
        finally:
            self._places.release()
