"""Images that point at URLs: what may be set, what is told of it, and that their bytes never change unseen."""

import gzip
import hashlib
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Web
from tests.service import Client, Service, until

OCTETS = {"Content-Type": "application/octet-stream"}
V2_1 = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
V2_0 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}


def content(size: int = 1_000_000) -> bytes:
    return (uuid.uuid4().bytes * (size // 16 + 1))[:size]


def offered(web: Web, data: bytes | None = None) -> str:
    return web.put(f"/{uuid.uuid4()}", content() if data is None else data)


def data_at(web: Web, url: str) -> bytes:
    return web.files[url.partition(web.source.place)[2]]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def created(client: Client, **attributes: object) -> str:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **attributes}
    answer = client.http.post("/v2/images", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def patched(client: Client, image_id: str, *operations: dict[str, Any]) -> httpx.Response:
    return client.http.patch(f"/v2/images/{image_id}", json=list(operations), headers=V2_1)


def add(url: str, position: str = "-", **more: Any) -> dict[str, Any]:
    return {"op": "add", "path": f"/locations/{position}", "value": {"url": url, "metadata": {}, **more}}


def located(client: Client, url: str, **attributes: object) -> str:
    """An active image that points at a URL."""
    image_id = created(client, **attributes)
    answer = patched(client, image_id, add(url))
    assert answer.status_code == 200, answer.text
    return image_id


def downloaded(client: Client, image_id: str, **headers: str) -> httpx.Response:
    return client.http.get(f"/v2/images/{image_id}/file", headers=headers)


def claimed(data: bytes, algorithm: str = "sha512") -> dict[str, str]:
    return {"os_hash_algo": algorithm, "os_hash_value": hashlib.new(algorithm, data).hexdigest()}


def task_of(client: Client, image_id: str) -> dict[str, Any]:
    def ended() -> Any:
        tasks = client.http.get(f"/v2/images/{image_id}/tasks").json()["tasks"]
        return tasks and tasks[0]["status"] in ("success", "failure") and tasks[0]

    found: dict[str, Any] = until(ended, "the task to end")
    return found


def posted(client: Client, image_id: str, url: object, **more: object) -> httpx.Response:
    return client.http.post(f"/v2/images/{image_id}/locations", json={"url": url, **more})


# --- what is told -----------------------------------------------------------------------------------------------------


def test_a_queued_image_has_no_locations(owner: Client) -> None:
    assert owner.image(created(owner))["locations"] == []


def test_a_store_is_told_by_an_opaque_url(owner: Client) -> None:
    image_id = created(owner)
    assert owner.http.put(f"/v2/images/{image_id}/file", content=content(), headers=OCTETS).status_code == 204

    image = owner.image(image_id)

    assert image["locations"] == [{"url": f"calotype://local/{image_id}", "metadata": {"store": "local"}}]
    assert image["direct_url"] == f"calotype://local/{image_id}"


def test_only_the_owner_and_admins_are_told_locations(
    owner: Client, operator: Client, several: Service, web: Web
) -> None:
    url = offered(web)
    image_id = located(operator, url, visibility="public")

    seen = owner.image(image_id)

    assert seen["locations"] == []
    assert "direct_url" not in seen
    assert url not in owner.http.get("/v2/images").text
    assert operator.image(image_id)["direct_url"] == url


def test_where_they_are_hidden_locations_are_neither_told_nor_set(demo: Client, web: Web) -> None:
    image_id = created(demo)

    answer = patched(demo, image_id, add(offered(web)))

    assert answer.status_code == 403
    assert "locations" not in demo.image(image_id)
    assert posted(demo, image_id, offered(web)).status_code == 403


def test_the_list_of_locations_is_not_for_users(owner: Client, operator: Client, web: Web) -> None:
    image_id = located(owner, url := offered(web))

    assert owner.http.get(f"/v2/images/{image_id}/locations").status_code == 403
    assert operator.http.get(f"/v2/images/{image_id}/locations").json() == [{"url": url, "metadata": {"store": "web"}}]


# --- setting by patch -------------------------------------------------------------------------------------------------


def test_an_image_that_points_at_a_url_is_active_and_read_from_there(owner: Client, web: Web) -> None:
    url = offered(web)

    image_id = located(owner, url)

    image = owner.image(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", 1_000_000, "web")
    assert (image["checksum"], image["os_hash_algo"], image["os_hash_value"]) == (None, None, None)
    assert image["locations"] == [{"url": url, "metadata": {"store": "web"}}]
    answer = downloaded(owner, image_id)
    assert answer.content == data_at(web, url)
    assert answer.headers["Content-Length"] == "1000000"


def test_bytes_elsewhere_count_nothing_in_the_quota(owner: Client, web: Web) -> None:
    def used() -> Any:
        return owner.http.get("/v2/info/usage").json()["usage"]["image_size_total"]["usage"]

    before = used()

    image_id = located(owner, offered(web, content(3 * 1024 * 1024)))

    assert used() == before
    assert owner.http.delete(f"/v2/images/{image_id}").status_code == 204
    assert used() == before


def test_the_older_form_of_patches_sets_locations_too(owner: Client, web: Web) -> None:
    image_id = created(owner)
    operation = {"add": "/locations/-", "value": {"url": offered(web), "metadata": {"foo": "bar"}}}

    answer = owner.http.patch(f"/v2/images/{image_id}", json=[operation], headers=V2_0)

    assert answer.status_code == 200, answer.text
    assert answer.json()["locations"][0]["metadata"] == {"foo": "bar", "store": "web"}


def test_a_patch_with_a_location_is_done_whole_or_not_at_all(owner: Client, web: Web) -> None:
    image_id = created(owner)

    refused = patched(
        owner, image_id, {"op": "replace", "path": "/name", "value": "new"}, add("gopher://example.test/")
    )
    assert refused.status_code == 400
    assert (owner.image(image_id)["name"], owner.image(image_id)["status"]) == ("disk", "queued")

    done = patched(owner, image_id, {"op": "replace", "path": "/name", "value": "new"}, add(offered(web)))
    assert (done.json()["name"], done.json()["status"]) == ("new", "active")


@pytest.mark.parametrize(
    "url",
    [
        "gopher://info.cern.ch",
        "file:///etc/passwd",
        "calotype://local/00000000-0000-0000-0000-000000000000",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/",
        "http://2130706433/",
        "http://user:secret@example.test/",
        "/etc/passwd",
        "",
        "x" * 5000,
    ],
)
def test_nothing_but_an_allowed_http_url_can_be_set(owner: Client, url: str) -> None:
    image_id = created(owner)

    answers = [patched(owner, image_id, add(url)), posted(owner, image_id, url)]

    assert [answer.status_code for answer in answers] == [400, 400], [answer.text for answer in answers]
    assert "secret" not in answers[0].text
    assert owner.image(image_id)["status"] == "queued"
    assert owner.image(image_id)["locations"] == []


def test_a_url_that_does_not_answer_is_refused(owner: Client, web: Web) -> None:
    image_id = created(owner)

    assert patched(owner, image_id, add(web.source.url("/missing"))).status_code == 400
    assert owner.image(image_id)["status"] == "queued"


def backed_qcow2() -> bytes:
    """The header of a qcow2 whose backing file is /etc/passwd."""
    name = b"/etc/passwd"
    header = b"QFI\xfb" + (2).to_bytes(4, "big") + (512).to_bytes(8, "big") + len(name).to_bytes(4, "big")
    return (header + (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big")).ljust(512, b"\0") + name.ljust(
        65536, b"\0"
    )


@pytest.mark.parametrize("declared", ["raw", "qcow2"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_lies_at_a_url_passes_the_gate(owner: Client, web: Web, declared: str, ranges: bool) -> None:
    url = offered(web, backed_qcow2())
    if not ranges:
        web.without_ranges.add(url.partition(web.source.place)[2])
    image_id = created(owner, disk_format=declared)

    assert patched(owner, image_id, add(url)).status_code == 400
    assert posted(owner, image_id, url).status_code == 202
    assert task_of(owner, image_id)["status"] == "failure"
    assert owner.image(image_id)["status"] == "queued"


@pytest.mark.parametrize("how", ["patch", "job"])
def test_bytes_of_no_disk_format_pass_under_any_and_those_of_another_do_not(
    owner: Client, web: Web, tmp_path: Path, how: str
) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1G"], check=True, timeout=60)

    def becomes(declared: str, data: bytes) -> str:
        image_id = created(owner, disk_format=declared)
        if how == "patch":
            patched(owner, image_id, add(offered(web, data)))
        else:
            posted(owner, image_id, offered(web, data))
            task_of(owner, image_id)
        return str(owner.image(image_id)["status"])

    assert becomes("qcow2", gzip.compress(content())) == "active"
    assert becomes("raw", gzip.compress(content())) == "active"
    assert becomes("raw", disk.read_bytes()) == "queued"
    assert becomes("vmdk", disk.read_bytes()) == "queued"


def test_a_large_source_is_looked_at_only_as_far_as_needed(owner: Client, web: Web) -> None:
    url = offered(web, content(64 * 1024 * 1024))

    image_id = located(owner, url)

    assert owner.image(image_id)["size"] == 64 * 1024 * 1024


def test_a_large_source_without_ranges_is_refused(owner: Client, web: Web) -> None:
    url = offered(web, content(64 * 1024 * 1024))
    web.without_ranges.add(url.partition(web.source.place)[2])
    image_id = created(owner)

    answer = patched(owner, image_id, add(url))

    assert answer.status_code == 400
    assert "ranges" in answer.text


@pytest.mark.parametrize("missing", ["disk_format", "container_format"])
def test_formats_are_wanted_before_a_location(owner: Client, web: Web, missing: str) -> None:
    image_id = created(owner, **{missing: None})

    assert patched(owner, image_id, add(offered(web))).status_code == 400
    assert posted(owner, image_id, offered(web)).status_code == 400


def test_min_disk_must_hold_what_lies_at_the_url(owner: Client, web: Web, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "2G"], check=True, timeout=60)
    url = offered(web, disk.read_bytes())
    small, large = (created(owner, disk_format="qcow2", min_disk=n) for n in (1, 2))

    assert patched(owner, small, add(url)).status_code == 400
    assert patched(owner, large, add(url)).status_code == 200
    assert owner.image(large)["virtual_size"] == 2 * 1024**3


@pytest.mark.parametrize(
    "value",
    [
        None,
        "http://example.test/",
        [],
        {},
        {"url": 5, "metadata": {}},
        {"url": "http://example.test/"},
        {"metadata": {}},
        {"url": "http://example.test/", "metadata": []},
        {"url": "http://example.test/", "metadata": {"store": "local"}},
        {"url": "http://example.test/", "metadata": {"store": 5}},
        {"url": "http://example.test/", "metadata": {}, "more": 1},
        {"url": "http://example.test/", "metadata": {"long": "x" * 5000}},
        {"url": "http://example.test/", "metadata": {}, "validation_data": 5},
        {"url": "http://example.test/", "metadata": {}, "validation_data": {}},
        {"url": "http://example.test/", "metadata": {}, "validation_data": {"os_hash_algo": "sha512"}},
        {
            "url": "http://example.test/",
            "metadata": {},
            "validation_data": {"os_hash_algo": "sha512", "os_hash_value": 5},
        },
    ],
)
@pytest.mark.parametrize("op", ["add", "replace"])
def test_malformed_locations_are_refused(owner: Client, web: Web, value: Any, op: str) -> None:
    image_id = created(owner)
    if isinstance(value, dict) and isinstance(value.get("url"), str):
        value = {**value, "url": offered(web)}
    path, value = ("/locations/-", value) if op == "add" else ("/locations", [value])

    assert patched(owner, image_id, {"op": op, "path": path, "value": value}).status_code == 400
    assert owner.image(image_id)["locations"] == []


@pytest.mark.parametrize(
    ("op", "path", "status"),
    [
        ("add", "/locations", 400),
        ("add", "/locations/7", 400),
        ("add", "/locations/-1", 400),
        ("add", "/locations/x", 400),
        ("add", "/locations/0/url", 400),
        ("replace", "/locations/0", 400),
        ("replace", "/locations/-", 400),
    ],
)
def test_paths_of_no_location_are_refused(owner: Client, web: Web, op: str, path: str, status: int) -> None:
    image_id = located(owner, offered(web))
    value: Any = {"url": offered(web), "metadata": {}}

    answer = patched(owner, image_id, {"op": op, "path": path, "value": value if op == "add" else [value]})

    assert answer.status_code == status
    assert len(owner.image(image_id)["locations"]) == 1


def test_locations_are_ordered(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)

    assert patched(owner, image_id, add(f"{url}#second")).status_code == 200
    assert patched(owner, image_id, add(f"{url}#first", "0")).status_code == 200

    assert [place["url"] for place in owner.image(image_id)["locations"]] == [f"{url}#first", url, f"{url}#second"]


def test_the_same_location_twice_is_refused(owner: Client, web: Web) -> None:
    image_id = located(owner, url := offered(web))

    assert patched(owner, image_id, add(url)).status_code == 400
    assert len(owner.image(image_id)["locations"]) == 1


def test_a_location_of_another_size_is_a_conflict(owner: Client, web: Web) -> None:
    image_id = located(owner, offered(web))

    assert patched(owner, image_id, add(offered(web, content(999_999)))).status_code == 409


def test_an_image_that_a_store_holds_cannot_point_elsewhere(owner: Client, web: Web) -> None:
    data = content()
    image_id = created(owner)
    assert owner.http.put(f"/v2/images/{image_id}/file", content=data, headers=OCTETS).status_code == 204

    assert patched(owner, image_id, add(offered(web, content()), "0")).status_code == 409
    assert downloaded(owner, image_id).content == data


def test_metadata_can_be_replaced_and_nothing_else(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)
    assert patched(owner, image_id, add(f"{url}#second")).status_code == 200
    places = owner.image(image_id)["locations"]

    def replaced(value: Any) -> int:
        return patched(owner, image_id, {"op": "replace", "path": "/locations", "value": value}).status_code

    assert replaced(places) == 200
    places[0]["metadata"]["date"] = "2015-10-15"
    assert replaced(places) == 200
    assert replaced(places[:1]) == 400
    assert replaced([places[0], {**places[1], "url": f"{url}#third"}]) == 400
    assert replaced(list(reversed(places))) == 400
    assert replaced([]) == 403
    assert owner.image(image_id)["locations"] == places


def test_only_an_admin_removes_a_location_and_never_the_last(owner: Client, operator: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)
    assert patched(owner, image_id, add(f"{url}#second")).status_code == 200
    removing = {"op": "remove", "path": "/locations/0"}

    assert patched(owner, image_id, removing).status_code == 403
    assert patched(operator, image_id, {**removing, "path": "/locations/2"}).status_code == 400
    assert patched(operator, image_id, removing).status_code == 200
    assert [place["url"] for place in owner.image(image_id)["locations"]] == [f"{url}#second"]
    assert owner.image(image_id)["direct_url"] == f"{url}#second"
    assert patched(operator, image_id, removing).status_code == 403


def test_no_one_else_sets_a_location(owner: Client, operator: Client, web: Web) -> None:
    private, public = created(operator), created(operator, visibility="public")
    url = offered(web)
    path = url.partition(web.source.place)[2]

    assert patched(owner, private, add(url)).status_code == 404
    assert patched(owner, public, add(url)).status_code == 403
    assert posted(owner, private, url).status_code == 404
    assert posted(owner, public, url).status_code == 403
    assert web.asked_for(path) == 0


def test_digests_that_the_owner_gives_become_the_images(owner: Client, web: Web) -> None:
    data = content()
    image_id = created(owner)
    claim = {**claimed(data), "checksum": md5(data)}

    assert patched(owner, image_id, add(offered(web, data), validation_data=claim)).status_code == 200

    image = owner.image(image_id)
    assert {name: image[name] for name in claim} == claim
    assert image["locations"][0].keys() == {"url", "metadata"}
    assert downloaded(owner, image_id).content == data
    assert patched(owner, image_id, add(offered(web, data), validation_data=claim)).status_code == 200
    for name, value in {"checksum": "2" * 32, "os_hash_value": "beef" * 32, "os_hash_algo": "sha256"}.items():
        other = add(offered(web, data), validation_data={**claim, name: value})
        assert patched(owner, image_id, other).status_code == 409


@pytest.mark.parametrize(
    "claim",
    [
        {"os_hash_algo": "sha256", "os_hash_value": "ab" * 32},  # not the algorithm of the service
        {"os_hash_algo": "sha512", "os_hash_value": "ab" * 32},
        {"os_hash_algo": "sha512", "os_hash_value": "xy" * 64},
        {"os_hash_algo": "sha512", "os_hash_value": "ab" * 64, "checksum": "1"},
    ],
)
def test_digests_of_a_wrong_form_are_a_conflict(owner: Client, web: Web, claim: dict[str, str]) -> None:
    image_id = created(owner)

    assert patched(owner, image_id, add(offered(web), validation_data=claim)).status_code == 409
    assert owner.image(image_id)["status"] == "queued"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_ranges_are_passed_through(owner: Client, web: Web) -> None:
    data = content()
    image_id = located(owner, offered(web, data))

    answer = downloaded(owner, image_id, Range="bytes=500000-500009")

    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == "bytes 500000-500009/1000000"
    assert answer.content == data[500_000:500_010]
    assert downloaded(owner, image_id, Range="bytes=1000000-").status_code == 416
    assert downloaded(owner, image_id, Range="bytes=-5").content == data[-5:]


def test_ranges_work_where_the_source_knows_none(owner: Client, web: Web) -> None:
    url = offered(web)
    web.without_ranges.add(url.partition(web.source.place)[2])
    image_id = located(owner, url)

    assert downloaded(owner, image_id, Range="bytes=999990-").content == data_at(web, url)[-10:]


def test_head_tells_the_size_without_asking_the_source(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)
    before = web.asked_for(url.partition(web.source.place)[2])

    answer = owner.http.head(f"/v2/images/{image_id}/file")

    assert answer.headers["Content-Length"] == "1000000"
    assert web.asked_for(url.partition(web.source.place)[2]) == before


def replaced(web: Web, url: str, data: bytes) -> None:
    web.files[url.partition(web.source.place)[2]] = data


@pytest.mark.parametrize("how", ["claimed", "read before", "imported"])
def test_other_bytes_of_the_same_length_are_never_given_out_whole(owner: Client, web: Web, how: str) -> None:
    data, other = content(), content()
    url = offered(web, data)
    image_id = created(owner)
    if how == "imported":
        assert posted(owner, image_id, url).status_code == 202
        assert task_of(owner, image_id)["status"] == "success"
    else:
        claim: dict[str, Any] = {"validation_data": claimed(data)} if how == "claimed" else {}
        assert patched(owner, image_id, add(url, **claim)).status_code == 200
    if how == "read before":
        assert downloaded(owner, image_id).content == data

    replaced(web, url, other)

    with pytest.raises(httpx.RemoteProtocolError):
        downloaded(owner, image_id)


def test_a_source_of_another_length_is_not_read(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)

    replaced(web, url, content(500))

    assert downloaded(owner, image_id).status_code == 503


def test_the_next_location_is_read_when_one_is_gone(owner: Client, web: Web) -> None:
    data = content()
    first, second = offered(web, data), offered(web, data)
    image_id = located(owner, first)
    assert patched(owner, image_id, add(second)).status_code == 200

    del web.files[first.partition(web.source.place)[2]]

    assert downloaded(owner, image_id).content == data


def test_a_source_that_is_gone_is_no_fault_of_the_client(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)

    del web.files[url.partition(web.source.place)[2]]

    assert downloaded(owner, image_id).status_code == 503


def test_no_byte_is_fetched_for_one_who_may_not_read(owner: Client, operator: Client, web: Web) -> None:
    url = offered(web)
    path = url.partition(web.source.place)[2]
    image_id = located(operator, url, visibility="public")
    assert operator.http.post(f"/v2/images/{image_id}/actions/deactivate").status_code == 204
    before = web.asked_for(path)

    assert downloaded(owner, image_id).status_code == 403
    assert web.asked_for(path) == before


def test_copies_and_exports_of_bytes_elsewhere_are_refused(owner: Client, web: Web) -> None:
    image_id = located(owner, offered(web))
    owner.http.put("/calotype/v1/buckets/exports")

    exporting = owner.http.post(
        f"/v1/cloudimages/{image_id}/file", json={"bucket_url": "exports:disk.qcow2", "file_format": "qcow2"}
    )
    copying = owner.http.post(f"/v1/cloudimages/{image_id}/copy", json={"name": "copy"})

    assert [answer.json()["error"]["code"] for answer in (exporting, copying)] == ["IMG.0046", "IMG.0046"]


def test_deleting_the_image_leaves_the_source_alone(owner: Client, web: Web) -> None:
    url = offered(web)
    image_id = located(owner, url)

    assert owner.http.delete(f"/v2/images/{image_id}").status_code == 204

    assert downloaded(owner, image_id).status_code == 404
    assert data_at(web, url)


# --- the import of a location -----------------------------------------------------------------------------------------


def test_an_imported_location_is_read_whole_before_the_image_is_active(
    several: Service, owner: Client, web: Web
) -> None:
    data = content()
    image_id = created(owner)
    files = several.files()

    answer = posted(owner, image_id, url := offered(web, data))

    assert (answer.status_code, answer.content) == (202, b"")
    task = task_of(owner, image_id)
    assert (task["type"], task["status"]) == ("location_import", "success")
    image = owner.image(image_id)
    assert (image["status"], image["stores"], image["size"]) == ("active", "web", len(data))
    assert image["checksum"] == md5(data)
    assert {name: image[name] for name in claimed(data)} == claimed(data)
    assert image["locations"] == [{"url": url, "metadata": {"store": "web"}}]
    assert downloaded(owner, image_id).content == data
    until(lambda: several.files() <= files, "the scratch folder to go")


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_the_digest_that_the_owner_gives_is_compared(owner: Client, web: Web, algorithm: str) -> None:
    data = content()
    image_id = created(owner)

    assert posted(owner, image_id, offered(web, data), validation_data=claimed(data, algorithm)).status_code == 202

    assert task_of(owner, image_id)["status"] == "success"
    assert owner.image(image_id)["os_hash_algo"] == algorithm
    assert downloaded(owner, image_id).content == data


def test_a_wrong_digest_leaves_the_image_queued_with_its_location_listed(owner: Client, web: Web) -> None:
    image_id = created(owner)

    assert posted(owner, image_id, offered(web), validation_data=claimed(b"other")).status_code == 202

    assert task_of(owner, image_id)["status"] == "failure"
    image = owner.image(image_id)
    assert (image["status"], image["stores"], image["checksum"]) == ("queued", "web", None)
    assert (image["os_hash_algo"], image["os_hash_value"]) == (None, None)
    assert downloaded(owner, image_id).status_code == 204
    assert patched(owner, image_id, add(good := offered(web))).status_code == 200
    assert [place["url"] for place in owner.image(image_id)["locations"]] == [good]


@pytest.mark.parametrize(
    "claim",
    [
        5,
        [],
        {"os_hash_algo": "sha512"},
        {"os_hash_value": "ab" * 64},
        {"os_hash_algo": "sha512", "os_hash_value": "dbc9e0f80d131e64b94913a7b40bb5"},
        {"os_hash_algo": "sha512", "os_hash_value": "ab" * 32},
        {"os_hash_algo": "sha512", "os_hash_value": "xy" * 64},
        {"os_hash_algo": "sha123", "os_hash_value": "ab" * 64},
        {"os_hash_algo": "sha512", "os_hash_value": "ab" * 64, "checksum": "ab" * 16},
    ],
)
def test_validation_data_of_a_wrong_form_is_refused_at_once(owner: Client, web: Web, claim: object) -> None:
    image_id = created(owner)

    assert posted(owner, image_id, offered(web), validation_data=claim).status_code == 400
    assert owner.image(image_id)["status"] == "queued"


@pytest.mark.parametrize("body", [{}, {"url": None}, {"url": "http://example.test/", "more": 1}])
def test_a_location_of_a_wrong_form_is_refused_at_once(owner: Client, body: dict[str, Any]) -> None:
    answer = owner.http.post(f"/v2/images/{created(owner)}/locations", json=body)

    assert answer.status_code == 400


def test_a_location_is_imported_only_into_a_queued_image(owner: Client, web: Web) -> None:
    assert posted(owner, located(owner, offered(web)), offered(web)).status_code == 409


def test_the_query_of_a_url_is_not_told_by_its_task(owner: Client, web: Web) -> None:
    image_id = created(owner)
    data = content()
    url = web.put(f"/{uuid.uuid4()}?signature=secret", data)

    assert posted(owner, image_id, url).status_code == 202

    task_of(owner, image_id)
    assert "secret" not in owner.http.get(f"/v2/images/{image_id}/tasks").text
    assert downloaded(owner, image_id).content == data


def test_an_image_can_be_deleted_while_its_location_is_imported(owner: Client, web: Web) -> None:
    image_id = created(owner)
    assert posted(owner, image_id, offered(web, content(20_000_000))).status_code == 202

    assert owner.http.delete(f"/v2/images/{image_id}").status_code == 204

    assert owner.http.get(f"/v2/images/{image_id}").status_code == 404


def test_an_import_outlives_the_worker(make_service: Callable[..., Service], web: Web) -> None:
    service = make_service(
        environment={"CALOTYPE_IMAGEV2_LOCATIONS": "set", "CALOTYPE_FETCH_ALLOW": web.source.place},
    )
    config = service.data_dir.parent / "calotype.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[stores.web]\ntype = "http"\n')
    service.environment["CALOTYPE_CONFIG"] = str(config)
    service.start()
    with service.demo() as client:
        image_id = created(client)
        assert posted(client, image_id, offered(web, data := content(30_000_000))).status_code == 202

        service.kill_worker()

        assert task_of(client, image_id)["status"] == "success"
        assert client.image(image_id)["checksum"] == md5(data)
