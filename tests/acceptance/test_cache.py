"""The cache of a node: of images that stores hold an entry, of images that lie at a URL a checked copy."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Web, store_configuration
from tests.acceptance.test_locations import OCTETS, add, content, created, downloaded, located, offered, patched
from tests.service import Client, Service, until


def state(admin: Client) -> dict[str, Any]:
    answer = admin.http.get("/v2/cache")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def entry(admin: Client, image_id: str) -> dict[str, Any] | None:
    return next((one for one in state(admin)["cached_images"] if one["image_id"] == image_id), None)


def cached(admin: Client, image_id: str) -> dict[str, Any]:
    """The entry of an image, once it is cached."""
    assert admin.http.put(f"/v2/cache/{image_id}").status_code == 202
    found: dict[str, Any] = until(lambda: entry(admin, image_id), "the image to be cached")
    return found


def uploaded(client: Client, data: bytes | None = None) -> str:
    image_id = created(client)
    answer = client.http.put(f"/v2/images/{image_id}/file", content=data or content(), headers=OCTETS)
    assert answer.status_code == 204, answer.text
    return image_id


def path_of(web: Web, url: str) -> str:
    return url.partition(web.source.place)[2]


def cache_files(service: Service) -> set[Path]:
    return {path for path in (service.data_dir / "cache").rglob("*-*") if path.is_file()}


def told(service: Service, event: str, image_id: str) -> bool:
    return any(event in line and image_id in line for line in service.log.read_text().splitlines())


def test_an_image_that_a_store_holds_is_cached_at_once(several: Service, owner: Client, operator: Client) -> None:
    image_id = uploaded(owner)

    assert operator.http.put(f"/v2/cache/{image_id}").status_code == 202

    found = entry(operator, image_id)
    assert found is not None
    assert (found["size"], found["hits"]) == (1_000_000, 0)
    assert found["checksum"] == owner.image(image_id)["checksum"]
    assert not any(image_id in path.name for path in cache_files(several))


def test_an_image_that_lies_elsewhere_is_read_from_the_nodes_copy(
    several: Service, owner: Client, operator: Client, web: Web
) -> None:
    url = offered(web)
    image_id = located(owner, url)
    data = web.files[path_of(web, url)]

    cached(operator, image_id)
    del web.files[path_of(web, url)]

    assert downloaded(owner, image_id).content == data
    assert downloaded(owner, image_id, Range="bytes=10-19").content == data[10:20]
    assert any(image_id in path.name for path in cache_files(several))


def test_hits_are_counted(owner: Client, operator: Client, web: Web) -> None:
    image_id = located(owner, offered(web))
    before = cached(operator, image_id)

    for _ in range(3):
        downloaded(owner, image_id)

    after = entry(operator, image_id)
    assert after is not None
    assert after["hits"] == 3
    assert after["last_accessed"] > before["last_accessed"]


def test_no_byte_leaves_the_cache_for_one_who_may_not_read(owner: Client, operator: Client, web: Web) -> None:
    hidden, withheld = located(operator, offered(web)), located(operator, offered(web), visibility="public")
    for image_id in (hidden, withheld):
        cached(operator, image_id)
    assert operator.http.post(f"/v2/images/{withheld}/actions/deactivate").status_code == 204

    assert downloaded(owner, hidden).status_code == 404
    assert downloaded(owner, withheld).status_code == 403


def test_other_bytes_than_were_read_first_are_not_cached(
    several: Service, owner: Client, operator: Client, web: Web
) -> None:
    url = offered(web)
    image_id = located(owner, url)
    assert downloaded(owner, image_id).status_code == 200

    web.files[path_of(web, url)] = content()
    assert operator.http.put(f"/v2/cache/{image_id}").status_code == 202
    until(lambda: told(several, "image_not_cached", image_id), "the node to refuse what it fetched")

    assert image_id in state(operator)["queued_images"]
    with pytest.raises(httpx.RemoteProtocolError):
        downloaded(owner, image_id)


def test_a_copy_is_fetched_from_the_next_location_when_one_has_other_bytes(
    owner: Client, operator: Client, web: Web
) -> None:
    first, second = offered(web, data := content()), offered(web, data)
    image_id = located(owner, first)
    assert patched(owner, image_id, add(second)).status_code == 200
    assert downloaded(owner, image_id).content == data

    web.files[path_of(web, first)] = content()
    cached(operator, image_id)

    assert downloaded(owner, image_id).content == data


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/cache"),
        ("DELETE", "/v2/cache"),
        ("PUT", "/v2/cache/{}"),
        ("DELETE", "/v2/cache/{}"),
        ("GET", "/v2/cache/nodes/{}"),
        ("POST", "/v2/cache/clean"),
        ("POST", "/v2/cache/prune"),
    ],
)
def test_the_cache_is_for_admins(owner: Client, method: str, path: str) -> None:
    image_id = uploaded(owner)

    assert owner.http.request(method, path.format(image_id)).status_code == 403


def test_only_an_active_image_is_cached(owner: Client, operator: Client) -> None:
    assert operator.http.put(f"/v2/cache/{created(owner)}").status_code == 400
    assert operator.http.put(f"/v2/cache/{uuid.uuid4()}").status_code == 404
    assert operator.http.put("/v2/cache/no-image").status_code == 404


def test_an_image_is_removed_from_the_cache(several: Service, owner: Client, operator: Client, web: Web) -> None:
    image_id = located(owner, offered(web))
    cached(operator, image_id)

    assert operator.http.delete(f"/v2/cache/{image_id}").status_code == 204

    assert entry(operator, image_id) is None
    assert not any(image_id in path.name for path in cache_files(several))
    assert operator.http.delete(f"/v2/cache/{image_id}").status_code == 204  # there is the image still
    assert operator.http.delete(f"/v2/cache/{uuid.uuid4()}").status_code == 404


def test_nodes_that_have_an_image_are_told(several: Service, owner: Client, operator: Client) -> None:
    image_id = uploaded(owner)
    assert operator.http.get(f"/v2/cache/nodes/{image_id}").json() == []

    cached(operator, image_id)

    assert operator.http.get(f"/v2/cache/nodes/{image_id}").json() == [several.url]
    assert operator.http.get(f"/v2/cache/nodes/{uuid.uuid4()}").status_code == 404


def test_entries_of_deleted_images_vanish(several: Service, owner: Client, operator: Client, web: Web) -> None:
    image_id = located(owner, offered(web))
    cached(operator, image_id)

    assert owner.http.delete(f"/v2/images/{image_id}").status_code == 204

    assert entry(operator, image_id) is None
    assert operator.http.post("/v2/cache/clean").status_code == 200
    assert not any(image_id in path.name for path in cache_files(several))


def test_a_file_that_is_lost_is_fetched_again(several: Service, owner: Client, operator: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)
    cached(operator, image_id)
    for path in cache_files(several):
        if path.name == image_id:
            path.unlink()

    assert downloaded(owner, image_id).content == web.files[path_of(web, url)]
    assert operator.http.post("/v2/cache/clean").status_code == 200

    until(lambda: any(path.name == image_id for path in cache_files(several)), "the file to be there again")


@pytest.fixture
def small(make_service: Callable[..., Service], tmp_path: Path, web: Web) -> Service:
    """With a cache of 2,500,000 bytes."""
    config = tmp_path / "calotype.toml"
    config.write_text(store_configuration(tmp_path, "set"))
    return make_service(
        environment={
            "CALOTYPE_CONFIG": str(config),
            "CALOTYPE_FETCH_ALLOW": web.source.place,
            "CALOTYPE_IMAGEV2_CACHE_BYTES": "2500000",
        }
    ).start()


def test_what_was_read_least_recently_makes_room(small: Service, web: Web) -> None:
    with small.demo() as owner, small.admin() as operator:
        first, second, third = (located(owner, offered(web)) for _ in range(3))
        cached(operator, first)
        cached(operator, second)
        assert downloaded(owner, first).status_code == 200

        cached(operator, third)

        assert {path.name for path in cache_files(small)} == {first, third}
        assert entry(operator, second) is None
        assert operator.http.post("/v2/cache/prune").json() == {"total_files_pruned": 0, "total_bytes_pruned": 0}
        assert operator.http.put(f"/v2/cache/{located(owner, offered(web, content(2_500_001)))}").status_code == 400

        small.stop()
        small.environment["CALOTYPE_IMAGEV2_CACHE_BYTES"] = "1500000"
        small.start()

        assert operator.http.post("/v2/cache/prune").json() == {
            "total_files_pruned": 1,
            "total_bytes_pruned": 1_000_000,
        }
        assert {path.name for path in cache_files(small)} == {third}


def test_entries_and_files_outlive_the_service(small: Service, web: Web) -> None:
    with small.demo() as owner, small.admin() as operator:
        url = offered(web)
        image_id = located(owner, url)
        data = web.files[path_of(web, url)]
        cached(operator, image_id)
        downloaded(owner, image_id)

        small.stop()
        del web.files[path_of(web, url)]
        small.start()

        found = entry(operator, image_id)
        assert found is not None
        assert found["hits"] == 1
        assert downloaded(owner, image_id).content == data


@pytest.mark.parametrize("target", ["", "cache", "queue"])
def test_the_cache_is_cleared_as_asked(small: Service, web: Web, target: str) -> None:
    with small.demo() as owner, small.admin() as operator:
        held, elsewhere, waiting = uploaded(owner), located(owner, offered(web)), located(owner, gone := offered(web))
        cached(operator, elsewhere)
        cached(operator, held)
        del web.files[path_of(web, gone)]
        assert operator.http.put(f"/v2/cache/{waiting}").status_code == 202

        answer = operator.http.delete("/v2/cache", headers={"x-image-cache-clear-target": target})

        assert answer.status_code == 204
        left = state(operator)
        assert {one["image_id"] for one in left["cached_images"]} == ({held, elsewhere} if target == "queue" else set())
        assert left["queued_images"] == ([waiting] if target == "cache" else [])
        assert {path.name for path in cache_files(small)} == ({elsewhere} if target == "queue" else set())


def test_no_other_target_can_be_cleared(operator: Client) -> None:
    answer = operator.http.delete("/v2/cache", headers={"x-image-cache-clear-target": "invalid"})

    assert answer.status_code == 400
