"""The Image API v2 over HTTP against the running service: what each call answers, to whom, and on bad input."""

import contextlib
import hashlib
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.actors import Actors
from tests.service import Client, Service, until

OCTETS: Final = {"Content-Type": "application/octet-stream"}
PATCH: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
UNKNOWN: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"
CONTENT: Final = b"bytes of a raw disk " * 500


def name() -> str:
    return f"imagev2-{uuid.uuid4().hex[:12]}"


def create(client: Client, **fields: Any) -> dict[str, Any]:
    body = {"name": name(), "disk_format": "raw", "container_format": "bare", **fields}
    answer = client.http.post("/v2/images", json=body)
    assert answer.status_code == 201, answer.text
    image: dict[str, Any] = answer.json()
    return image


def upload(client: Client, image: dict[str, Any], content: bytes = CONTENT, **headers: str) -> httpx.Response:
    return client.http.put(image["file"], content=content, headers={**OCTETS, **headers})


def active(client: Client, content: bytes = CONTENT, **fields: Any) -> dict[str, Any]:
    image = create(client, **fields)
    answer = upload(client, image, content)
    assert answer.status_code == 204, answer.text
    return client.image(image["id"])


def change(client: Client, image: dict[str, Any], *operations: Any) -> httpx.Response:
    return client.http.patch(image["self"], content=json.dumps(list(operations)), headers=PATCH)


def told(answer: httpx.Response) -> str:
    """The text of an error, in the form of the Image API."""
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    assert error["title"]
    return str(error["message"])


# --- finding the way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/", 300), ("/versions", 200), ("/v2", 300), ("/v2/", 300)])
def test_versions_are_told_without_a_token(service: Service, path: str, status: int) -> None:
    answer = httpx.get(service.url + path)

    assert answer.status_code == status
    versions = answer.json()["versions"]
    assert [version["id"] for version in versions if version["status"] == "CURRENT"] == ["v2.18"]
    assert [version["id"] for version in versions] == [f"v2.{minor}" for minor in range(18, -1, -1)]
    assert {link["href"] for version in versions for link in version["links"]} == {f"{service.url}/v2/"}


def test_one_version_is_told_alone(service: Service) -> None:
    assert [one["id"] for one in httpx.get(f"{service.url}/v2.3/").json()["versions"]] == ["v2.3"]
    assert httpx.get(f"{service.url}/v3.0").status_code == 404


@pytest.mark.parametrize("schema", ["image", "images", "member", "members"])
def test_schemas_name_what_they_describe(demo: Client, schema: str) -> None:
    shown = demo.http.get(f"/v2/schemas/{schema}").json()

    assert shown["name"] == schema
    assert shown["properties"]


def test_a_shown_image_is_as_the_schema_says(demo: Client) -> None:
    schema = demo.http.get("/v2/schemas/image").json()
    kinds = {"string": str, "integer": int, "boolean": bool, "null": type(None), "array": list}

    for image in (create(demo, key="value"), active(demo)):
        for attribute, value in image.items():
            described = schema["properties"].get(attribute, schema["additionalProperties"])
            wanted = described["type"] if isinstance(described["type"], list) else [described["type"]]
            assert type(value) in [kinds[kind] for kind in wanted], attribute
            assert value in described.get("enum", [value]), attribute


# --- images -----------------------------------------------------------------------------------------------------------


def test_a_new_image_is_queued_and_upstreams_defaults_hold(demo: Client) -> None:
    answer = demo.http.post("/v2/images", json={})
    image = answer.json()

    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{demo.service.url}/v2/images/{image['id']}"
    assert (image["status"], image["visibility"], image["protected"], image["os_hidden"]) == (
        "queued",
        "shared",
        False,
        False,
    )
    for attribute in ("name", "disk_format", "container_format", "size", "checksum", "os_hash_value", "virtual_size"):
        assert image[attribute] is None, attribute
    assert image["__os_version"] == "Other Linux(64 bit)"
    assert image["owner"] == demo.project_id
    assert demo.image(image["id"]) == image


