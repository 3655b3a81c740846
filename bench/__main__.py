"""`make bench`: starts the service in a temporary folder and measures its main paths. Prints, asserts nothing."""

import hashlib
import http.client
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final

from tests.conftest import alpine_image
from tests.service import Client, Service, until

CONNECTIONS: Final = 16
SECONDS: Final = 5.0
UPLOAD_BYTES: Final = 256 * 1024 * 1024


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rate(service: Service, path: str, token: str) -> tuple[float, float]:
    """Requests a second over keep-alive connections, and the 99th percentile in ms. The client takes its CPU too."""
    laps: list[float] = []
    until_ = time.perf_counter() + SECONDS

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        while time.perf_counter() < until_:
            began = time.perf_counter()
            connection.request("GET", path, headers={"X-Auth-Token": token})
            connection.getresponse().read()
            laps.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(laps) / SECONDS, statistics.quantiles(laps, n=100)[98] * 1000


def measure(service: Service, client: Client, folder: Path) -> None:
    alpine = alpine_image()
    client.put_object("bench", "alpine.qcow2", alpine)
    kept = client.import_image("bench:alpine.qcow2", "kept")
    image_id = client.succeeded(kept)["entities"]["image_id"]

    asked, p99 = rate(service, f"/v1/{client.project_id}/jobs/{kept}", client.token)
    idle, idle_p99 = rate(service, "/health/live", client.token)
    print(f"job query: {asked:.0f}/s, p99 {p99:.1f} ms; {asked / idle:.2f} x /health/live ({idle_p99:.1f} ms)")

    vmdk, bare = folder / "alpine.vmdk", folder / "bare.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", str(alpine), str(vmdk)], check=True)
    options = ["-O", "qcow2", "-c", "-o", "compression_type=zstd", "-W", "-m", "16"]
    tool = timed(
        lambda: subprocess.run(["qemu-img", "convert", "-f", "vmdk", *options, str(vmdk), str(bare)], check=True)
    )
    tool += timed(lambda: hashlib.sha512(bare.read_bytes()))
    client.put_object("bench", "alpine.vmdk", vmdk)
    ours = timed(lambda: client.succeeded(client.import_image("bench:alpine.vmdk", "converted")))
    print(f"import with conversion: {ours:.2f} s, {ours / tool:.2f} x (qemu-img convert, then sha512)")

    laps = []
    for _ in range(10):
        copy = client.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": "c"})
        laps.append(timed(lambda copy=copy: client.succeeded(copy)))  # type: ignore[misc]
    print(f"copy, submit to SUCCESS as a poller sees it: median {statistics.median(laps) * 1000:.0f} ms")

    data = b"\x01" * UPLOAD_BYTES
    hashes = timed(lambda: (hashlib.md5(data, usedforsecurity=False), hashlib.sha512(data)))
    spec = {"name": "up", "disk_format": "raw", "container_format": "bare"}
    created = client.http.post("/v2/images", json=spec).json()["id"]
    octets = {"Content-Type": "application/octet-stream"}
    # As a file: httpx copies what is left of a bytes body at every send.
    up = timed(lambda: client.http.put(f"/v2/images/{created}/file", content=BytesIO(data), headers=octets))
    print(f"upload: {UPLOAD_BYTES / up / 1e6:.0f} MB/s, {up / hashes:.2f} x (md5, then sha512, of the same bytes)")
    down = timed(lambda: client.http.get(f"/v2/images/{created}/file"))
    print(f"download: {UPLOAD_BYTES / down / 1e6:.0f} MB/s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as temporary:
        service = Service(Path(temporary)).start()
        try:
            until(lambda: service.worker_pid(), "a worker")
            with service.demo() as client:
                measure(service, client, Path(temporary))
        finally:
            service.stop()


if __name__ == "__main__":
    main()
