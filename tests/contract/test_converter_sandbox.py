"""What a child of the sandbox can and cannot do. Real processes; no shell but where a child is one."""

import asyncio
import errno
import inspect
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from calotype.disks.convert import Converter
from calotype.disks.guest.detect import detect
from calotype.disks.model import DiskFormat
from calotype.disks.sandbox import ENVIRONMENT, KEPT_BYTES, OUT_FILE, OUT_FOLDER, Limits, Result, Sandbox, inside
from calotype.disks.seccomp import ARCHITECTURES
from calotype.disks.targets import TargetKind
from calotype.disks.unpack import unpack_zstd
from calotype.errors import SandboxUnavailable
from calotype.supervisor import EX_CONFIG
from tests.disks import build
from tests.service import clean_environment

LIMITS: Final = Limits(memory_bytes=1024**3, cpu_s=20, file_bytes=1024**2, wall_s=30)


@pytest.fixture(scope="module")
def isolated() -> Sandbox:
    found = Sandbox.detect(required=False)
    if not found.isolated:
        pytest.skip("this host does not allow user namespaces")
    return found


@pytest.fixture(scope="module", params=["bubblewrap", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox(bubblewrap=[]) if request.param == "limits" else Sandbox.detect(required=False)


async def said(sandbox: Sandbox, *argv: str, **options: object) -> Result:
    return await sandbox.run(argv, limits=LIMITS, **options)  # type: ignore[arg-type] # a test's keywords


# --- with bubblewrap --------------------------------------------------------------------------------------------------


async def test_no_file_of_the_host_is_there(isolated: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")

    for path in (str(secret), "/etc/passwd", "/root", "/home", "/var", "/proc", "/sys", "/tmp"):
        assert (await said(isolated, "test", "!", "-e", path)).status == 0, path


async def test_nothing_but_the_writable_place_can_be_written(isolated: Sandbox, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("given")
    target.touch()

    for path in (inside(0), "/usr/bin/x", "/x", "/in/x", "/out/x"):
        assert (await said(isolated, "cp", "/usr/bin/true", path, read_only=[source], writable=target)).status != 0
    await said(isolated, "cp", inside(0), OUT_FILE, read_only=[source], writable=target)

    assert source.read_text() == "given"
    assert target.read_text() == "given"


async def test_there_is_no_network(isolated: Sandbox) -> None:
    """A socket of this host's own: the loopback inside is another one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address, 5):
            pass
        result = await said(isolated, "/usr/bin/perl", "-MIO::Socket::INET", "-e", perl_connect(address[1]))

    assert result.status != 0
    assert any(word in result.stderr for word in (b"refused", b"unreachable", b"not supported")), result.stderr


def perl_connect(port: int) -> str:
    return f'IO::Socket::INET->new(PeerAddr => "127.0.0.1:{port}", Timeout => 5) or die "$!"'


async def test_no_user_namespace_can_be_made_inside(isolated: Sandbox) -> None:
    if isolated.describe()["user_namespaces"] != "off":
        pytest.skip("this bubblewrap cannot forbid them")

    assert (await said(isolated, "unshare", "--user", "true")).status != 0


@pytest.mark.parametrize("call", ["ptrace", "keyctl", "io_uring_setup", "perf_event_open", "userfaultfd", "kcmp"])
async def test_system_calls_that_no_converter_needs_are_refused(call: str, isolated: Sandbox) -> None:
    """Called with nonsense, each would say EFAULT, EINVAL or the like if it were let through."""
    if isolated.describe()["system_calls"] != "filtered":
        pytest.skip("this machine's system calls are not known")
    number = ARCHITECTURES[platform.machine()].refused[call]

    result = await said(isolated, "perl", "-e", f"syscall({number}, 9999, 0, 0, 0, 0); print $!+0")

    assert result.stdout == str(errno.EPERM).encode()


async def test_a_child_has_no_capabilities(isolated: Sandbox) -> None:
    result = await said(isolated, "setpriv", "--dump")

    assert b"Capability bounding set: [none]" in result.stdout
    assert b"no_new_privs: 1" in result.stdout


async def test_a_folder_can_be_the_writable_place(sandbox: Sandbox, tmp_path: Path) -> None:
    result = await said(sandbox, "cp", "/usr/bin/true", f"{OUT_FOLDER}/made", writable=tmp_path)

    assert result.status == 0, result.stderr
    assert (tmp_path / "made").stat().st_size > 0


# --- in both ----------------------------------------------------------------------------------------------------------


async def test_inputs_are_found_by_their_numbers(sandbox: Sandbox, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"in, put {number}").write_text(f"{number};")
    paths = [tmp_path / f"in, put {number}" for number in range(12)]

    result = await said(sandbox, "cat", inside(0), inside(1), inside(10), inside(11), read_only=paths)

    assert result.stdout == b"0;1;10;11;"


async def test_the_environment_is_not_the_services(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_DATABASE", "postgresql://secret")

    result = await said(sandbox, "env")

    assert b"CALOTYPE" not in result.stdout
    assert b"PATH=" in result.stdout


async def test_open_files_of_the_service_are_not_inherited(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_text("secret")
    descriptor = os.open(path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        result = await said(sandbox, "cat", f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)

    assert result.status != 0
    assert b"secret" not in result.stdout


async def test_a_file_cannot_grow_above_its_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()

    result = await said(sandbox, "dd", "if=/dev/zero", f"of={OUT_FILE}", "bs=64k", "count=100", writable=target)

    assert result.status != 0
    assert target.stat().st_size <= LIMITS.file_bytes


async def test_memory_is_limited(sandbox: Sandbox) -> None:
    result = await said(sandbox, "dd", "if=/dev/zero", "of=/dev/null", "bs=2G", "count=1")

    assert result.status != 0
    assert b"memory" in result.stderr


async def test_processor_time_is_limited(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=1024**3, cpu_s=1, file_bytes=1, wall_s=60)

    result = await sandbox.run(["sha512sum", "/dev/zero"], limits=limits)

    assert result.status in (-signal.SIGKILL, -signal.SIGXCPU, 128 + signal.SIGKILL, 128 + signal.SIGXCPU)


async def test_wall_clock_time_is_limited(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=1024**3, cpu_s=20, file_bytes=1, wall_s=0.2)

    with pytest.raises(TimeoutError):
        await sandbox.run(["sleep", "60"], limits=limits)


async def test_of_much_output_the_end_is_kept(sandbox: Sandbox) -> None:
    pieces: list[int] = []

    result = await said(sandbox, "seq", "1", "200000", on_output=lambda piece: pieces.append(len(piece)))

    assert len(result.stdout) == KEPT_BYTES
    assert result.stdout.endswith(b"\n200000\n")
    assert sum(pieces) > 10 * KEPT_BYTES


async def test_a_program_that_is_not_there_fails_and_says_so(sandbox: Sandbox) -> None:
    result = await said(sandbox, "no-such-program")

    assert result.status != 0
    assert b"no-such-program" in result.stderr


async def test_a_child_and_its_children_end_with_a_cancelled_task(sandbox: Sandbox, tmp_path: Path) -> None:
    """`timeout` starts a child of its own, which holds the writable file open."""
    target, started = tmp_path / "target", asyncio.Event()
    target.touch()
    script = f"exec 3>>{OUT_FILE}; echo started; sleep 600 & wait"
    task = asyncio.create_task(said(sandbox, "sh", "-c", script, writable=target, on_output=lambda _: started.set()))
    await started.wait()
    assert holders(target)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert holders(target) == []


@pytest.mark.parametrize("turns", range(0, 30, 2))
async def test_a_child_that_is_being_started_ends_with_a_cancelled_task(
    turns: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Cancelled at whatever turn of the loop; what it has started does not outlive it, nor is it waited for in vain."""
    target = tmp_path / "target"
    target.touch()
    task = asyncio.create_task(said(sandbox, "sh", "-c", f"exec 3>>{OUT_FILE}; sleep 600 & wait", writable=target))
    for _ in range(turns):
        await asyncio.sleep(0)

    task.cancel()
    async with asyncio.timeout(60):
        await asyncio.wait([task])

    assert task.cancelled()
    assert holders(target) == []


def holders(path: Path) -> list[str]:
    wanted = (path.stat().st_dev, path.stat().st_ino)
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            state = link.stat()
        except OSError:
            continue
        if (state.st_dev, state.st_ino) == wanted:
            found.append(str(link))
    return found


PARENT: Final = """
import asyncio, sys
from pathlib import Path
from calotype.disks.sandbox import Limits, Sandbox

limits = Limits(memory_bytes=1024**3, cpu_s=20, file_bytes=1024**2, wall_s=600)
sandbox = Sandbox(bubblewrap=[]) if sys.argv[1] == "limits" else Sandbox.detect(required=True)
asyncio.run(sandbox.run(
    ["sh", "-c", "exec 3>>/out/disk; echo started; exec sleep 600"],
    writable=Path(sys.argv[2]), limits=limits, on_output=lambda _: print("started", flush=True),
))
"""


@pytest.mark.parametrize("layer", ["bubblewrap", "limits"])
async def test_a_child_ends_when_the_worker_is_killed(layer: str, tmp_path: Path) -> None:
    if layer == "bubblewrap" and not Sandbox.detect(required=False).isolated:
        pytest.skip("this host does not allow user namespaces")
    target = tmp_path / "target"
    target.touch()
    worker = subprocess.Popen(  # noqa: ASYNC220 - it is to be killed, not awaited
        [sys.executable, "-c", PARENT, layer, str(target)], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"started\n"
    assert holders(target)

    worker.kill()
    worker.wait()
    worker.stdout.close()

    async with asyncio.timeout(10):
        while holders(target):  # noqa: ASYNC110 - what is waited for is another process's end
            await asyncio.sleep(0.02)


async def test_few_files_can_be_open_at_once(sandbox: Sandbox) -> None:
    result = await said(sandbox, "perl", "-e", 'open($f[$_], "<", "/dev/null") or die "$_ $!" for 0 .. 300')

    assert result.status != 0
    assert b"Too many open files" in result.stderr


async def test_few_processes_can_be_there_at_once(isolated: Sandbox) -> None:
    """Counted within the sandbox, which has its own. Without one the limit is that of the service's user."""
    if os.geteuid() == 0:
        pytest.skip("the kernel does not count the processes of root")
    script = (
        "for (1 .. 300) { my $child = fork(); die qq($_ $!) unless defined $child; unless ($child) { sleep 60; exit } }"
    )

    result = await said(isolated, "perl", "-e", script)

    assert result.status != 0
    assert b"Resource temporarily unavailable" in result.stderr


async def test_no_core_is_written(sandbox: Sandbox) -> None:
    """It would hold what the child had read."""
    result = await said(sandbox, "prlimit", "--core", "--noheadings", "--raw", "--output", "SOFT,HARD")

    assert result.stdout.split() == [b"0", b"0"]


async def test_limits_cannot_be_raised_by_a_child(sandbox: Sandbox) -> None:
    if os.geteuid() == 0 and not sandbox.isolated:
        pytest.skip("root may raise them, where nothing takes its capabilities away")

    for limit in ("--as=unlimited", "--cpu=unlimited", "--fsize=unlimited", "--nofile=100000"):
        assert (await said(sandbox, "prlimit", limit, "true")).status != 0, limit


def test_nothing_is_run_without_limits() -> None:
    """Whatever runs a child says what it may use: there is no default that could be forgotten."""
    run = inspect.signature(Sandbox.run).parameters["limits"]
    bounds = {field.name: field.required for field in msgspec.structs.fields(Limits)}

    assert run.default is inspect.Parameter.empty
    assert {name for name, required in bounds.items() if required} == {"memory_bytes", "cpu_s", "file_bytes", "wall_s"}


def images(folder: Path) -> tuple[Path, Path]:
    """A raw disk, and one packed."""
    raw, packed = folder / "disk.raw", folder / "disk.zst"
    raw.write_bytes(build.raw())
    subprocess.run(["zstd", "-q", "-o", str(packed), str(raw)], check=True)
    return raw, packed


async def check(sandbox: Sandbox, folder: Path) -> None:
    (folder / "image").write_bytes(build.qcow2())
    await Converter(sandbox).check(folder / "image", DiskFormat.QCOW2)


async def unpack(sandbox: Sandbox, folder: Path) -> None:
    (folder / "unpacked").mkdir()
    await unpack_zstd(sandbox, images(folder)[1], folder / "unpacked", most_bytes=build.SIZE)


async def convert(sandbox: Sandbox, folder: Path) -> None:
    raw, target = images(folder)[0], folder / "target"
    await Converter(sandbox).convert(
        raw, DiskFormat.RAW, target, TargetKind.QCOW2, virtual_size=build.SIZE, progress=lambda _: None
    )


async def serve(sandbox: Sandbox, folder: Path) -> None:
    (folder / "image").write_bytes(build.vdi())
    await Converter(sandbox).convert(
        folder / "image",
        DiskFormat.VDI,
        folder / "target",
        TargetKind.VMDK_STREAM,
        virtual_size=build.SIZE,
        progress=lambda _: None,
    )


async def compare(sandbox: Sandbox, folder: Path) -> None:
    raw, _ = images(folder)
    await Converter(sandbox).compare(
        raw, DiskFormat.RAW, raw, DiskFormat.RAW, virtual_size=build.SIZE, progress=lambda _: None
    )


async def find(sandbox: Sandbox, folder: Path) -> None:
    raw, _ = images(folder)
    await detect(sandbox, raw, DiskFormat.RAW, virtual_size=build.SIZE, scratch=folder / "scratch")


WITNESS: Final = """#!/bin/sh
prlimit --noheadings --raw --output RESOURCE,SOFT --as --cpu --fsize --nofile --core >> {told}
exec {program} "$@"
"""


@pytest.mark.parametrize("work", [convert, compare, check, serve, unpack, find])
async def test_every_child_has_limits_whatever_it_does(
    work: Callable[[Sandbox, Path], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that say which limits they have, and then do what they are for, stand before the real ones."""
    told, programs = tmp_path / "told", tmp_path / "programs"
    programs.mkdir()
    os.mkfifo(told)  # whose bytes are not those of a file, of which a child may write few
    listening = os.open(told, os.O_RDWR | os.O_NONBLOCK)
    for name in ("qemu-img", "qemu-nbd", "zstd", "python3"):
        (programs / name).write_text(WITNESS.format(told=told, program=f"/usr/bin/{name}"))
        (programs / name).chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{programs}:{ENVIRONMENT['PATH']}")

    try:
        await work(Sandbox(bubblewrap=[]), tmp_path)
        limits = dict(line.split() for line in os.read(listening, 65536).decode().splitlines())
    finally:
        os.close(listening)

    assert 0 < int(limits["AS"]) <= 2 * 1024**3
    assert 0 < int(limits["CPU"]) <= 300
    assert 0 < int(limits["FSIZE"]) <= 128 * 1024**2
    assert (limits["NOFILE"], limits["CORE"]) == ("256", "0")


@pytest.mark.parametrize("setting", ["auto", "required"])
def test_a_worker_says_what_is_missing_and_starts_only_where_that_is_allowed(setting: str, tmp_path: Path) -> None:
    """Without bubblewrap on its path."""
    environment = {**clean_environment(), "PATH": str(tmp_path), "CALOTYPE_SECURITY_SANDBOX": setting}
    command = [sys.executable, "-m", "calotype.cli"]
    data = ["--data-dir", str(tmp_path / "data")]
    subprocess.run([*command, "migrate", *data], env=environment, check=True, capture_output=True)
    with subprocess.Popen(
        [*command, "worker", *data], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as worker:
        assert worker.stdout is not None
        said = next(line for line in worker.stdout if b"bubblewrap" in line)
        if setting == "auto":
            worker.terminate()
        worker.communicate()

    assert b"bubblewrap is not installed" in said
    if setting == "required":
        assert said.startswith(b"calotype: the setting security.sandbox is required")
        assert worker.returncode == EX_CONFIG
    else:
        assert json.loads(said)["network"] == "as the service"


# --- at start ---------------------------------------------------------------------------------------------------------


def test_without_bubblewrap_the_start_goes_on_or_stops_as_the_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    found = Sandbox.detect(required=False)

    assert not found.isolated
    assert found.describe()["network"] == "as the service"
    assert "bubblewrap" in str(found.describe()["missing"])
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        Sandbox.detect(required=True)


def test_a_bubblewrap_that_fails_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that forbids user namespaces."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    found = Sandbox.detect(required=False)

    assert not found.isolated
    assert "No permissions" in str(found.describe()["missing"])


def test_a_bubblewrap_that_hides_nothing_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != prlimit ]; do shift; done\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert not Sandbox.detect(required=False).isolated