def test_an_image_keeps_everything_that_it_was_created_with(demo: Client) -> None:
    chosen = str(uuid.uuid4())
    given = {
        "id": chosen,
        "name": "name with ü and blanks",
        "visibility": "private",
        "protected": False,
        "os_hidden": True,
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": 3,
        "min_ram": 512,
        "tags": ["a", "k=v"],
        "owner_specified.openstack.md5": "",
        "max_ram": "1024",
        "__os_version": "Windows 10 64bit",
    }

    image = create(demo, **given)

    assert {attribute: image[attribute] for attribute in given} == given
    assert image["__platform"] == "Windows"


def test_a_chosen_id_is_used_once(demo: Client) -> None:
    image = create(demo)

    again = demo.http.post("/v2/images", json={"id": image["id"]})
    demo.http.delete(image["self"])
    after = demo.http.post("/v2/images", json={"id": image["id"]})

    assert (again.status_code, after.status_code) == (409, 409)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("", 400),
        ("[]", 400),
        ('"x"', 400),
        ('{"a":' * 100 + "1" + "}" * 100, 400),
        ('{"name": 5}', 400),
        (json.dumps({"name": "x" * 256}), 400),
        ('{"name": "\\u0000"}', 400),
        ('{"id": "x"}', 400),
        ('{"min_disk": -1}', 400),
        ('{"min_ram": "5"}', 400),
        ('{"min_ram": 1e400}', 400),
        ('{"protected": "true"}', 400),
        ('{"visibility": "secret"}', 400),
        ('{"disk_format": "exe"}', 400),
        ('{"container_format": 5}', 400),
        ('{"tags": "a"}', 400),
        ('{"tags": [5]}', 400),
        pytest.param(json.dumps({"tags": [str(n) for n in range(129)]}), 400, id="too many tags"),
        ('{"key": {"nested": 1}}', 400),
        ('{"key": null}', 400),
        ('{"": "x"}', 400),
        (json.dumps({f"key{n}": "" for n in range(129)}), 400),
        ('{"__os_version": "Plan 9"}', 400),
        ('{"hw_firmware_type": "efi"}', 400),
        ('{"status": "active"}', 403),
        ('{"checksum": "x"}', 403),
        ('{"size": 5}', 403),
        ('{"created_at": "2026-01-02T03:04:05Z"}', 403),
        ('{"locations": []}', 403),
        ('{"self": "/"}', 403),
        ('{"__os_type": "Linux"}', 403),
        ('{"__whatever": "x"}', 403),
        ('{"visibility": "public"}', 403),
        ('{"owner": "00000000000000000000000000000000"}', 403),
    ],
)
def test_an_image_that_cannot_be_is_refused(demo: Client, body: str, status: int) -> None:
    before = demo.http.get("/v2/images?limit=1000").json()["images"]

    answer = demo.http.post("/v2/images", content=body)

    assert answer.status_code == status, answer.text
    assert told(answer)
    assert demo.http.get("/v2/images?limit=1000").json()["images"] == before


def test_an_admin_creates_for_another_project_and_in_public(demo: Client, admin: Client) -> None:
    image = create(admin, owner=demo.project_id, visibility="public")

    assert demo.image(image["id"])["__imagetype"] == "gold"
    assert admin.http.delete(image["self"]).status_code == 204


def test_absent_foreign_and_malformed_ids_are_told_alike(demo: Client, admin: Client) -> None:
    foreign = create(admin, visibility="private")["id"]

    for image_id in (foreign, UNKNOWN, "some-name", "x" * 300, "%00", "%2e%2e%2fetc"):
        path = f"/v2/images/{image_id}"
        for method, below in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("HEAD", "/file"), ("GET", "/members")):
            assert demo.http.request(method, path + below).status_code == 404, (method, path + below)
    for image_id in (foreign, UNKNOWN):
        assert told(demo.http.get(f"/v2/images/{image_id}")) == f"no image {image_id}"


def test_a_patch_changes_what_it_says(demo: Client) -> None:
    image = create(demo, a="1", b="2")

    answer = change(
        demo,
        image,
        {"op": "replace", "path": "/name", "value": "renamed"},
        {"op": "add", "path": "/c~1d", "value": "3"},
        {"op": "replace", "path": "/a", "value": ""},
        {"op": "remove", "path": "/b"},
        {"op": "add", "path": "/tags", "value": ["x"]},
    )

    changed = answer.json()
    assert answer.status_code == 200
    assert (changed["name"], changed["c/d"], changed["a"], changed["tags"]) == ("renamed", "3", "", ["x"])
    assert "b" not in changed
    assert demo.image(image["id"]) == changed


