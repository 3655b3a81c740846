"""What IMS tells of a project and of itself: quota, OS versions; and the three calls that are left of v1 and v1.1."""

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import httpx
import pytest

from calotype.images.os_versions import table
from tests.acceptance.test_imagev2 import CONTENT, active, create
from tests.actors import Actors
from tests.description import held_to_its_description
from tests.service import Client, Service


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[Actors]:
    with service.admin() as admin:
        made = Actors(service, admin)
        yield made
        for client in made.clients.values():
            client.http.close()


def quota(client: Client) -> dict[str, dict[str, Any]]:
    answer = client.http.get("/v1/cloudimages/quota")
    held_to_its_description(answer)
    assert answer.status_code == 200, answer.text
    resources = answer.json()["quotas"]["resources"]
    assert resources[0]["type"] == "image"
    return {one["type"]: one for one in resources}


def test_the_quota_counts_images_that_are_there_and_those_that_are_shared(actors: Actors) -> None:
    client, other = actors.clients["stranger"], actors.clients["pending"]
    before = quota(client)

    image = create(client)
    create(client)
    client.http.post(f"{image['self']}/members", json={"member": other.project_id})
    after = quota(client)

    assert before == {
        "image": {"type": "image", "used": 0, "quota": 1000, "min": 1, "max": 1000},
        "image_shared": {"type": "image_shared", "used": 0, "quota": 1000, "min": 1, "max": 1000},
        "image_member": {"type": "image_member", "used": 0, "quota": 256, "min": 1, "max": 1000},
    }
    assert {kind: one["used"] for kind, one in after.items()} == {"image": 2, "image_shared": 1, "image_member": 1}
    assert quota(other)["image"]["used"] == 0  # what others share counts for nothing


def os_versions(client: Client, *tags: str) -> list[dict[str, Any]]:
    answer = client.http.get("/v1/cloudimages/os_version", params=[("tag", tag) for tag in tags])
    held_to_its_description(answer)
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json()
    return told


def test_os_versions_are_told_by_platform(demo: Client) -> None:
    told = os_versions(demo)

    entries = [entry for platform in told for entry in platform["version_list"]]
    assert {entry["os_version"] for entry in entries} == set(table())
    assert all(entry["platform"] == platform["platform"] for platform in told for entry in platform["version_list"])
    assert {
        "platform": "Ubuntu",
        "os_version_key": "Ubuntu 18.04 server 64bit",
        "os_version": "Ubuntu 18.04 server 64bit",
        "os_bit": 64,
        "os_type": "Linux",
    } in entries
    other = next(entry for entry in entries if entry["os_version"] == "Other(32 bit)")
    assert (other["platform"], other["os_type"], other["os_bit"]) == ("Other", "Linux", 32)


def test_several_tags_of_os_versions_must_all_hold(demo: Client) -> None:
    def names(*tags: str) -> set[str]:
        return {entry["os_version"] for platform in os_versions(demo, *tags) for entry in platform["version_list"]}

    uefi = {name for name, entry in table().items() if entry.uefi}

    assert names("uefi") == names("uefi", "x86", "kvm") == uefi
    assert names("x86") == set(table())
    assert names("bms_otc", "uefi") == names("bms", "uefi")
    assert names("arm") == names("arm", "x86") == set()
    refused = demo.http.get("/v1/cloudimages/os_version?tag=toaster")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "IMG.0001")


# --- v1 and v1.1 ------------------------------------------------------------------------------------------------------

DETAIL: Final = "/v1.1/images/detail"


def detail(client: Client, **asked: Any) -> list[dict[str, Any]]:
    answer = client.http.get(DETAIL, params=asked)
    held_to_its_description(answer)
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json()["images"]
    return told


