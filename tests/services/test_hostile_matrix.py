"""Each hostile image by each way in; declared as every format; with bubblewrap and without; and what a worker opens.

`tests/acceptance/test_hostile.py` takes a part of this. Here is all of it, which takes most of an hour.
"""

import bz2
import gzip
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.gate import DECLARED, NEVER_TAKEN
from calotype.disks.sandbox import ENVIRONMENT
from calotype.errors import UnpackRefused
from tests import hostile
from tests.decoys import Decoys
from tests.disks import build, corpus
from tests.disks.corpus import Case
from tests.entry_drivers import NAMED, PACKERS, Ground, Passed, staged, uploaded_as, zstd
from tests.entry_paths import PATHS
from tests.hostile import attacked, every_kind, left_of
from tests.service import Service, until

pytestmark = pytest.mark.services

CASES: Final = list(corpus.hostile())
MIB: Final = 1024**2
ENDED_S: Final = 600.0


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoys]:
    with Decoys(tmp_path_factory.mktemp("host") / "decoys") as watched:
        yield watched


@pytest.fixture(scope="module")
def pointing(decoys: Decoys) -> list[Case]:
    """Each way to name a file or a service, at each of the decoys."""
    return [
        Case(name=f"{case.name}-{name}", format=case.format, packed=case.packed, error=case.error)
        for name, path in decoys.paths.items()
        for case in corpus.pointing(str(path), port=decoys.port)
    ]


@pytest.fixture(scope="module", params=["bubblewrap", "limits"])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with hostile.ground(tmp_path_factory.mktemp("hostile"), bubblewrap=request.param == "bubblewrap") as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with hostile.ground(tmp_path_factory.mktemp("guarded")) as made:
        yield made


@pytest.mark.parametrize("way", PATHS)
def test_each_hostile_image_is_refused_with_its_code_and_leaves_nothing(
    way: str, guarded: Ground, decoys: Decoys
) -> None:
    wrong = attacked(guarded, [(way, case) for case in CASES if PATHS[way].takes(case)])

    assert wrong == []
    assert left_of(guarded) == {}
    assert decoys.touched() == []


@pytest.mark.parametrize("way", PATHS)
def test_nothing_that_an_image_points_at_is_opened(
    way: str, ground: Ground, decoys: Decoys, pointing: list[Case]
) -> None:
    """By each way each kind of naming; the next way has it at the next decoy."""
    kinds = len(pointing) // len(decoys.paths)
    turn = list(PATHS).index(way)
    cases = [pointing[(number + turn) % len(decoys.paths) * kinds + number] for number in range(kinds)]

    wrong = attacked(ground, [(way, case) for case in cases if PATHS[way].takes(case)])

    assert wrong == []
    assert left_of(ground) == {}
    assert decoys.touched() == []


@pytest.mark.parametrize(
    "declared", sorted(NAMED | (set(DECLARED) & {"ami", "ari", "aki", "zvhd", "zvhd2"}) | NEVER_TAKEN)
)
def test_each_hostile_image_is_refused_whatever_it_is_declared_as(declared: str, guarded: Ground) -> None:
    passed = []
    for case in CASES:
        try:
            uploaded_as(guarded, case, declared, container(declared))
        except Passed as error:
            passed.append(f"{case.name}: {error}")

    assert passed == []
    assert left_of(guarded) == {}


def container(declared: str) -> str:
    return declared if declared in ("ami", "ari", "aki") else "bare"


# --- bombs ------------------------------------------------------------------------------------------------------------

BOMBS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "bz2": bz2.compress,
}


@pytest.mark.parametrize("packing", BOMBS)
def test_ten_gigabytes_of_zeros_are_not_unpacked(packing: str, guarded: Ground) -> None:
    """Streams one after the other are one content."""
    content = BOMBS[packing](bytes(64 * MIB)) * 160
    case = Case.of(name=f"bomb-{packing}", format_="raw", content=b"", error=UnpackRefused)

    outcome = staged(guarded, case, content)()

    assert "would be unpacked" in outcome.told
    assert left_of(guarded) == {}


@pytest.mark.parametrize("packing", PACKERS)
def test_what_is_packed_twice_is_not_unpacked_twice(packing: str, guarded: Ground) -> None:
    pack = PACKERS[packing]
    case = Case.of(name=f"twice-{packing}", format_="raw", content=b"", error=UnpackRefused)

    outcome = staged(guarded, case, pack(pack(bytes(256 * MIB))))()

    assert "packed twice" in outcome.told
    assert left_of(guarded) == {}


# --- what a worker opens ----------------------------------------------------------------------------------------------

