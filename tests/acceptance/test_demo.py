"""`calotype demo`: it shows what it says, says so only when it is true, and leaves nothing behind."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.service import clean_environment, until

CALOTYPE = str(Path(sys.executable).with_name("calotype"))
WITHIN_S = 240  # a machine that does much else beside it
CLAIMS = (
    "the service answers at http://127.0.0.1:",
    "alpine-3.23-amd64.qcow2, 61.4 MiB, is in the bucket demo-disks",
    "POST /v2/cloudimages/action began the job ",
    "the job ended SUCCESS; the image ",
    "downloaded: sha512 and md5 are the image's, and those of the source",
    "exported as VMDK, ",
    "exported as VHD, ",
    "the service is stopped",
    "everything above was checked, in ",
)


def environment(folder: Path) -> dict[str, str]:
    return {**clean_environment(), "TMPDIR": str(folder)}


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A demo whose service answers, and the service's URL."""
    # Where the tests run in a shell's background, Ctrl-C is ignored, and a child would inherit that.
    command = ("env", "--default-signal=INT", CALOTYPE, "demo", *arguments)
    options = {"env": environment(folder), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options) as demo:  # type: ignore[call-overload]  # mypy does not see options' types
        assert demo.stderr is not None
        try:
            line = next(line for line in demo.stderr if "the service answers at " in line)
            yield demo, line.split()[-1]
        finally:
            demo.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_demo_shows_the_main_job_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        (CALOTYPE, "demo"),
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("✓ ")]
    assert [line.removeprefix("✓ ").startswith(claim) for line, claim in zip(said, CLAIMS, strict=True)] == [True] * 9
    assert "alpine" in done.stdout
    assert "export OS_CLIENT_CONFIG_FILE=data/clouds.yaml OS_CLOUD=calotype-demo" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_demo_that_is_stopped_stops_its_service_and_removes_its_folder(tmp_path: Path) -> None:
    with running(tmp_path) as (demo, url):
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=WITHIN_S)

    assert demo.returncode == 130
    assert not answers(url)
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_the_folder_is_kept_where_that_was_asked_for_even_when_the_demo_is_ended(tmp_path: Path) -> None:
    with running(tmp_path, "--keep") as (demo, url):
        demo.send_signal(signal.SIGTERM)
        _, said = demo.communicate(timeout=WITHIN_S)

    (folder,) = tmp_path.iterdir()
    assert demo.returncode == 143
    assert f"kept: {folder}" in said
    assert (folder / "data/clouds.yaml").stat().st_mode & 0o777 == 0o600
    assert not answers(url)
    assert processes_of(tmp_path) == []


def test_the_service_of_a_demo_that_is_killed_ends_too(tmp_path: Path) -> None:
    with running(tmp_path) as (demo, url):
        demo.kill()
        demo.wait()

    until(lambda: not answers(url) and processes_of(tmp_path) == [], "the service to end", WITHIN_S)


def test_without_qemu_img_the_demo_says_what_to_install_and_starts_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        (CALOTYPE, "demo"),
        env={**environment(tmp_path), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.returncode == 1
    assert "[no_qemu_img]" in done.stderr
    assert "next: apt-get install qemu-utils" in done.stderr
    assert list(tmp_path.iterdir()) == []
