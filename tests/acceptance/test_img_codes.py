"""Codes of the IMS API that no other page of the tests comes by."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.inventory import MIB, Described
from tests.service import Client, Service


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker, whose images differ in their names."""
    running = Service(
        tmp_path_factory.mktemp("strict"),
        environment={"CALOTYPE_IMAGE_UNIQUE_NAMES": "true"},
        arguments=["--no-worker"],
    )
    yield running.start()
    running.stop()


@pytest.fixture(scope="module")
def client(strict: Service) -> Iterator[Client]:
    with strict.demo() as opened:
        opened.put_object("unique", "disk.raw", bytes(MIB))
        yield opened


def body(name: str) -> dict[str, Any]:
    return {"name": name, "image_url": "unique:disk.raw", "min_disk": 1}


def test_a_name_is_taken_where_the_settings_want_names_to_differ(client: Client) -> None:
    client.submit("POST", "/v2/cloudimages/action", body("taken"))

    assert code(client.http.post("/v2/cloudimages/action", json=body("taken"))) == (400, "IMG.0009")
    other = client.http.post("/v2/images", json={"name": "other", "disk_format": "raw", "container_format": "bare"})
    rename = [{"op": "replace", "path": "/name", "value": "taken"}]
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    answer = client.http.patch(f"/v2/images/{other.json()['id']}", json=rename, headers=headers)
    assert answer.status_code == 409, answer.text
    assert client.image(other.json()["id"])["name"] == "other"
    named = client.http.get("/v2/images", params={"name": "taken"}).json()["images"]
    assert client.http.delete(f"/v2/images/{named[0]['id']}").status_code == 204
    client.submit("POST", "/v2/cloudimages/action", body("taken"))


def test_a_second_job_that_brings_bytes_to_an_image_is_refused(client: Client) -> None:
    image = client.http.post("/v2/images", json={"name": "one", "disk_format": "raw", "container_format": "bare"})
    path = f"/v1/cloudimages/{image.json()['id']}/upload"
    client.submit("PUT", path, {"image_url": "unique:disk.raw"})

    assert code(client.http.put(path, json={"image_url": "unique:disk.raw"})) == (400, "IMG.0090")


def test_a_member_that_is_none_is_an_object_that_is_not_found(client: Client) -> None:
    image = client.http.post("/v2/images", json={"name": "alone", "disk_format": "raw", "container_format": "bare"})
    members = f"/v1/{client.project_id}/cloudimages/{image.json()['id']}/members"

    assert code(client.http.get(f"{members}/{uuid.uuid4().hex}"))[1] == "IMG.0121"


def test_a_server_that_is_described_badly_cannot_be_looked_at(strict: Service, client: Client) -> None:
    described = Described(strict)
    server = described.server((bytes(MIB), {}))
    (described.folder / "servers" / server / "server.toml").write_text("colour = 'green'\n")

    answer = client.http.post("/v2/cloudimages/action", json={"name": "n", "instance_id": server})

    assert code(answer) == (503, "IMG.0137")
    assert str(strict.data_dir) not in answer.text
