"""The hypervisor's own command, `virsh`, as a child: what it is told, and what it answers.

One child runs several commands in turn over one connection. It goes on after one that fails, so whatever must follow a
command (a thaw after a freeze) follows it even if this process ends meanwhile. Every word of a command is made of the
characters that the command line of virsh has no meaning for; paths are given as names in the working folder.
"""

import os
import re
import secrets
import selectors
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Final, cast

import structlog
from msgspec import Struct

from calotype.errors import SourceUnreadable

MOST_BYTES: Final = 32 * 1024 * 1024  # of each output
READ_BYTES: Final = 64 * 1024
MOST_WORDS: Final = 500  # of what virsh complains about, for the log
GRACE_S: Final = 5.0  # for a killed child to be gone
ENVIRONMENT: Final = ("PATH", "HOME", "USER", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
AWAY: Final = ("failed to connect", "Disconnected from", "End of file while reading", "Cannot recv data")

_WORD: Final = re.compile(r"[A-Za-z0-9._:/=-]+")

log = structlog.get_logger()


class Answer(Struct, frozen=True, kw_only=True):
    """What came of commands, one text for each: "" for one that failed."""

    outputs: Sequence[str]
    complaints: str  # of all


class Virsh:
    def __init__(self, uri: str, timeout_s: float) -> None:
        self._uri = uri
        self.timeout_s = timeout_s

    def read(self, *commands: Sequence[str]) -> Answer:
        """Run commands that change nothing. Raises `SourceUnreadable`."""
        return self._run(commands, ["--quiet", "--readonly"], None, self.timeout_s)

    def act(self, *commands: Sequence[str], folder: Path | None = None, timeout_s: float | None = None) -> Answer:
        """Run commands that only a full connection may give, in the folder `folder`. Raises `SourceUnreadable`: then
        any of them may have been carried out."""
        return self._run(commands, [], folder, timeout_s or self.timeout_s)

    def _run(
        self, commands: Iterable[Sequence[str]], options: Sequence[str], folder: Path | None, timeout_s: float
    ) -> Answer:
        mark = f"@{secrets.token_hex(16)}@"
        texts = [f"echo {mark}; {' '.join(_word(word) for word in command)}" for command in commands]
        argv = ["virsh", *options, "--connect", self._uri, "; ".join([*texts, f"echo {mark}"])]
        stdout, stderr = _output(argv, folder, timeout_s)
        parts = stdout.split(mark)
        if len(parts) != len(texts) + 2 or any(word in stderr for word in AWAY):
            raise unreadable("the hypervisor does not answer", stderr)
        return Answer(outputs=[part.strip("\n") for part in parts[1:-1]], complaints=stderr)


def unreadable(what: str, said: str) -> SourceUnreadable:
    """What virsh said is for the operator, in the log."""
    log.warning("hypervisor_failed", reason=what, said=said.strip()[-MOST_WORDS:])
    return SourceUnreadable(what)


def _word(word: str) -> str:
    if not _WORD.fullmatch(word):
        raise ValueError("not a word for virsh")
    return word


def _output(argv: Sequence[str], folder: Path | None, timeout_s: float) -> tuple[str, str]:
    """Both outputs, however it ended: the status of virsh is that of its last command."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    try:
        child = subprocess.Popen(
            argv,
            cwd=folder or "/",
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What is begun is brought to its end: a signal for this process is none for the child, and when this
            # process has ended, what the child says ends it as little (SIGPIPE stays ignored).
            start_new_session=True,
            restore_signals=False,
        )
    except OSError as error:
        raise unreadable("virsh cannot be started; install the package libvirt-clients", str(error)) from error
    with child:
        try:
            outputs = _read(cast(IO[bytes], child.stdout), cast(IO[bytes], child.stderr), monotonic() + timeout_s)
            child.wait(GRACE_S)
        except TimeoutError:
            raise unreadable(f"the hypervisor did not answer within {timeout_s:g} s", "") from None
        except subprocess.TimeoutExpired as error:
            raise unreadable("the hypervisor's command does not end", "") from error
        finally:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    out, complaints = outputs
    return out.decode(errors="replace"), complaints.decode(errors="replace")


def _read(stdout: IO[bytes], stderr: IO[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Both to their ends. Raises `TimeoutError`; `SourceUnreadable` for more than is ever needed."""
    kept = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                piece = os.read(key.fd, READ_BYTES)
                if not piece:
                    selector.unregister(key.fd)
                kept[key.fd] += piece
                if len(kept[key.fd]) > MOST_BYTES:
                    raise unreadable("the hypervisor says more than is ever needed", "")
    return bytes(kept[stdout.fileno()]), bytes(kept[stderr.fileno()])
