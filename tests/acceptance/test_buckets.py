"""Buckets over HTTP, on the running service."""

import base64
import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.service import Client, Service

ROOT = "/calotype/v1/buckets"


@pytest.fixture
def bucket(demo: Client) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    answer = demo.http.put(f"{ROOT}/{name}")
    assert answer.status_code == 201, answer.text
    return name


@pytest.fixture
def objects(bucket: str) -> str:
    return f"{ROOT}/{bucket}/objects"


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def raw(
    client: Client, method: str, target: str, headers: Sequence[bytes] = (), body: bytes = b"", *, cut: bool = False
) -> tuple[int, bytes]:
    """Send exactly these bytes, which no HTTP library would; return status and body. `cut`: and no more."""
    head = [f"{method} {target} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *headers]
    head.append(b"X-Auth-Token: " + client.token.encode())
    with socket.create_connection(("127.0.0.1", client.service.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        if cut:
            connection.shutdown(socket.SHUT_WR)
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    status, _, rest = told.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_a_bucket_is_created_shown_listed_and_deleted(demo: Client, bucket: str) -> None:
    shown = demo.http.get(f"{ROOT}/{bucket}")
    listed = demo.http.get(ROOT).json()["buckets"]

    assert shown.status_code == 200
    assert shown.json().keys() == {"name", "created_at", "mapped", "read_only"}
    assert (shown.json()["name"], shown.json()["mapped"], shown.json()["read_only"]) == (bucket, False, False)
    assert shown.json()["created_at"].endswith("Z")
    assert shown.json() in listed

    deleted = demo.http.delete(f"{ROOT}/{bucket}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    gone = demo.http.get(f"{ROOT}/{bucket}")
    assert (gone.status_code, code(gone)) == (404, "bucket_not_found")


def test_a_bucket_is_refused_where_it_cannot_be(demo: Client, bucket: str) -> None:
    again = demo.http.put(f"{ROOT}/{bucket}")
    wrong = demo.http.put(f"{ROOT}/Wrong_Name")
    demo.http.put(f"{ROOT}/{bucket}/objects/disk", content=b"x")
    full = demo.http.delete(f"{ROOT}/{bucket}")

    assert (again.status_code, code(again)) == (409, "bucket_exists")
    assert (wrong.status_code, code(wrong)) == (400, "invalid_bucket_name")
    assert (full.status_code, code(full)) == (409, "bucket_not_empty")


def test_another_project_sees_nothing_of_it(demo: Client, admin: Client, bucket: str, objects: str) -> None:
    demo.http.put(f"{objects}/disk", content=b"secret")
    absent = admin.http.get(f"{ROOT}/bucket-that-is-not").text

    for method, path in [
        ("GET", f"{ROOT}/{bucket}"),
        ("DELETE", f"{ROOT}/{bucket}"),
        ("GET", objects),
        ("GET", f"{objects}/disk"),
        ("PUT", f"{objects}/disk"),
        ("DELETE", f"{objects}/disk"),
    ]:
        answer = admin.http.request(method, path)
        assert answer.status_code == 404, (method, path)
        assert answer.text == absent.replace("bucket-that-is-not", bucket)

    assert bucket not in [shown["name"] for shown in admin.http.get(ROOT).json()["buckets"]]
    assert demo.get_object(bucket, "disk") == b"secret"


@pytest.mark.parametrize("token", [None, "", "x", "a.b.c"])
def test_without_a_token_there_is_nothing(service: Service, bucket: str, objects: str, token: str | None) -> None:
    headers = {} if token is None else {"X-Auth-Token": token}

    for method, path in [
        ("GET", ROOT),
        ("PUT", f"{ROOT}/x-{bucket}"),
        ("PUT", f"{objects}/disk"),
        ("GET", f"{objects}/x"),
    ]:
        assert httpx.request(method, service.url + path, headers=headers).status_code == 401


# --- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_is_put_shown_read_and_deleted(demo: Client, objects: str) -> None:
    data = os.urandom(5_000_000)

    made = demo.http.put(f"{objects}/disks/web.qcow2", content=data)
    head = demo.http.head(f"{objects}/disks/web.qcow2")
    read = demo.http.get(f"{objects}/disks/web.qcow2")

    assert made.status_code == 201
    assert made.json().keys() == {"key", "size", "modified_at", "etag"}
    assert (made.json()["key"], made.json()["size"]) == ("disks/web.qcow2", len(data))
    assert head.status_code == read.status_code == 200
    assert read.content == data
    etag = f'"{made.json()["etag"]}"'
    for answer in (head, read):
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["etag"] == etag
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["last-modified"].endswith("GMT")
    assert demo.http.delete(f"{objects}/disks/web.qcow2").status_code == 204
    gone = demo.http.get(f"{objects}/disks/web.qcow2")
    assert (gone.status_code, code(gone)) == (404, "object_not_found")
    assert demo.http.head(f"{objects}/disks/web.qcow2").status_code == 404
    assert demo.http.delete(f"{objects}/disks/web.qcow2").status_code == 404


@pytest.fixture
def digits(demo: Client, objects: str) -> str:
    demo.http.put(f"{objects}/digits", content=b"0123456789")
    return f"{objects}/digits"


@pytest.mark.parametrize(
    ("asked", "status", "content", "part"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-500", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-1,5-6", 200, b"0123456789", None),
        ("furlongs=0-1", 200, b"0123456789", None),
    ],
)
def test_a_part_of_an_object_is_sent(
    demo: Client, digits: str, asked: str, status: int, content: bytes, part: str | None
) -> None:
    answer = demo.http.get(digits, headers={"Range": asked})

    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-range") == part
    assert answer.headers["content-length"] == str(len(content))


def test_a_part_outside_of_the_object_is_refused_with_its_size(demo: Client, digits: str) -> None:
    answer = demo.http.get(digits, headers={"Range": "bytes=10-"})

    assert (answer.status_code, code(answer)) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10"


def test_a_client_is_told_whether_it_has_this_version(demo: Client, digits: str) -> None:
    etag = demo.http.head(digits).headers["etag"]

    same = demo.http.get(digits, headers={"If-None-Match": f'"other", W/{etag}'})
    other = demo.http.get(digits, headers={"If-None-Match": '"other"'})
    rest = demo.http.get(digits, headers={"If-Range": etag, "Range": "bytes=8-"})
    changed = demo.http.get(digits, headers={"If-Range": '"other"', "Range": "bytes=8-"})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert demo.http.head(digits, headers={"If-None-Match": "*"}).status_code == 304
    assert (other.status_code, other.content) == (200, b"0123456789")
    assert (rest.status_code, rest.content) == (206, b"89")
    assert (changed.status_code, changed.content) == (200, b"0123456789")


def test_an_empty_object_is_an_object(demo: Client, objects: str) -> None:
    assert demo.http.put(f"{objects}/empty", content=b"").status_code == 201

    read = demo.http.get(f"{objects}/empty")

    assert (read.status_code, read.content, read.headers["content-length"]) == (200, b"", "0")


def test_a_put_replaces_unless_it_must_not(demo: Client, digits: str) -> None:
    kept = demo.http.put(digits, content=b"new", headers={"If-None-Match": "*"})
    assert (kept.status_code, code(kept)) == (409, "object_exists")
    assert demo.http.get(digits).content == b"0123456789"

    strange = demo.http.put(digits, content=b"new", headers={"If-None-Match": '"x"'})
    assert strange.status_code == 400

    assert demo.http.put(digits, content=b"new").status_code == 201
    assert demo.http.get(digits).content == b"new"


def test_bytes_are_checked_against_the_announced_md5(demo: Client, digits: str) -> None:
    md5 = hashlib.md5(b"new", usedforsecurity=False)
    wrong = demo.http.put(digits, content=b"old", headers={"Content-MD5": md5.hexdigest()})
    malformed = demo.http.put(digits, content=b"old", headers={"Content-MD5": "x"})

    assert (wrong.status_code, code(wrong)) == (400, "digest_mismatch")
    assert (malformed.status_code, code(malformed)) == (400, "invalid")
    assert demo.http.get(digits).content == b"0123456789"
    for told in (md5.hexdigest(), base64.b64encode(md5.digest()).decode()):
        assert demo.http.put(digits, content=b"new", headers={"Content-MD5": told}).status_code == 201


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Content-Length: 10"], b"abc"),
        ([b"Content-Length: 10000000"], b"abc" * 100_000),
        ([b"Transfer-Encoding: chunked"], b"3\r\nabc\r\n"),
        ([b"Transfer-Encoding: chunked"], b"ffff\r\nabc"),
    ],
)
def test_a_cut_upload_stores_nothing(
    demo: Client, service: Service, digits: str, objects: str, headers: list[bytes], body: bytes
) -> None:
    for target in (digits, f"{objects}/new"):
        status, _ = raw(demo, "PUT", target, headers, body, cut=True)
        assert status == 400

    assert demo.http.get(digits).content == b"0123456789"
    assert [found["key"] for found in demo.http.get(objects).json()["objects"]] == ["digits"]
    assert not any(path.is_file() for path in service.data_dir.glob("buckets/*/.calotype-tmp/*"))


def test_a_chunked_upload_is_whole(demo: Client, objects: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"abc", b"def")

    assert demo.http.put(f"{objects}/new", content=chunks()).json()["size"] == 6


def test_a_length_above_the_limit_is_refused_before_the_body(demo: Client, objects: str) -> None:
    status, body = raw(demo, "PUT", f"{objects}/huge", [b"Content-Length: 999999999999999999"])

    assert status == 413
    assert b"image_too_large" in body


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%252e%252e%252fx", "%2e%2e%2fx"),
        ("x%3Fy%23z", "x?y#z"),
        ("%F0%9F%92%BF.qcow2", "\N{OPTICAL DISC}.qcow2"),
        ("a:b", "a:b"),
    ],
)
def test_a_key_is_the_path_decoded_once(demo: Client, objects: str, target: str, key: str) -> None:
    status, _ = raw(demo, "PUT", f"{objects}/{target}", [b"Content-Length: 3"], b"abc")

    assert status == 201
    assert [found["key"] for found in demo.http.get(objects).json()["objects"]] == [key]
    assert raw(demo, "GET", f"{objects}/{target}") == (200, b"abc")


