"""Downloads over HTTP while the right to them ends: the running stream is cut, not only the next request refused."""

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.test_imagev2 import OCTETS, act, create
from tests.acceptance.test_imagev2 import actors as actors
from tests.actors import Actors
from tests.service import Client, Service

BLOCK = bytes(1024 * 1024)
BLOCKS = 96  # of a MiB: more than what lies in buffers between the service and a client that does not read


@pytest.fixture
def quick(make_service: Callable[..., Service]) -> Service:
    return make_service(environment={"CALOTYPE_IMAGE_RECHECK_S": "0.2"}).start()


def large(client: Client, **fields: Any) -> dict[str, Any]:
    image = create(client, **fields)
    answer = client.http.put(image["file"], content=itertools.repeat(BLOCK, BLOCKS), headers=OCTETS)
    assert answer.status_code == 204, answer.text
    return client.image(image["id"])


def read_while(client: Client, image: dict[str, Any], withdraw: Callable[[], object]) -> int | None:
    """Begin a download, do something to the image, read on; the bytes that came, None when the connection was cut."""
    with client.http.stream("GET", image["file"]) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_raw(65536)
        read = len(next(chunks))
        withdraw()
        cut = threading.Event()
        with httpx.Client() as other:  # other requests go on meanwhile; they also give the check its time
            for _ in range(3):
                cut.wait(0.2)
                assert other.get(f"{client.service.url}/health/live").status_code == 200
        try:
            return read + sum(len(chunk) for chunk in chunks)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return None


def test_a_download_ends_when_its_image_is_withdrawn(quick: Service) -> None:
    with quick.demo() as demo, quick.admin() as admin:
        image = large(demo)
        assert read_while(demo, image, lambda: act(demo, image, "deactivate")) is None
        assert read_while(admin, image, lambda: None) == len(BLOCK) * BLOCKS
        act(demo, image, "reactivate")
        assert read_while(demo, image, lambda: act(demo, image, "reactivate")) == len(BLOCK) * BLOCKS
        assert read_while(demo, image, lambda: demo.http.delete(image["self"])) is None


def test_a_download_ends_when_the_image_is_no_longer_shared(quick: Service) -> None:
    with contextlib.ExitStack() as opened:
        admin = opened.enter_context(quick.admin())
        actors = Actors(quick, admin)
        for client in actors.clients.values():
            opened.enter_context(client)
        owner, member = actors.clients["owner"], actors.clients["accepted"]
        image = actors.shared_image(lambda client: large(client))
        path = f"{image['self']}/members/{member.project_id}"

        assert read_while(member, image, lambda: None) == len(BLOCK) * BLOCKS
        assert read_while(member, image, lambda: owner.http.delete(path)) is None
        assert member.http.get(image["file"]).status_code == 404
        assert read_while(owner, image, lambda: None) == len(BLOCK) * BLOCKS
