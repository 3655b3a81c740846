"""Child processes that see their inputs, one place to write to, and nothing else.

With bubblewrap: no network, no file of the host but `/usr` and the inputs, no capabilities, no way to a new user
namespace, few system calls, processes of its own. Without it (a container that forbids user namespaces): limits of the
kernel and death with the parent, and `describe` says so. In both: bounded memory, processor time, file size and
wall-clock time, an empty environment, and output of which only the end is kept.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from calotype.disks.seccomp import filter_program
from calotype.errors import SandboxUnavailable as SandboxUnavailable  # raised here, so known by this name, too

OUT_FILE: Final = "/out/disk"  # what the writable file is called inside
OUT_FOLDER: Final = "/out"
NEEDED: Final = ("qemu-img of the package qemu-utils", "prlimit of util-linux", "setpriv of util-linux")
CANDIDATES: Final = (
    (("--unshare-user", "--disable-userns"), True),
    (("--unshare-user", "--disable-userns"), False),
    ((), True),
    ((), False),
)
KEPT_BYTES: Final = 64 * 1024  # of each output
READ_BYTES: Final = 64 * 1024
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "MALLOC_ARENA_MAX": "2"}
HOST_LINKS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
GRACE_S: Final = 10.0  # for a killed child to be gone
PROBE_S: Final = 10.0

_INSIDE: Final = re.compile(r"/in/(\d+)|/out(?:/disk)?(?![\w.-])")
_OPEN: Final = "/proc/self/fd/"


def inside(number: int) -> str:
    """What the input of that number is called inside."""
    return f"/in/{number}"


def open_input(descriptor: int) -> Path:
    """The name, as an input, of a file that this process has open: whatever becomes of the file's own name, a child
    sees this file or does not start. It can be opened anew by this name, too, but not with O_NOFOLLOW."""
    return Path(f"{_OPEN}{descriptor}")


def _descriptor(path: Path) -> int | None:
    return int(path.name) if str(path).startswith(_OPEN) else None


class Limits(Struct, frozen=True, kw_only=True):
    memory_bytes: int  # of address space
    cpu_s: int
    file_bytes: int  # of the largest file that is written
    wall_s: float
    open_files: int = 256
    processes: int = 256  # threads count


class Result(Struct, frozen=True, kw_only=True):
    status: int  # exit status; negative: the signal that ended it
    stdout: bytes  # the last 64 KiB
    stderr: bytes  # the last 64 KiB


class Sandbox:
    """Runs programs of `/usr`. Made by `detect`."""

    def __init__(self, *, bubblewrap: Sequence[str], filtered: bool = False, missing: str = "") -> None:
        self._bubblewrap = tuple(bubblewrap)  # the command's first words; empty: not to be used
        self._filter = filter_program() if filtered else b""
        self._missing = missing

    @classmethod
    def detect(cls, *, required: bool) -> Self:
        """Try out what this host allows. Blocks for some tens of milliseconds; at start.

        Raises `SandboxUnavailable` if qemu-img or util-linux is not installed, or if bubblewrap is `required` and
        does not work.
        """
        for needed in NEEDED:
            if shutil.which(needed.split()[0], path=ENVIRONMENT["PATH"]) is None:
                raise SandboxUnavailable(f"not installed: {needed}")
        path = shutil.which("bwrap")
        missing = "bubblewrap is not installed; install the package bubblewrap"
        # An old bubblewrap does not know --disable-userns, and a kernel may be built without filters.
        for options, filtered in CANDIDATES if path else ():
            candidate = cls(bubblewrap=[str(path), "--unshare-all", *options], filtered=filtered)
            missing = candidate._trouble()
            if not missing:
                return candidate
        if required:
            raise SandboxUnavailable(f"the setting security.sandbox is required, but {missing}")
        return cls(bubblewrap=[], missing=missing)

    @property
    def isolated(self) -> bool:
        """Whether children are kept from the network and from the host's files."""
        return bool(self._bubblewrap)

    def describe(self) -> dict[str, str | bool]:
        """Which layers are in force, for the log of a worker at its start."""
        return {
            "bubblewrap": self.isolated,
            "network": "off" if self.isolated else "as the service",
            "files": "inputs only" if self.isolated else "as the service",
            "system_calls": "filtered" if self._filter else "all",
            "user_namespaces": "off" if "--disable-userns" in self._bubblewrap else "as the host",
            "limits": True,
            "dies_with_worker": True,
            "missing": self._missing,
        }

    async def run(
        self,
        argv: Sequence[str],
        *,
        read_only: Sequence[Path] = (),
        writable: Path | None = None,
        limits: Limits,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a program to its end. It dies with this process, and with the thread that the event loop runs in.

        In `argv` the inputs are called `inside(0)`, `inside(1)` …; `writable` is an existing file (`OUT_FILE`) or
        folder (`OUT_FOLDER`). `on_output` sees each piece of the standard output as it comes. Raises `TimeoutError`
        after `limits.wall_s`. When this returns or raises, also on cancellation, no process is left.
        """
        with ExitStack() as opened:
            descriptors: tuple[int, ...]
            if self.isolated:
                descriptors = tuple(opened.enter_context(_readable(self._filter)))
                command = self._isolated(argv, read_only, writable, limits, descriptors)
                descriptors += tuple(fd for path in read_only if (fd := _descriptor(path)) is not None)
            else:
                names = opened.enter_context(_open_files(read_only, writable))
                command, descriptors = self._limited(argv, names, limits), tuple(names.values())
            process = await _started(command, descriptors)
            return await _watched(process, limits.wall_s, on_output)

    def _isolated(
        self,
        argv: Sequence[str],
        read_only: Sequence[Path],
        writable: Path | None,
        limits: Limits,
        filters: Sequence[int],
    ) -> list[str]:
        mounts = ["--ro-bind", "/usr", "/usr", *_host_links(), "--dev", "/dev", "--dir", "/in"]
        mounts += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        for number, path in enumerate(read_only):
            descriptor = _descriptor(path)
            bind = ["--ro-bind", str(path.absolute())] if descriptor is None else ["--ro-bind-fd", str(descriptor)]
            mounts += [*bind, inside(number)]
        if writable is not None:
            mounts += ["--bind", str(writable.absolute()), OUT_FOLDER if writable.is_dir() else OUT_FILE]
        environment = [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]
        return [
            *_prlimit(limits),
            *self._bubblewrap,
            # In the session that `_started` begins, which has no terminal: of its own it would be in no group that is
            # killed, and while it starts it does not yet die with its parent.
            *("--die-with-parent", "--clearenv", "--cap-drop", "ALL"),
            *environment,
            *mounts,
            *(word for descriptor in filters for word in ("--seccomp", str(descriptor))),
            *("--remount-ro", "/", "--chdir", "/", "--"),
            # Counted within the new user namespace: outside, the service's own threads would count.
            *("prlimit", f"--nproc={limits.processes}", "--"),
            *argv,
        ]

    def _limited(self, argv: Sequence[str], names: dict[str, int], limits: Limits) -> list[str]:
        def outside(match: re.Match[str]) -> str:
            return f"/proc/self/fd/{names[match[0]]}" if match[0] in names else match[0]

        words = [_INSIDE.sub(outside, word) for word in argv]
        return ["setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--", *_prlimit(limits), *words]

    def _trouble(self) -> str:
        """Why bubblewrap does not work here; "" if it does, and a file of the host cannot be seen from inside."""
        limits = Limits(memory_bytes=1024**3, cpu_s=10, file_bytes=1024**2, wall_s=PROBE_S)
        try:
            with _readable(self._filter) as filters:
                command = self._isolated(["test", "!", "-e", "/etc/passwd"], [], None, limits, filters)
                done = subprocess.run(
                    command, env=ENVIRONMENT, pass_fds=filters, capture_output=True, timeout=PROBE_S, check=False
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not start: {error}"
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-300:]
            return f"bubblewrap does not work here: {words or f'exit status {done.returncode}'}"
        return ""


def _prlimit(limits: Limits) -> list[str]:
    return [
        "prlimit",
        f"--as={limits.memory_bytes}",
        f"--cpu={limits.cpu_s}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--",
    ]


def _host_links() -> list[str]:
    """`/lib` and its like as on the host: links into `/usr`, or folders where they are not merged."""
    words = []
    for name in HOST_LINKS:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    return words


@contextmanager
def _open_files(read_only: Sequence[Path], writable: Path | None) -> Iterator[dict[str, int]]:
    """Names inside -> open descriptors, so that no path of the host is in a command or in a message of the child."""
    names: dict[str, int] = {}
    try:
        for number, path in enumerate(read_only):
            names[inside(number)] = os.open(path, os.O_RDONLY)
        if writable is not None and writable.is_dir():
            names[OUT_FOLDER] = os.open(writable, os.O_RDONLY | os.O_DIRECTORY)
        elif writable is not None:
            names[OUT_FILE] = os.open(writable, os.O_RDWR)
        yield names
    finally:
        for descriptor in names.values():
            os.close(descriptor)


@contextmanager
def _readable(program: bytes) -> Iterator[list[int]]:
    """The filter as an open file that a child reads to its end; none if there is none."""
    if not program:
        yield []
        return
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, program)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield [descriptor]
    finally:
        os.close(descriptor)


async def _started(command: Sequence[str], descriptors: Sequence[int]) -> asyncio.subprocess.Process:
    """Cancelled while it starts a child, asyncio may wait for ever for the end of pipes that it does not read: so it is
    let start the child, which is then killed."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=descriptors,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        while not starting.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([starting])
        if starting.exception() is None:
            await _killed(starting.result(), [])
        raise


async def _watched(
    process: asyncio.subprocess.Process, wall_s: float, on_output: Callable[[bytes], None] | None
) -> Result:
    if process.stdout is None or process.stderr is None:
        raise TypeError("a child without pipes")
    stdout, stderr = bytearray(), bytearray()
    readers = [
        asyncio.create_task(_kept(process.stdout, stdout, on_output)),
        asyncio.create_task(_kept(process.stderr, stderr, None)),
    ]
    try:
        async with asyncio.timeout(wall_s):
            await asyncio.gather(*readers)
            status = await process.wait()
    except BaseException:
        await _killed(process, readers)
        raise
    return Result(status=status, stdout=bytes(stdout), stderr=bytes(stderr))


async def _kept(stream: asyncio.StreamReader, kept: bytearray, on_output: Callable[[bytes], None] | None) -> None:
    while piece := await stream.read(READ_BYTES):
        kept += piece
        del kept[:-KEPT_BYTES]
        if on_output is not None:
            on_output(piece)


async def _killed(process: asyncio.subprocess.Process, readers: list["asyncio.Task[None]"]) -> None:
    """Kill the whole group and wait until it is gone, even if this task is cancelled again."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    with suppress(TimeoutError):
        await asyncio.shield(asyncio.wait_for(_gone(process), GRACE_S))


async def _gone(process: asyncio.subprocess.Process) -> None:
    """The pipes end only when the last process that holds them has ended: the child of a killed bubblewrap too."""
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            while await stream.read(READ_BYTES):
                pass
    await process.wait()