def test_a_patch_is_done_whole_or_not_at_all(demo: Client) -> None:
    image = create(demo)

    answer = change(demo, image, {"op": "replace", "path": "/name", "value": "x"}, {"op": "remove", "path": "/absent"})

    assert answer.status_code == 409
    assert demo.image(image["id"]) == image


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/openstack-images-v2.1-json-patch; charset=utf-8", "[]", 200),
        ("application/openstack-images-v2.0-json-patch", '[{"replace": "/name", "value": "x"}]', 200),
        ("application/json", "[]", 415),
        ("application/json-patch+json", "[]", 415),
        ("", "[]", 415),
        (PATCH["Content-Type"], "{}", 400),
        (PATCH["Content-Type"], "", 400),
        (PATCH["Content-Type"], "[", 400),
        (PATCH["Content-Type"], '[{"op": "replace", "path": "/status", "value": "active"}]', 403),
        (PATCH["Content-Type"], '[{"op": "replace", "path": "/visibility", "value": "public"}]', 403),
        (PATCH["Content-Type"], '[{"op": "replace", "path": "/owner", "value": "x"}]', 403),
        (PATCH["Content-Type"], '[{"op": "remove", "path": "/name"}]', 403),
        (PATCH["Content-Type"], '[{"op": "replace", "path": "/absent", "value": "x"}]', 409),
    ],
)
def test_a_patch_is_taken_by_its_media_type_and_its_content(
    demo: Client, content_type: str, body: str, status: int
) -> None:
    image = create(demo)

    answer = demo.http.patch(image["self"], content=body, headers={"Content-Type": content_type})

    assert answer.status_code == status, answer.text


def test_deleted_is_gone_at_once_and_protected_is_not_deleted(demo: Client) -> None:
    image = create(demo, protected=True)

    assert demo.http.delete(image["self"]).status_code == 403
    assert change(demo, image, {"op": "replace", "path": "/protected", "value": False}).status_code == 200
    answer = demo.http.request("DELETE", image["self"], json={"delete_backup": True})

    assert answer.status_code == 204
    assert answer.content == b""
    assert demo.http.get(image["self"]).status_code == 404
    assert demo.http.delete(image["self"]).status_code == 404
    assert demo.http.get("/v2/images", params={"id": image["id"]}).json()["images"] == []


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_paged_by_its_own_links(demo: Client) -> None:
    mark = name()
    ids = [create(demo, mark=mark)["id"] for _ in range(5)]

    first = demo.http.get("/v2/images", params={"mark": mark, "limit": 2, "sort": "created_at:asc,id:asc"}).json()
    gathered, page = list(first["images"]), first
    while "next" in page:
        page = demo.http.get(page["next"]).json()
        gathered += page["images"]

    assert sorted(image["id"] for image in gathered) == sorted(ids)
    assert demo.http.get(first["first"]).json() == first
    assert first["schema"] == "/v2/schemas/images"


def test_what_is_hidden_is_listed_only_when_asked_for(demo: Client) -> None:
    hidden = create(demo, os_hidden=True)

    def listed(**params: str) -> list[str]:
        answer = demo.http.get("/v2/images", params={"name": hidden["name"], **params})
        return [image["id"] for image in answer.json()["images"]]

    assert listed() == []
    assert listed(os_hidden="True") == [hidden["id"]]