OPENING: Final = re.compile(r"\b(?:open|openat|openat2|creat|execve|connect)\(")
PORT: Final = re.compile(r"sin6?_port=htons\((\d+)\)")
QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
# Where programs, libraries and settings of the host lie; and what the kernel tells.
OF_THE_HOST: Final = (
    "/usr/",
    "/lib/",
    "/lib64/",
    "/bin/",
    "/sbin/",
    "/proc/",
    "/sys/",
    "/dev/",
    "/opt/pyca/",  # where the package cryptography has its OpenSSL look
    "/etc/ld.so",
    "/etc/localtime",
    "/etc/ssl/",
    "/etc/mime.types",
    "/etc/apache2/",
    "/etc/nginx/",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/python",
    "/etc/os-release",
    "/run/systemd/",
    "/var/lib/dpkg/",
)
# Inside the sandbox, where the whole file system is made anew.
INSIDE: Final = ("/in/", "/out/", "/newroot", "/oldroot", "/.")
NAMES: Final = frozenset(
    {"/", "/proc", "/etc", "/etc/passwd", "/etc/group", "/etc/magic", "/etc/magic.mgc"}
)  # what Python, the packages and bubblewrap look up at start


def opened(trace: str) -> Iterator[str]:
    """What was opened, run or connected to, as strace tells it: whether or not it was there."""
    for line in trace.splitlines():
        if OPENING.search(line):
            yield from QUOTED.findall(line)[:1]
        if (port := PORT.search(line)) is not None:
            yield f"port {port[1]}"


def foreign(trace: str, *folders: Path) -> set[str]:
    """What was opened of what is neither the program's, nor the service's own."""
    own = tuple(os.fspath(folder) for folder in folders)
    return {
        path
        for path in opened(trace)
        if not path.startswith((*own, *OF_THE_HOST, *INSIDE)) and path.startswith(("/", "port")) and path not in NAMES
    }


@pytest.fixture(params=["bubblewrap", "limits"])
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ground, Callable[[], str]]]:
    """A service whose worker, with all its children, runs under strace; and what that has written."""
    trace = tmp_path / "trace"
    with hostile.ground(
        tmp_path / "hostile", bubblewrap=request.param == "bubblewrap", arguments=["--no-worker"]
    ) as made:
        service = made.service
        programs = service.environment["PATH"] if request.param == "limits" else ENVIRONMENT["PATH"]
        worker = subprocess.Popen(
            [
                *(
                    str(shutil.which("strace")),
                    "-f",
                    "-qq",
                    "-s",
                    "4096",
                    "-e",
                    "trace=%file,connect",
                    "-o",
                    str(trace),
                ),
                *(sys.executable, "-m", "calotype.cli", "worker", "--data-dir", str(service.data_dir)),
            ],
            env={**service.environment, "PATH": programs},
            cwd=service.data_dir.parent,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: workers(service), "the worker")
            yield made, trace.read_text
        finally:
            for child in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)  # strace ends with it; of a signal of its own it would make nothing
            worker.wait(timeout=120)


def workers(service: Service) -> int:
    with service.demo() as client:
        return int(client.http.get("/health/ready").json()["workers"])


@pytest.mark.parametrize("what", ["file", "port"])
def test_a_foreign_file_or_port_is_seen_in_a_trace(what: str, decoys: Decoys, tmp_path: Path) -> None:
    path, trace = decoys.paths["file"], tmp_path / "trace"
    program = {
        "file": f"open({str(path)!r}).close()",
        "port": f"import socket; socket.create_connection(('127.0.0.1', {decoys.port}))",
    }[what]
    command = ["strace", "-f", "-qq", "-e", "trace=%file,connect", "-o", str(trace), sys.executable, "-c", program]
    subprocess.run(command, check=True)
    until(lambda: decoys.touched(), "the decoy to be touched")

    found = foreign(trace.read_text(), Path(sys.prefix), Path(sys.base_prefix), tmp_path)

    assert ({"file": str(path), "port": f"port {decoys.port}"}[what]) in found


def test_a_worker_opens_its_own_files_and_those_of_its_programs_and_no_other(
    traced: tuple[Ground, Callable[[], str]], pointing: list[Case]
) -> None:
    ground, trace = traced
    attacks = []
    for number, way in enumerate(PATHS):  # of each way two kinds: under strace everything takes long
        kinds = list(every_kind(way, CASES, pointing))
        attacks += [kinds[(2 * number + more) % len(kinds)] for more in (0, 1)]
    sound = ground.put("sound.vmdk", build.vmdk())

    wrong = attacked(ground, attacks)
    taken = ground.demo.ended(ground.demo.import_image(sound, "sound"), ENDED_S)

    assert wrong == []
    assert taken["status"] == "SUCCESS", taken
    said = trace()
    paths = set(opened(said))
    assert any(path.endswith("/qemu-img") for path in paths)  # so a child is seen, and so is what it opens
    assert paths & {"/in/0", "/proc/self/fd/0"} or any(re.fullmatch(r"/proc/self/fd/\d+", path) for path in paths)
    port = ground.source.address.rpartition(":")[2]
    root = Path(__file__).parents[2]
    own = (Path(sys.prefix), Path(sys.base_prefix), root, ground.service.data_dir.parent)
    assert foreign(said, *own) <= {f"port {port}", f"port {ground.service.port}"}
