"""The real service, started as a user starts it, for tests that drive it over HTTP."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx
import yaml

CALOTYPE: Final = Path(sys.executable).with_name("calotype")
READY_WITHIN_S: Final = 60.0
ADMIN_PASSWORD: Final = "test-admin-password"
DEMO_PASSWORD: Final = "test-demo-password"
PLACE: Final = ".place"  # the name of a file system, kept beside what jobs write there


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """The first true value of `condition`; fails, naming `what`, when there is none within the limit."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {within_s} s in vain for {what}")


class Client:
    """One user of the service: a token, and calls with it."""

    def __init__(self, service: "Service", user: str, password: str, project: str) -> None:
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=120)
        self.user, self.password, self.project = user, password, project
        answer = self.http.post("/identity/v3/auth/tokens", json=password_auth(user, password, project))
        assert answer.status_code == 201, answer.text
        self.token = answer.headers["X-Subject-Token"]
        self.project_id: str = answer.json()["token"]["project"]["id"]
        self.http.headers["X-Auth-Token"] = self.token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def put_object(self, bucket: str, key: str, data: bytes | Path) -> None:
        self.http.put(f"/calotype/v1/buckets/{bucket}")
        # As a file: of bytes, httpx copies the rest at each send, for a gigabyte two minutes long.
        with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as content:
            answer = self.http.put(f"/calotype/v1/buckets/{bucket}/objects/{key}", content=content)
        assert answer.status_code in (200, 201), answer.text

    def get_object(self, bucket: str, key: str) -> bytes:
        answer = self.http.get(f"/calotype/v1/buckets/{bucket}/objects/{key}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def submit(self, method: str, path: str, body: Mapping[str, Any]) -> str:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        assert list(answer.json()) == ["job_id"]
        return str(answer.json()["job_id"])

    def import_image(self, image_url: str, name: str, **fields: Any) -> str:
        body = {"name": name, "image_url": image_url, "min_disk": 4, **fields}
        return self.submit("POST", "/v2/cloudimages/action", body)

    def job(self, job_id: str, **headers: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/{self.project_id}/jobs/{job_id}", headers=headers)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def ended(self, job_id: str, within_s: float = 120.0) -> dict[str, Any]:
        told: dict[str, Any] = until(
            lambda: (job := self.job(job_id))["status"] in ("SUCCESS", "FAIL") and job, f"job {job_id}", within_s
        )
        return told

    def succeeded(self, job_id: str, within_s: float = 120.0) -> dict[str, Any]:
        told = self.ended(job_id, within_s)
        assert told["status"] == "SUCCESS", told
        return told

    def image(self, image_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v2/images/{image_id}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


def password_auth(user: str, password: str, project: str | None) -> dict[str, Any]:
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
    }
    auth: dict[str, Any] = {"identity": identity}
    if project is not None:
        auth["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
    return {"auth": auth}


class Service:
    """`calotype serve` in a folder of its own, on a free port."""

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self.data_dir = folder / "data"
        self.log = folder / "service.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = list(arguments)
        self.environment = {
            **clean_environment(),
            "CALOTYPE_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "CALOTYPE_DEMO_PASSWORD": DEMO_PASSWORD,
            "CALOTYPE_HTTP_PROCESSES": "1",
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, ready: bool = True) -> Self:
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [str(CALOTYPE), "serve", "--data-dir", str(self.data_dir), "--port", str(self.port)]
            self.process = subprocess.Popen(
                [*command, *self.arguments, *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.data_dir.parent,
                start_new_session=True,
            )
        if ready:
            workers = 0 if "--no-worker" in (*self.arguments, *arguments) else 1
            until(lambda: self._is_ready(workers), "the service to be ready", READY_WITHIN_S)
        return self

    def _is_ready(self, workers: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            answer = httpx.get(f"{self.url}/health/ready", timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["workers"] >= workers

    def stop(self) -> int:
        """SIGTERM, as an operator stops it; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """`kill -9` of everything that belongs to it."""
        assert self.process is not None
        for pid in self.processes():
            _kill(pid)
        self.process.wait(timeout=30)

    def kill_worker(self) -> int:
        """`kill -9` of the worker; the supervisor starts it again."""
        pid = self.worker_pid()
        _kill(pid)
        return pid

    def worker_pid(self) -> int:
        return int(until(lambda: self.pids_of("calotype.cli worker"), "a worker process")[0])

    def processes(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid, *_descendants(self.process.pid)]

    def pids_of(self, part: str) -> list[int]:
        return [pid for pid in self.processes() if part in _command_line(pid)]

    def demo(self) -> Client:
        return Client(self, "demo", DEMO_PASSWORD, "demo")

    def admin(self) -> Client:
        return Client(self, "admin", ADMIN_PASSWORD, "admin")

    @property
    def clouds_yaml(self) -> Path:
        return self.data_dir / "clouds.yaml"

    def cloud(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.clouds_yaml.read_text())["clouds"][name]
        return found

    def env(self, cloud: str = "calotype-demo") -> dict[str, str]:
        return {**clean_environment(), "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml), "OS_CLOUD": cloud}

    def run(self, *command: str, cloud: str = "calotype-demo", ok: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the environment's (openstack, calotype …) as a user of `cloud` runs it."""
        program = str(Path(sys.executable).with_name(command[0]))
        done = subprocess.run(
            [program, *command[1:]], env=self.env(cloud), capture_output=True, text=True, timeout=300, check=False
        )
        if ok:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def run_json(self, *command: str, cloud: str = "calotype-demo") -> Any:
        return json.loads(self.run(*command, cloud=cloud).stdout)

    def files(self) -> set[str]:
        """Every file that holds bytes of images, or of jobs under way: there must be no stray one."""
        found = set()
        for part in ("blobs", "scratch"):
            for folder, _, names in os.walk(self.data_dir / part):  # passes over what goes meanwhile
                bytes_of_images = [name for name in names if name != PLACE]
                found |= {str((Path(folder) / name).relative_to(self.data_dir)) for name in bytes_of_images}
        return found


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "CALOTYPE_"))}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found
