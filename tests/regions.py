"""Two services that are regions to each other, and a network between them that can be made to misbehave."""

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.importing import uploaded
from tests.service import DEMO_PASSWORD, Client, Service, free_port, until

PIECE_BYTES: Final = 65536
HERE, THERE = "east", "west"
CROWDED: Final = "crowded"  # a project there that has as many images as it may
IMAGES_THERE: Final = 20  # of one project
DISK: Final = b"\x33\xc0 bytes of a raw disk that travels " * 60_000  # 2.1 MB


class Network:
    """Forwards connections to a port of this machine. Its faults are of uploads on their way there."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.uploads = 0  # that were begun
        self.cuts = 0  # how many of the next ones are cut half-way
        self.corrupts = False  # a byte of each is changed
        self.hides_digests = False  # the header Content-Digest is made another one
        self.goes_away = False  # each is cut, and then nothing is reachable any more
        self.held = threading.Event()  # set once an upload stands still
        self.holds = False  # each stands still half-way, until `release`
        self._going_on = threading.Event()
        self._away = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def heal(self) -> None:
        self.cuts = self.uploads = 0
        self.corrupts = self.hides_digests = self.goes_away = self._away = False
        self.release()
        self.held = threading.Event()
        self._going_on = threading.Event()

    def release(self) -> None:
        self.holds = False
        self._going_on.set()

    def close(self) -> None:
        self.release()
        self._away = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._away:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._to)) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                self._there(client, server)
            for end in (server, client):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    def _there(self, client: socket.socket, server: socket.socket) -> None:
        sent: int | None = None  # bytes of the upload under way
        while (data := client.recv(PIECE_BYTES)) and not self._away:
            if data.startswith(b"PUT "):
                self.uploads += 1
                sent = 0
                if self.hides_digests:
                    data = data.replace(b"content-digest:", b"x-other-digest:", 1)
            elif not sent or data.startswith((b"GET ", b"DELETE ", b"PATCH ", b"POST ")):
                sent = None
            if sent is not None:
                if sent < PIECE_BYTES <= sent + len(data) and not self._pass_on():
                    return
                if self.corrupts and sent < 2 * PIECE_BYTES <= sent + len(data):
                    data = data[:-1] + bytes([data[-1] ^ 1])
                sent += len(data)
            server.sendall(data)

    def _pass_on(self) -> bool:
        """Called once for each upload, on its way. False: cut it."""
        if self.holds:
            self.held.set()
            self._going_on.wait(timeout=120)
        if self.goes_away:
            self._away = True
        if self.cuts > 0 or self._away:
            self.cuts -= 1
            return False
        return True


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def region_there(folder: Path) -> Iterator[Service]:
    """Needs no worker: it only takes uploads. The demo user is a member of two projects, of which one is full."""
    environment = {
        "CALOTYPE_REGION": THERE,
        "CALOTYPE_IMAGE_COUNT_PER_PROJECT": str(IMAGES_THERE),
        "CALOTYPE_IMAGE_UPLOAD_IDLE_S": "30",
    }
    with started(Service(folder, environment=environment, arguments=["--no-worker"])) as there:
        with there.admin() as admin, there.demo() as demo:
            made = admin.http.post("/identity/v3/projects", json={"project": {"name": CROWDED, "domain_id": "default"}})
            project = made.json()["project"]["id"]
            roles = {role["name"]: role["id"] for role in admin.http.get("/identity/v3/roles").json()["roles"]}
            path = f"/identity/v3/projects/{project}/users/{user_of(demo)}/roles/{roles['member']}"
            assert admin.http.put(path).status_code == 204
        with crowded(there) as client:
            for _ in range(IMAGES_THERE):
                assert client.http.post("/v2/images", json={}).status_code == 201
        yield there


def crowded(there: Service) -> Client:
    return Client(there, "demo", DEMO_PASSWORD, CROWDED)


def user_of(client: Client) -> str:
    token = client.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": client.token}).json()["token"]
    return str(token["user"]["id"])


def region_here(folder: Path, there: Service, network: Network, *, arguments: list[str]) -> Service:
    """With the other one as several regions: what differs is the way to it, and how it is logged in to there."""
    with there.demo() as demo:
        path = f"/identity/v3/users/{user_of(demo)}/credentials/OS-EC2"
        key = demo.http.post(path, json={"tenant_id": demo.project_id}).json()["credential"]
    password = f'user = "demo"\npassword = "{DEMO_PASSWORD}"\n'
    one = 'projects = ["demo"]\n'
    quick = "patience_s = 2\ntimeout_s = 10\n"
    through = f'url = "http://127.0.0.1:{network.port}"\n'
    direct = f'url = "{there.url}/"\nauth_url = "{there.url}/identity/v3"\n'
    config = folder / "calotype.toml"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'[regions.{THERE}]\n{direct}{password}projects = ["demo", "{CROWDED}"]\nagencies = ["ims_agency"]\n'
        f"[regions.rough]\n{through}{password}{one}{quick}"
        f'[regions.keyed]\n{direct}access_key = "{key["access"]}"\nsecret_key = "{key["secret"]}"\n{one}'
        f'[regions.locked]\n{direct}user = "demo"\npassword = "not the password"\n{one}'
        f'[regions.down]\nurl = "http://127.0.0.1:{free_port()}"\n{password}{one}{quick}'
    )
    environment = {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_REGION": HERE,
        "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000",
        "CALOTYPE_IMAGE_EXPORT_BYTES": str(4 * len(DISK)),
    }
    return Service(folder, environment=environment, arguments=arguments)


@contextlib.contextmanager
def started(service: Service) -> Iterator[Service]:
    try:
        yield service.start()
    finally:
        if service.process is not None and service.process.poll() is None:
            service.stop()


def disk() -> bytes:
    """Bytes that no other image has."""
    return DISK + os.urandom(16)


def image_here(client: Client, **fields: Any) -> dict[str, Any]:
    return uploaded(client, disk(), **fields)


def copy(client: Client, image_id: str, region: str, **fields: Any) -> tuple[str, str]:
    """Ask for a copy; its job and the name that it is to have."""
    name = fields.pop("name", f"copy-{uuid.uuid4().hex[:12]}")
    body = {"name": name, "region": region, "agency_name": "ims_agency", **fields}
    return client.submit("POST", f"/v1/cloudimages/{image_id}/cross_region_copy", body), name


def images_there(client: Client, name: str) -> list[dict[str, Any]]:
    """Hidden ones too."""
    found: list[dict[str, Any]] = []
    for hidden in ("false", "true"):
        answer = client.http.get("/v2/images", params={"name": name, "os_hidden": hidden})
        found += answer.json()["images"]
    return found


def assert_arrived(client: Client, job: dict[str, Any], name: str, source: dict[str, Any]) -> dict[str, Any]:
    """One image is there, with the bytes of the source. `client`: of the project there."""
    assert job["status"] == "SUCCESS", job
    assert job["job_type"] == "imsCrossRegionCopyImageJob"
    (image,) = images_there(client, name)
    assert job["entities"] == {"image_name": name, "image_id": image["id"]}
    facts = ("status", "size", "checksum", "os_hash_algo", "os_hash_value", "disk_format", "container_format")
    assert {fact: image[fact] for fact in facts} == {fact: source[fact] for fact in facts}
    data = client.http.get(f"/v2/images/{image['id']}/file").content
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == source["checksum"]
    assert image["os_hidden"] is False
    assert client.http.delete(f"/v2/images/{image['id']}").status_code == 204  # so that the project is never full
    return image


def assert_nothing_there(client: Client, name: str) -> None:
    until(lambda: not images_there(client, name), f"nothing of {name} to be there: {images_there(client, name)}", 20)