def test_tags_properties_and_operators_filter(demo: Client) -> None:
    mark = name()
    kept = active(demo, mark=mark, tags=["x", "y"], min_ram=7)
    create(demo, mark=mark, tags=["x"])

    for query in (
        f"mark={mark}&tag=x&tag=y",
        f"mark={mark}&status=in:active,killed",
        f"mark={mark}&size_min={len(CONTENT)}&size_max={len(CONTENT)}",
        f"mark={mark}&min_ram=7",
        f"mark={mark}&name=in:{kept['name']},other",
        f"mark={mark}&status=active&created_at=gte:2026-01-01T00:00:00Z",
        f"mark={mark}&os_hash_value={kept['os_hash_value']}",
        f"id={kept['id'].upper()}",
    ):
        assert [image["id"] for image in demo.http.get(f"/v2/images?{query}").json()["images"]] == [kept["id"]], query


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "marker=x", f"marker={UNKNOWN}", "sort_key=x", "sort_dir=x", "visibility=x", "os_hidden=x",
     "created_at=x", "size_min=x", "sort=name&sort_key=name", "name=in:%22x", "member_status=x", "key=%00"],
)  # fmt: skip
def test_a_wrong_filter_is_refused(demo: Client, query: str) -> None:
    answer = demo.http.get(f"/v2/images?{query}")

    assert answer.status_code == 400
    assert told(answer)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_what_was_uploaded_is_downloaded_with_its_digests(demo: Client) -> None:
    image = active(demo)

    answer = demo.http.get(image["file"])

    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["Content-Length"] == str(len(CONTENT)) == str(image["size"])
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-MD5"] == md5 == image["checksum"]
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", hashlib.sha512(CONTENT).hexdigest())
    assert image["virtual_size"] == len(CONTENT) + -len(CONTENT) % 512  # a disk has whole sectors
    assert image["__image_size"] == str(len(CONTENT))
    assert image["active_at"]


