"""`imagev2.dialect`: where IMS and upstream differ on `/v2/images`. The other tests of the Image API hold for upstream,
which is the default; these are what is different with "ims", and each says what upstream does."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from calotype.images.dialect import DIALECTS
from calotype.web.imagev2 import ROUTES
from tests.acceptance.test_imagev2 import CONTENT, UNKNOWN, change, name, told, upload
from tests.service import Client, Service

IMS = "ims"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the dialect of IMS."""
    environment = {"CALOTYPE_IMAGEV2_DIALECT": IMS, "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000"}
    running = Service(tmp_path_factory.mktemp("strict"), environment=environment)
    try:
        yield running.start("--no-worker")
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def user(strict: Service) -> Iterator[Client]:
    with strict.demo() as client:
        yield client


@pytest.fixture
def operator(strict: Service) -> Iterator[Client]:
    with strict.admin() as client:
        yield client


def made(client: Client, **fields: Any) -> dict[str, Any]:
    answer = client.http.post("/v2/images", json={"name": name(), **fields})
    assert answer.status_code == 201, answer.text
    image: dict[str, Any] = answer.json()
    return image


def test_versions_are_those_of_ims(strict: Service) -> None:
    for path in ("/", "/v2", "/v2/"):
        answer = httpx.get(strict.url + path)
        told = {version["id"]: version for version in answer.json()["versions"]}
        assert answer.status_code == 300
        assert {number: version["status"] for number, version in told.items()} == {
            "v2.2": "CURRENT",
            "v2.1": "SUPPORTED",
            "v2.0": "SUPPORTED",
            "v1.1": "DEPRECATED",
            "v1.0": "DEPRECATED",
        }
        assert told["v2.2"]["links"] == [{"rel": "self", "href": f"{strict.url}/v2/"}]
        assert told["v1.0"]["links"] == [{"rel": "self", "href": f"{strict.url}/v1/"}]
    for path in ("/v2.2", "/v1.1/"):
        assert [one["id"] for one in httpx.get(strict.url + path).json()["versions"]] == [path.strip("/")]
    assert httpx.get(f"{strict.url}/v2.18").status_code == 404


def test_what_ims_does_not_have_is_not_found_and_not_described(user: Client, operator: Client) -> None:
    ims = DIALECTS[IMS]
    absent = [route for route in ROUTES if not ims.offers(route.path)]
    described = user.http.get("/calotype/v1/openapi.json").json()["paths"]

    for part in ("/import", "/stage", "/tasks", "/locations", "/actions/", "/v2/info/", "/v2/cache", "/v2/metadefs/"):
        assert any(part in route.path for route in absent), part
    for route in absent:
        path = route.path.replace("{image_id}", UNKNOWN)
        for client in (user, operator):
            assert client.http.request(route.method, path).status_code == 404, (route.method, route.path)
        assert route.path.replace(":path}", "}") not in described
    for path in ("/v2/images", "/v2/images/{image_id}/members", "/v2/schemas/image"):
        assert path in described


def test_a_new_image_has_the_defaults_of_ims(user: Client) -> None:
    image = made(user)

    assert (image["disk_format"], image["container_format"], image["visibility"]) == ("zvhd2", "bare", "private")
    assert (image["protected"], image["min_ram"], image["__os_version"]) == (False, 0, "Other Linux(64 bit)")
    assert upload(user, image, CONTENT).status_code == 204  # upstream wants formats to be set before


@pytest.mark.parametrize(("visibility", "status"), [("public", 403), ("shared", 400), ("community", 400)])
def test_a_users_image_is_private(user: Client, operator: Client, visibility: str, status: int) -> None:
    created = user.http.post("/v2/images", json={"name": name(), "visibility": visibility})
    image = made(user)
    changed = change(user, image, {"op": "replace", "path": "/visibility", "value": visibility})

    assert (created.status_code, changed.status_code) == (status, status)
    assert told(created)
    assert told(changed)
    assert user.image(image["id"]) == image
    assert made(operator, visibility=visibility)["visibility"] == visibility  # an admin may


def test_a_private_image_is_shared_by_its_first_member(user: Client, operator: Client) -> None:
    image = made(user)

    added = user.http.post(f"{image['self']}/members", json={"member": operator.project_id})

    assert added.status_code == 200, added.text  # upstream: 403, the visibility must be set before
    assert user.image(image["id"])["visibility"] == "shared"
    assert change(user, image, {"op": "replace", "path": "/visibility", "value": "private"}).status_code == 200


def test_links_of_a_list_carry_what_ims_always_filters_by(user: Client) -> None:
    for _ in range(2):
        made(user)

    page = user.http.get("/v2/images?limit=1").json()
    again = user.http.get(page["next"]).json()

    assert page["first"] == "/v2/images?__isregistered=true&limit=1"
    assert page["next"] == f"{page['first']}&marker={page['images'][0]['id']}"
    assert again["first"] == page["first"]
    assert again["images"] != page["images"]
