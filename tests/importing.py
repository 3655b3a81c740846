"""Interoperable import as a client asks for it, and a web server to import from; for tests of several kinds."""

import http.server
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final

import httpx

from tests.service import Client, Service, until

OCTETS: Final = {"Content-Type": "application/octet-stream"}
CONTENT: Final = b"bytes of a raw disk, staged " * 500
ENDED: Final = ("success", "failure")


class Source:
    """A web server on this machine that users import from. `files`: path -> content. At `/stalls` it sends half of what
    it says, and the rest once `released` is set."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.released = threading.Event()
        files, released = self.files, self.released

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path)
                if self.path == "/stalls":
                    self.send_response(200)
                    self.send_header("Content-Length", "2000000")
                    self.end_headers()
                    self.wfile.write(bytes(1_000_000))
                    released.wait(timeout=120)
                    return
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                return None

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, content: bytes) -> str:
        path = f"/{uuid.uuid4().hex}"
        self.files[path] = content
        return f"http://{self.address}{path}"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def create(client: Client, **fields: Any) -> dict[str, Any]:
    name = f"import-{uuid.uuid4().hex[:12]}"
    answer = client.http.post(
        "/v2/images", json={"name": name, "disk_format": "raw", "container_format": "bare", **fields}
    )
    assert answer.status_code == 201, answer.text
    image: dict[str, Any] = answer.json()
    return image


def stage(client: Client, image: Mapping[str, Any], content: bytes = CONTENT) -> httpx.Response:
    return client.http.put(f"{image['self']}/stage", content=content, headers=OCTETS)


def staged(client: Client, content: bytes = CONTENT, **fields: Any) -> dict[str, Any]:
    image = create(client, **fields)
    answer = stage(client, image, content)
    assert answer.status_code == 204, answer.text
    return image


def ask(client: Client, image: Mapping[str, Any], method: str, more: Mapping[str, Any] = {}, **fields: Any) -> Any:
    body = {"method": {"name": method, **fields}, **more}
    return client.http.post(f"{image['self']}/import", json=body)


def tasks(client: Client, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.http.get(f"{image['self']}/tasks").json()["tasks"]
    return found


def ended(client: Client, image: Mapping[str, Any]) -> dict[str, Any]:
    """The newest task of an image, once it has ended."""
    task: dict[str, Any] = until(
        lambda: (newest := tasks(client, image)[0])["status"] in ENDED and newest, "the import"
    )
    return task


def imported(client: Client, image: Mapping[str, Any], method: str, *args: Any, **fields: Any) -> dict[str, Any]:
    answer = ask(client, image, method, *args, **fields)
    assert answer.status_code == 202, answer.text
    task = ended(client, image)
    assert task["status"] == "success", task
    return client.image(image["id"])


def failed(client: Client, image: Mapping[str, Any], method: str, *args: Any, **fields: Any) -> dict[str, Any]:
    answer = ask(client, image, method, *args, **fields)
    assert answer.status_code == 202, answer.text
    task = ended(client, image)
    assert task["status"] == "failure", task
    return task


def told(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def data(client: Client, image: Mapping[str, Any]) -> bytes:
    answer = client.http.get(f"/v2/images/{image['id']}/file")
    assert answer.status_code == 200, answer.text
    return answer.content


def waiting(service: Service) -> list[str]:
    return [path.name for path in (service.data_dir / "blobs" / "staging").iterdir()]


def uploaded(client: Client, content: bytes, **fields: Any) -> dict[str, Any]:
    image = create(client, **fields)
    assert client.http.put(image["file"], content=content, headers=OCTETS).status_code == 204
    return client.image(image["id"])