def test_the_alpine_image_comes_back_byte_for_byte(demo: Client, alpine: Path) -> None:
    content = alpine.read_bytes()

    image = active(demo, content, disk_format="qcow2", min_disk=1)

    assert image["virtual_size"] == 2**30
    assert hashlib.sha512(demo.http.get(image["file"]).content).hexdigest() == image["os_hash_value"]


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-4", 206, CONTENT[:5]),
        ("bytes=100-", 206, CONTENT[100:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=5-100000000", 206, CONTENT[5:]),
        ("bytes=0-0,5-6", 200, CONTENT),
        ("lines=1-2", 200, CONTENT),
        (f"bytes={len(CONTENT)}-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_ranges_of_a_download(demo: Client, asked: str, status: int, expected: bytes | None) -> None:
    image = active(demo)

    answer = demo.http.get(image["file"], headers={"Range": asked})

    assert answer.status_code == status
    if expected is None:
        assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    else:
        assert answer.content == expected
        assert ("Content-Range" in answer.headers) == (status == 206)


def test_a_download_is_asked_for_by_its_tag(demo: Client) -> None:
    image = active(demo)
    etag = demo.http.head(image["file"]).headers["ETag"]

    same = demo.http.get(image["file"], headers={"If-None-Match": f'"other", W/{etag}'})
    other = demo.http.get(image["file"], headers={"If-None-Match": '"other"'})
    resumed = demo.http.get(image["file"], headers={"If-Range": etag, "Range": "bytes=0-1"})
    changed = demo.http.get(image["file"], headers={"If-Range": '"other"', "Range": "bytes=0-1"})

    assert [answer.status_code for answer in (same, other, resumed, changed)] == [304, 200, 206, 200]


def test_head_tells_what_a_download_would_without_it(demo: Client) -> None:
    image = active(demo)

    head = demo.http.head(image["file"])

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(CONTENT))


def test_an_image_without_bytes_has_none_to_download(demo: Client) -> None:
    image = create(demo)

    assert demo.http.get(image["file"]).status_code == 204
    assert demo.http.head(image["file"]).status_code == 204


@pytest.mark.parametrize(
    ("fields", "headers", "content", "status"),
    [
        ({}, {"Content-Type": "application/json"}, CONTENT, 415),
        ({}, {"Content-Type": ""}, CONTENT, 415),
        ({"disk_format": None}, {}, CONTENT, 400),
        ({"container_format": None}, {}, CONTENT, 400),
        ({}, {"x-openstack-image-size": "x"}, CONTENT, 400),
        ({}, {"x-openstack-image-size": "-1"}, CONTENT, 400),
        ({}, {"x-openstack-image-size": str(len(CONTENT) + 1)}, CONTENT, 400),
        ({"disk_format": None}, {}, b"", 400),
        ({}, {"x-openstack-image-size": "1"}, b"", 400),
        ({"disk_format": "qcow2"}, {}, CONTENT, 400),
        ({}, {}, b"QFI\xfb\x00\x00\x00\x03" + bytes(200), 400),
        ({"disk_format": "vmdk"}, {}, b'# Disk DescriptorFile\nRW 1 FLAT "/etc/passwd" 0\n', 400),
    ],
)
def test_an_upload_that_cannot_be_is_refused_and_can_be_tried_again(
    demo: Client, fields: dict[str, Any], headers: dict[str, str], content: bytes, status: int
) -> None:
    image = create(demo, **fields)

    answer = upload(demo, image, content, **headers)

    assert answer.status_code == status, answer.text
    assert told(answer)
    assert demo.image(image["id"])["status"] == "queued"
    assert demo.http.get(image["file"]).status_code == 204


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_without_a_byte_changes_nothing(demo: Client, chunked: bool, disk_format: str) -> None:
    """As clients send it that run without a terminal and were given no data."""
    image = create(demo, disk_format=disk_format)

    answer = demo.http.put(image["file"], content=iter(()) if chunked else b"", headers=OCTETS)

    assert answer.status_code == 204, answer.text
    assert {**demo.image(image["id"]), "updated_at": ""} == {**image, "updated_at": ""}
    assert demo.http.get(image["file"]).status_code == 204
    assert upload(demo, image, b"QFI").status_code == (204 if disk_format == "raw" else 400)


def test_bytes_come_once(demo: Client) -> None:
    image = active(demo)

    answer = upload(demo, image, b"other bytes" * 100)

    assert answer.status_code == 409
    assert demo.http.get(image["file"]).content == CONTENT


@pytest.mark.parametrize("announced", [True, False])
def test_chunked_bodies_are_taken_and_what_is_announced_must_come(demo: Client, announced: bool) -> None:
    image, other = create(demo), create(demo)
    headers = {**OCTETS, **({"x-openstack-image-size": str(len(CONTENT))} if announced else {})}

    pieces = (CONTENT[start : start + 999] for start in range(0, len(CONTENT), 999))
    whole = demo.http.put(image["file"], content=pieces, headers=headers)
    lying = {**OCTETS, "x-openstack-image-size": "5"}
    short = demo.http.put(other["file"], content=iter([b"123", b"456"]), headers=lying)

    assert (whole.status_code, short.status_code) == (204, 400)
    assert demo.image(image["id"])["status"] == "active"
    assert demo.image(other["id"])["status"] == "queued"


def raw_request(client: Client, path: str, *headers: str) -> bytes:
    lines = [
        f"PUT {path} HTTP/1.1",
        f"Host: 127.0.0.1:{client.service.port}",
        f"X-Auth-Token: {client.token}",
        "Content-Type: application/octet-stream",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 100000"], b"half of it"),
        (["Transfer-Encoding: chunked"], b"A\r\nhalf of it\r\n"),
    ],
)
def test_a_client_that_goes_away_leaves_a_queued_image_and_no_bytes(
    demo: Client, headers: list[str], body: bytes
) -> None:
    image = create(demo)
    before = demo.service.files()

    with socket.create_connection(("127.0.0.1", demo.service.port)) as connection:
        connection.sendall(raw_request(demo, image["file"], *headers) + body)
        until(lambda: demo.image(image["id"])["status"] == "saving", "the upload to begin")

    until(lambda: demo.image(image["id"])["status"] == "queued", "the upload to be taken back")
    assert demo.service.files() <= before
    assert upload(demo, image).status_code == 204


@pytest.mark.parametrize(
    ("size", "status"),
    [("200000000000", b"413"), ("99999999999999999999", b"400")],
)
def test_too_large_an_upload_is_refused_before_a_byte_of_it_is_sent(demo: Client, size: str, status: bytes) -> None:
    image = create(demo)

    with socket.create_connection(("127.0.0.1", demo.service.port), timeout=20) as connection:
        headers = ("Transfer-Encoding: chunked", f"x-openstack-image-size: {size}")
        connection.sendall(raw_request(demo, image["file"], *headers))
        answer = connection.recv(4096)

    assert answer.split()[1] == status
    assert demo.image(image["id"])["status"] == "queued"


def test_deleting_in_the_middle_of_an_upload_wins(demo: Client) -> None:
    image = create(demo)
    before = demo.service.files()

    def body() -> Iterator[bytes]:
        yield CONTENT
        until(lambda: demo.image(image["id"])["status"] == "saving", "the upload to begin")
        assert httpx.delete(demo.service.url + image["self"], headers={"X-Auth-Token": demo.token}).status_code == 204
        yield CONTENT

    answer = demo.http.put(image["file"], content=body(), headers=OCTETS)

    assert answer.status_code == 409
    assert demo.http.get(image["self"]).status_code == 404
    assert demo.service.files() <= before


# --- withheld ---------------------------------------------------------------------------------------------------------


def act(client: Client, image: dict[str, Any], action: str) -> httpx.Response:
    return client.http.post(f"{image['self']}/actions/{action}")


def test_a_deactivated_image_is_shown_but_its_bytes_are_withheld(demo: Client, admin: Client) -> None:
    image = active(demo)

    assert [act(demo, image, "deactivate").status_code for _ in range(2)] == [204, 204]

    assert demo.image(image["id"])["status"] == "deactivated"
    assert demo.http.get(image["file"]).status_code == 403
    assert demo.http.head(image["file"]).status_code == 403
    assert admin.http.get(image["file"]).content == CONTENT
    assert [act(demo, image, "reactivate").status_code for _ in range(2)] == [204, 204]
    assert demo.http.get(image["file"]).content == CONTENT


@pytest.mark.parametrize("action", ["deactivate", "reactivate"])
def test_an_image_without_bytes_has_none_to_withhold(demo: Client, action: str) -> None:
    image = create(demo)

    assert act(demo, image, action).status_code == 403
    assert demo.image(image["id"]) == image


# --- owners and quotas ------------------------------------------------------------------------------------------------


def usage(client: Client) -> dict[str, int]:
    told = client.http.get("/v2/info/usage").json()["usage"]
    return {name: limited["usage"] for name, limited in told.items()}


def test_usage_is_told_under_upstreams_names(demo: Client) -> None:
    before = usage(demo)

    active(demo, bytes(3 * 1024 * 1024))
    create(demo)

    after = usage(demo)
    assert set(after) == {"image_size_total", "image_stage_total", "image_count_total", "image_count_uploading"}
    assert after["image_size_total"] - before["image_size_total"] in (3, 4)  # MiB, rounded down
    assert after["image_count_total"] == before["image_count_total"] + 2
    assert after["image_count_uploading"] == before["image_count_uploading"]
    told = demo.http.get("/v2/info/usage").json()["usage"]
    assert told["image_count_total"]["limit"] == 1000
    assert told["image_count_uploading"]["limit"] == -1


def test_an_admin_hands_an_image_over_with_all_that_belongs_to_it(demo: Client, admin: Client) -> None:
    mark = uuid.uuid4().hex
    image = active(demo, bytes(2 * 1024 * 1024), tags=[mark], purpose=mark)
    before = usage(demo), usage(admin)

    answer = change(admin, image, {"op": "replace", "path": "/owner", "value": admin.project_id})

    assert answer.status_code == 200, answer.text
    assert answer.json()["owner"] == admin.project_id
    after = usage(demo), usage(admin)
    assert after[0]["image_count_total"] == before[0]["image_count_total"] - 1
    assert after[1]["image_count_total"] == before[1]["image_count_total"] + 1
    assert after[1]["image_size_total"] >= before[1]["image_size_total"] + 2
    for query in (f"tag={mark}", f"purpose={mark}"):
        assert [one["id"] for one in admin.http.get(f"/v2/images?{query}").json()["images"]] == [image["id"]]
        assert demo.http.get(f"/v2/images?{query}").json()["images"] == []
    assert demo.http.get(image["self"]).status_code == 404


@pytest.mark.parametrize("owner", ["", None, 5, "x" * 256, "a\nb"])
def test_an_owner_is_a_project(admin: Client, owner: Any) -> None:
    image = create(admin)

    assert change(admin, image, {"op": "replace", "path": "/owner", "value": owner}).status_code == 400
    assert change(admin, image, {"op": "remove", "path": "/owner"}).status_code == 403
    assert admin.image(image["id"]) == image


def test_an_owner_cannot_give_an_image_away(demo: Client) -> None:
    image = create(demo)

    assert change(demo, image, {"op": "replace", "path": "/owner", "value": "0" * 32}).status_code == 403
    assert demo.image(image["id"]) == image


def test_a_copy_of_bytes_that_another_project_has_costs_no_file(demo: Client, admin: Client) -> None:
    content = uuid.uuid4().bytes * 1000
    first = active(admin, content)
    files = demo.service.files()

    second = active(demo, content)

    assert demo.service.files() == files
    assert admin.http.delete(first["self"]).status_code == 204
    assert demo.http.get(second["file"]).content == content


# --- who may do what --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[Actors]:
    with contextlib.ExitStack() as opened:
        made = Actors(service, opened.enter_context(service.admin()))
        for client in made.clients.values():
            opened.enter_context(client)
        yield made


def test_a_rejected_offer_is_seen_but_not_listed(actors: Actors) -> None:
    image = actors.shared_image(create)

    def listed(actor: str, **params: str) -> bool:
        answer = actors.clients[actor].http.get("/v2/images", params={"name": image["name"], **params})
        return [one["id"] for one in answer.json()["images"]] == [image["id"]]

    assert [listed(actor) for actor in ("stranger", "pending", "accepted", "rejected")] == [False, False, True, False]
    assert listed("pending", member_status="pending", visibility="shared")
    assert listed("rejected", member_status="all")
    assert actors.clients["accepted"].image(image["id"])["__imagetype"] == "shared"


def test_members_are_told_as_they_are(actors: Actors) -> None:
    owner, member = actors.clients["owner"], actors.clients["pending"]
    image = create(owner)
    path = f"{image['self']}/members"

    added = owner.http.post(path, json={"member": member.project_id})
    again = owner.http.post(path, json={"member": member.project_id})
    shown = owner.http.get(f"{path}/{member.project_id}").json()
    listed = owner.http.get(path).json()

    assert (added.status_code, again.status_code) == (200, 409)
    assert added.json() == shown
    assert (shown["status"], shown["member_id"], shown["image_id"]) == ("pending", member.project_id, image["id"])
    assert listed == {"members": [shown], "schema": "/v2/schemas/members"}
    assert owner.http.delete(f"{path}/{member.project_id}").status_code == 204
    assert owner.http.delete(f"{path}/{member.project_id}").status_code == 404
    assert member.http.get(image["self"]).status_code == 404


@pytest.mark.parametrize("body", [{}, {"member": ""}, {"member": 5}, {"member": "x" * 256}, {"member": "a\nb"}, []])
def test_a_member_is_named_by_a_project(demo: Client, body: Any) -> None:
    assert demo.http.post(f"{create(demo)['self']}/members", json=body).status_code == 400


def test_only_shared_images_have_members(demo: Client, admin: Client) -> None:
    private, community = create(demo, visibility="private"), create(demo, visibility="community")
    public = create(admin, visibility="public")

    for client, image in ((demo, private), (demo, community), (admin, public)):
        answer = client.http.post(f"{image['self']}/members", json={"member": "0" * 32})
        assert answer.status_code == 403
        assert client.http.get(f"{image['self']}/members").status_code == 403


def test_tags_come_and_go_one_by_one(demo: Client) -> None:
    image = create(demo)
    path = f"{image['self']}/tags"

    for tag in ("plain", "k=v", "a%2Fb", "%C3%BC", "plain"):
        assert demo.http.put(f"{path}/{tag}").status_code == 204
    assert demo.image(image["id"])["tags"] == ["plain", "k=v", "a/b", "ü"]
    assert demo.http.delete(f"{path}/a%2Fb").status_code == 204
    assert demo.http.delete(f"{path}/a%2Fb").status_code == 404
    assert demo.http.put(f"{path}/{'x' * 256}").status_code == 400


def test_an_image_has_at_most_as_many_tags_as_upstream_allows(demo: Client) -> None:
    image = create(demo, tags=[str(n) for n in range(128)])

    assert demo.http.put(f"{image['self']}/tags/more").status_code == 400
    assert len(demo.image(image["id"])["tags"]) == 128


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v2/images"), ("POST", f"/v2/images/{UNKNOWN}"), ("DELETE", "/v2/schemas/image")]
)
def test_a_wrong_method_names_the_right_ones(demo: Client, method: str, path: str) -> None:
    answer = demo.http.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["Allow"]
    assert told(answer)


@pytest.mark.parametrize("path", ["/v2/cached_images", "/v1/images", "/v2/nothing"])
def test_what_is_not_offered_is_not_found(demo: Client, path: str) -> None:
    assert demo.http.get(path).status_code == 404
