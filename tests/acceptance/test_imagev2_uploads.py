"""Many uploads at once over HTTP: slow ones keep nobody waiting, a DELETE may come at any moment, memory is bounded."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from calotype.settings import Http
from tests.acceptance.test_imagev2 import CONTENT, OCTETS, active, create, raw_request, upload, usage
from tests.service import Client, Service, until

MIB = 1024 * 1024
SLOW = 12  # uploads that stand still, more than the service has threads for
AT_ONCE = 64


@contextlib.contextmanager
def standing_still(client: Client) -> Iterator[dict[str, Any]]:
    """An upload whose client sends no more."""
    image = create(client)
    with socket.create_connection(("127.0.0.1", client.service.port)) as connection:
        connection.sendall(raw_request(client, image["file"], f"Content-Length: {MIB}") + b"a little")
        until(lambda: client.image(image["id"])["status"] == "saving", "the upload to begin")
        yield image


def test_uploads_that_stand_still_keep_nobody_waiting(demo: Client) -> None:
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(standing_still(demo)) for _ in range(SLOW)]

        image = active(demo)
        assert demo.http.get(image["file"]).content == CONTENT
        assert demo.http.get("/v2/images").status_code == 200
        assert upload(demo, create(demo), b"other bytes").status_code == 204
        assert demo.http.delete(image["self"]).status_code == 204

        assert [demo.image(one["id"])["status"] for one in slow] == ["saving"] * SLOW
    for one in slow:
        until(lambda one=one: demo.image(one["id"])["status"] == "queued", "the upload to be taken back")  # type: ignore[misc]  # bound at once


@pytest.mark.parametrize("round_", range(12))
def test_a_delete_at_any_moment_of_an_upload_leaves_nothing(demo: Client, round_: int) -> None:
    """The two begin together; which comes first, and how far the other got, differs from round to round."""
    content = os.urandom(64 * 1024 * (1 + round_ % 4))
    image = create(demo)
    before, counted = demo.service.files(), usage(demo)
    together = threading.Barrier(2)
    headers = {**OCTETS, "X-Auth-Token": demo.token}

    def body() -> Iterator[bytes]:
        half = len(content) // 2
        yield content[:half]
        if round_ % 2:
            together.wait()
        yield content[half:]

    def send() -> int:
        if not round_ % 2:
            together.wait()
        return httpx.put(demo.service.url + image["file"], content=body(), headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(send)
        together.wait()
        deleted = demo.http.delete(image["self"]).status_code
        uploaded = sent.result()

    assert deleted == 204
    assert uploaded in (204, 404, 409)
    assert demo.http.get(image["self"]).status_code == 404
    assert demo.http.get(image["file"]).status_code == 404
    assert demo.service.files() <= before
    assert usage(demo)["image_count_total"] == counted["image_count_total"] - 1


def memory_of(pid: int) -> dict[str, int]:
    """What a process holds now and held at most, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in found}


def test_many_uploads_at_once_stay_within_the_memory_that_they_share(make_service: Callable[..., Service]) -> None:
    """Measured of the process itself: all buffers, and what the server and the threads add for each connection."""
    service = make_service(environment={"CALOTYPE_IMAGE_COUNT_PER_PROJECT": "100"}).start("--no-worker")
    block = os.urandom(MIB)
    with service.demo() as demo:
        active(demo)  # what is loaded once is loaded
        api = max(service.pids_of("calotype.web.server"), key=lambda pid: memory_of(pid)["VmRSS"])
        before = memory_of(api)
        images = [create(demo) for _ in range(AT_ONCE)]
        together = threading.Barrier(AT_ONCE)

        def send(image: dict[str, Any]) -> int:
            def body() -> Iterator[bytes]:
                yield block
                together.wait(timeout=120)  # all of them are under way
                for _ in range(7):
                    yield block

            headers = {**OCTETS, "X-Auth-Token": demo.token}
            return httpx.put(service.url + image["file"], content=body(), headers=headers, timeout=300).status_code

        with ThreadPoolExecutor(AT_ONCE) as threads:
            assert set(threads.map(send, images)) == {204}
        after = memory_of(api)

    assert after["VmHWM"] - before["VmRSS"] <= Http().buffer_budget_bytes, (before, after)