ESCAPES = [
    "../x",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "..%2F..%2F..%2Fcalotype.db",
    "a/../../x",
    "a%2f..%2f..%2fx",
    "./x",
    "/etc/passwd",
    "%2Fetc%2Fpasswd",
    "a//b",
    "a/",
    "",
    "a%00b",
    "a%5C..%5Cb",
    "a%0Ab",
    ".calotype-tmp/x",
    "%2Ecalotype-tmp%2Fx",
    "%FF",
    "%C0%AE%C0%AE/x",
    "x" * 256,
    "a/" * 32 + "b",
]


@pytest.mark.parametrize("target", ESCAPES)
def test_no_key_escapes(demo: Client, service: Service, objects: str, target: str) -> None:
    def everything() -> set[Path]:
        return {path for path in service.data_dir.rglob("*") if not path.name.startswith("calotype.db")}

    before = everything()

    for method, headers in (("PUT", [b"Content-Length: 3"]), ("GET", []), ("HEAD", []), ("DELETE", [])):
        status, _ = raw(demo, method, f"{objects}/{target}", headers, b"abc" if method == "PUT" else b"")
        assert status in (400, 404), (method, status)

    assert everything() == before


def test_a_folder_and_an_object_cannot_have_one_name(demo: Client, digits: str) -> None:
    answer = demo.http.put(f"{digits}/below", content=b"x")

    assert (answer.status_code, code(answer)) == (409, "object_is_folder")


