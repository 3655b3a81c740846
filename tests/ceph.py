"""A real S3 server for tests of services: a node of Ceph with its gateway, started by `scripts/ceph-one-node.sh`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tests.s3 import client
from tests.service import free_port

SCRIPT: Final = Path(__file__).parents[1] / "scripts" / "ceph-one-node.sh"
ACCESS_KEY: Final = "calotypekey"
SECRET_KEY: Final = "calotypesecret"


class Ceph(Struct, frozen=True):
    url: str

    def client(self) -> Any:
        return client(self.url, ACCESS_KEY, SECRET_KEY)

    def bucket(self, name: str) -> str:
        """A new one, empty; its URL."""
        self.client().create_bucket(Bucket=name)
        return f"{self.url}/{name}"

    def mapping(self, url: str, **more: object) -> dict[str, Any]:
        return {"s3": url, "read_only": False, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, **more}


@contextmanager
def running(folder: Path) -> Iterator[Ceph]:
    ports = [str(free_port()) for _ in range(3)]
    try:
        done = subprocess.run(
            ["bash", str(SCRIPT), str(folder), "start", *ports],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Ceph(f"http://127.0.0.1:{ports[0]}")
    finally:
        subprocess.run(["bash", str(SCRIPT), str(folder), "stop"], timeout=120, check=False)
