"""A service with several stores, and a web server that images can point at."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.contract.source import Asked, Source
from tests.service import Client, Service


class Web:
    """Files by path, on the loopback. Those in `without_ranges` are always sent whole."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.without_ranges: set[str] = set()
        self.source = Source(self._answer)

    def put(self, path: str, content: bytes) -> str:
        """Offer a file; its URL."""
        self.files[path] = content
        return self.source.url(path)

    def asked_for(self, path: str) -> int:
        return sum(1 for asked in self.source.asked if asked.target == path)

    def _answer(self, asked: Asked) -> Iterable[bytes]:
        content = self.files.get(asked.target)
        if content is None:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            return
        start = 0 if asked.target in self.without_ranges else asked.start
        status = "206 Partial Content" if start else "200 OK"
        yield f"HTTP/1.1 {status}\r\nContent-Length: {len(content) - start}\r\n".encode()
        if start:
            yield f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}\r\n".encode()
        yield b"\r\n"
        if asked.method == "GET":
            for at in range(start, len(content), 65536):
                yield content[at : at + 65536]


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    offered = Web()
    with offered.source:
        yield offered


def store_configuration(folder: Path, locations: str) -> str:
    return f"""
[imagev2]
locations = "{locations}"

[stores.local]
weight = 20

[stores.other]
folder = {json.dumps(str(folder / "other-store"))}
weight = 10
description = "another folder"

[stores.web]
type = "http"
"""


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[Service]:
    """With the stores local, other and web; owners may set locations at `web`."""
    folder = tmp_path_factory.mktemp("several")
    config = folder / "calotype.toml"
    config.write_text(store_configuration(folder, "set"))
    running = Service(
        folder,
        environment={
            "CALOTYPE_CONFIG": str(config),
            "CALOTYPE_FETCH_ALLOW": web.source.place,
            "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000",
        },
    )
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def owner(several: Service) -> Iterator[Client]:
    with several.demo() as client:
        yield client


@pytest.fixture
def operator(several: Service) -> Iterator[Client]:
    with several.admin() as client:
        yield client
