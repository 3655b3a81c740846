"""Several API nodes on one data folder are one service."""

import os
from collections.abc import Callable

import pytest

from tests.service import Client, Service, until

RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def nodes(make_service: Callable[..., Service]) -> tuple[Service, Service]:
    """One with the worker, and one without."""
    environment = {"CALOTYPE_IDENTITY_REVOCATION_REFRESH_S": "0.2"}
    first = make_service(environment=environment)
    second = make_service(environment=environment, arguments=["--no-worker"])
    second.data_dir = first.data_dir
    second.log.parent.mkdir()
    return first.start(), second.start()


def test_what_one_node_does_the_other_knows(nodes: tuple[Service, Service]) -> None:
    first, second = nodes
    content = os.urandom(100_000)
    with first.demo() as here, second.demo() as there:
        made = here.http.post("/v2/images", json={"name": "n", "disk_format": "raw", "container_format": "bare"}).json()
        here.http.put(f"/v2/images/{made['id']}/file", content=content, headers=RAW)

        read = there.http.get(f"/v2/images/{made['id']}/file")
        there.http.delete(f"/v2/images/{made['id']}")
        gone = here.http.get(f"/v2/images/{made['id']}")

    assert read.content == content
    assert gone.status_code == 404


def test_a_job_that_one_node_takes_is_done_and_told_by_the_other(nodes: tuple[Service, Service]) -> None:
    first, second = nodes
    with first.demo() as here, second.demo() as there:
        there.put_object("disks", "disk.raw", bytes(4096))
        job = there.import_image("disks:disk.raw", "from-the-second", os_version="Debian GNU/Linux 12.0.0 64bit")

        ended = here.succeeded(job)

        assert there.job(job) == here.job(job) == ended


def test_a_token_holds_on_each_node_and_is_revoked_on_each(nodes: tuple[Service, Service]) -> None:
    first, second = nodes
    with first.demo() as here, second.demo() as there:
        there.http.headers["X-Auth-Token"] = here.token
        before = there.http.get("/v2/images").status_code

        revoked = here.http.delete("/identity/v3/auth/tokens", headers={"X-Subject-Token": here.token})
        until(lambda: there.http.get("/v2/images").status_code == 401, "the other node to refuse the token")

    assert (before, revoked.status_code) == (200, 204)


def test_a_node_that_stops_leaves_the_other_at_work(nodes: tuple[Service, Service]) -> None:
    first, second = nodes
    second.stop()

    with Client(first, "demo", "test-demo-password", "demo") as here:
        assert here.http.get("/v2/images").status_code == 200
    second.start()
    with second.demo() as there:
        assert there.http.get("/v2/images").status_code == 200