# --- listing ----------------------------------------------------------------------------------------------------------


def test_objects_are_listed_in_pages_by_prefix(demo: Client, objects: str) -> None:
    for key in ("a-b", "a/1", "a/2", "a/3", "b"):
        demo.http.put(f"{objects}/{key}", content=key.encode())

    first = demo.http.get(objects, params={"limit": 2}).json()
    second = demo.http.get(objects, params={"limit": 2, "marker": first["next_marker"]}).json()
    third = demo.http.get(objects, params={"limit": 2, "marker": second["next_marker"]}).json()
    below = demo.http.get(objects, params={"prefix": "a/"}).json()

    pages = [[found["key"] for found in page["objects"]] for page in (first, second, third)]
    assert pages == [["a-b", "a/1"], ["a/2", "a/3"], ["b"]]
    assert third["next_marker"] is None
    assert [found["key"] for found in below["objects"]] == ["a/1", "a/2", "a/3"]
    assert below["objects"][0].keys() == {"key", "size", "modified_at", "etag"}


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "00", "\u0661"])
def test_a_limit_that_is_no_number_above_zero_is_refused(demo: Client, objects: str, limit: str) -> None:
    answer = demo.http.get(objects, params={"limit": limit})

    assert (answer.status_code, code(answer)) == (400, "bad_filter")


@pytest.mark.parametrize(
    "params", [{"limit": "9" * 50}, {"prefix": "../"}, {"marker": "\0\uffff"}, {"prefix": "x" * 5000}]
)
def test_any_prefix_marker_and_large_limit_is_harmless(demo: Client, objects: str, params: dict[str, str]) -> None:
    demo.http.put(f"{objects}/disk", content=b"")

    answer = demo.http.get(objects, params=params)

    assert answer.status_code == 200
    assert {found["key"] for found in answer.json()["objects"]} <= {"disk"}


def test_a_method_that_is_none_is_told_with_those_that_are(demo: Client, objects: str) -> None:
    answer = demo.http.post(f"{objects}/disk")

    assert (answer.status_code, code(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"


# --- mapped folders ---------------------------------------------------------------------------------------------------


def test_a_mapped_folder_is_read_and_not_written(make_service: Callable[..., Service], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "disk").write_bytes(b"mapped")
    (outside / "link").symlink_to("/etc/passwd")
    config = tmp_path / "calotype.toml"
    config.write_text(f'[buckets.golden]\nfolder = "{outside}"\nproject = "demo"\n')
    service = make_service(environment={"CALOTYPE_CONFIG": str(config)}).start("--no-worker")
    with service.demo() as demo, service.admin() as admin:
        [shown] = demo.http.get(ROOT).json()["buckets"]
        assert shown == {"name": "golden", "created_at": None, "mapped": True, "read_only": True}
        assert demo.get_object("golden", "disk") == b"mapped"
        assert demo.http.get(f"{ROOT}/golden/objects/link").status_code == 404
        refused = demo.http.put(f"{ROOT}/golden/objects/new", content=b"x")
        assert (refused.status_code, code(refused)) == (403, "bucket_read_only")
        assert demo.http.delete(f"{ROOT}/golden").status_code == 403
        assert demo.http.put(f"{ROOT}/golden").status_code == 409
        assert admin.http.get(f"{ROOT}/golden").status_code == 404
    assert sorted(path.name for path in outside.iterdir()) == ["disk", "link"]
