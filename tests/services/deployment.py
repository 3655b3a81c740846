"""A deployment of two API nodes and a worker with every feature on, and a web server with files to fetch."""

import functools
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tests.service import Client, Service

ARCHIVE: Final = "image.tar.gz"
DISK: Final = "disk.qcow2"


class Files(Struct, frozen=True, kw_only=True):
    """Files that a web server offers."""

    host: str  # host:port
    url: str

    @property
    def archive(self) -> str:
        return f"{self.url}/{ARCHIVE}"

    @property
    def disk(self) -> str:
        return f"{self.url}/{DISK}"


class Deployment(Struct, frozen=True, kw_only=True):
    """`second` has no worker and works on the data of `first`; the catalog names it under `image_remote`."""

    first: Service
    second: Service
    files: Files


@contextmanager
def deployment(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    with files(folder / "files") as offered:
        first, second = Service(folder / "first"), Service(folder / "second", arguments=["--no-worker"])
        second.data_dir = first.data_dir
        second.log.parent.mkdir()
        config = folder / "calotype.toml"
        config.write_text(configuration(folder, second))
        nodes = ",".join(f"127.0.0.1:{node.port}" for node in (first, second))
        for node in (first, second):
            node.environment |= {
                "CALOTYPE_CONFIG": str(config),
                "CALOTYPE_FETCH_ALLOW": f"{offered.host},{nodes}",
                "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000",
                **(environment or {}),
            }
        try:
            second.start()
            first.start()  # the one that was started last is named in clouds.yaml
            yield Deployment(first=first, second=second, files=offered)
        finally:
            for node in (second, first):
                if node.process is not None and node.process.poll() is None:
                    node.stop()


def configuration(folder: Path, second: Service) -> str:
    """`calotype.toml`: what has no variable. The heaviest store comes first: here in the order of the alphabet."""
    return f"""
[imagev2]
locations = "set"

[stores.local]
weight = 20

[stores.other]
folder = {json.dumps(str(folder / "other-store"))}
weight = 10
description = "another folder"

[stores.web]
type = "http"
description = "files of web servers, read only"

[endpoints.second-node]
type = "image_remote"
url = "{second.url}"
"""


@contextmanager
def files(folder: Path) -> Iterator[Files]:
    """A web server on the loopback with an archive of 3 MiB and a small qcow2."""
    folder.mkdir(parents=True)
    noise = os.urandom(3 * 1024 * 1024)
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        member = tarfile.TarInfo("image.raw")
        member.size = len(noise)
        archive.addfile(member, io.BytesIO(noise))
    raw = folder / "disk.raw"
    raw.write_bytes(noise[: 1024 * 1024] + bytes(7 * 1024 * 1024))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(folder / DISK)]
    subprocess.run(convert, check=True, timeout=60)
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield Files(host=host, url=f"http://{host}")
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks only how long a file is goes away: no reason for a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


# --- accounts ---------------------------------------------------------------------------------------------------------


class Account(Struct, frozen=True, kw_only=True):
    user: str
    project: str
    password: str
    role: str


def create_account(admin: Client, user: str, project: str, role: str) -> Account:
    """A user with a role on a project, which is made where there is none yet."""
    directory = "/identity/v3"
    found = admin.http.get(f"{directory}/projects", params={"name": project}).json()["projects"]
    if not found:
        made = admin.http.post(f"{directory}/projects", json={"project": {"name": project, "domain_id": "default"}})
        assert made.status_code == 201, made.text
        found = [made.json()["project"]]
    password = f"password-of-{user}"
    made = admin.http.post(
        f"{directory}/users", json={"user": {"name": user, "domain_id": "default", "password": password}}
    )
    assert made.status_code == 201, made.text
    roles = admin.http.get(f"{directory}/roles", params={"name": role}).json()["roles"]
    grant = f"{directory}/projects/{found[0]['id']}/users/{made.json()['user']['id']}/roles/{roles[0]['id']}"
    assert admin.http.put(grant).status_code == 204
    return Account(user=user, project=project, password=password, role=role)