def test_v1_1_tells_an_image_with_all_that_it_does_not_know_as_properties(demo: Client) -> None:
    name = uuid.uuid4().hex
    image = active(demo, name=name, team="blue", __description="nightly")

    (told,) = detail(demo, name=name)

    assert told["id"] == image["id"]
    assert (told["size"], told["checksum"]) == (len(CONTENT), demo.image(image["id"])["checksum"])
    assert (told["is_public"], told["deleted"], told["deleted_at"], told["protected"]) == (False, False, None, False)
    datetime.strptime(told["created_at"], "%Y-%m-%dT%H:%M:%S.%f")  # noqa: DTZ007 - the form has no zone
    assert told["properties"]["team"] == "blue"
    assert told["properties"]["__imagetype"] == "private"
    assert {"tags", "visibility", "schema", "size"} & told["properties"].keys() == set()


def test_v1_1_filters(demo: Client) -> None:
    name = uuid.uuid4().hex
    image = active(demo, name=name, team=name)
    fits = {"name": name, "container_format": "bare", "disk_format": "raw", "status": "active"}

    assert [one["id"] for one in detail(demo, **fits, size_min=1, size_max=10**6)] == [image["id"]]
    assert [one["id"] for one in detail(demo, **{"changes-since": image["updated_at"], "name": name})] == [image["id"]]
    assert [one["id"] for one in detail(demo, **{"property-team": name})] == [image["id"]]
    for misses in ({"status": "queued"}, {"size_min": 10**6}, {"changes-since": "2100-01-01T00:00:00Z"}):
        assert detail(demo, **{"name": name, **misses}) == []
    assert detail(demo, name=name, something="else") != []
    assert demo.http.get(f"{DETAIL}?size_min=x").status_code == 400


def test_v1_tells_an_image_in_headers(demo: Client) -> None:
    spaced: dict[str, Any] = {"with space": "x"}
    image = active(demo, name="日本 web", team="blue", odd="a\r\nX-Injected: yes", **spaced)

    answer = demo.http.head(f"/v1/images/{image['id']}")

    assert answer.status_code == 200
    assert answer.content == b""
    headers = answer.headers
    assert headers["content-type"].lower() == "text/html; charset=utf-8"
    assert headers["etag"] == headers["x-image-meta-checksum"] == demo.image(image["id"])["checksum"]
    assert headers["x-image-meta-id"] == image["id"]
    assert dict(headers.raw)[b"x-image-meta-name"].decode() == "日本 web"
    assert (headers["x-image-meta-is_public"], headers["x-image-meta-deleted"]) == ("False", "False")
    assert (headers["x-image-meta-size"], headers["x-image-meta-status"]) == (str(len(CONTENT)), "active")
    assert headers["x-image-meta-property-team"] == "blue"
    assert headers["x-image-meta-property-with%20space"] == "x"
    assert "x-injected" not in headers
    assert demo.http.head(f"/v1/images/{uuid.UUID(int=1)}").status_code == 404


def test_headers_of_an_image_stay_within_bounds(demo: Client) -> None:
    large: dict[str, Any] = {f"large-{n}": "x" * 60_000 for n in range(3)}
    image = create(demo, **large)

    answer = demo.http.head(f"/v1/images/{image['id']}")

    assert answer.status_code == 200
    assert sum(len(name) + len(value) for name, value in answer.headers.raw) < 32 * 1024


def test_v1_1_deletes(demo: Client, admin: Client) -> None:
    image, protected = create(demo), create(demo, protected=True)
    foreign = create(admin, visibility="private")

    gone = demo.http.delete(f"/v1.1/images/{image['id']}")

    assert (gone.status_code, gone.content) == (204, b"")
    assert demo.http.get(image["self"]).status_code == 404
    assert demo.http.delete(f"/v1.1/images/{image['id']}").status_code == 404
    assert demo.http.delete(f"/v1.1/images/{foreign['id']}").status_code == 404
    refused = demo.http.delete(f"/v1.1/images/{protected['id']}")
    assert refused.status_code == 403
    held_to_its_description(refused)


@pytest.mark.parametrize("path", ["/v1/cloudimages/quota", "/v1/cloudimages/os_version", DETAIL])
def test_a_reader_may_ask_and_nobody_may_not(actors: Actors, path: str) -> None:
    answers: dict[str, httpx.Response] = {actor: actors.call(actor, "GET", path) for actor in ("reader", "nobody")}

    assert {actor: answer.status_code for actor, answer in answers.items()} == {"reader": 200, "nobody": 401}
