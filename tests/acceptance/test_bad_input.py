"""What nobody should send, sent: no answer is a 5xx, each error has the form of its API, and an error changes nothing.

Hypothesis makes up documents, filters and headers; sockets send what no client can. There are `CALOTYPE_EXAMPLES` times
ten of each; where that is not set they are few, and the same each time.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.images import attributes, patch, query
from tests.acceptance.test_imagev2 import CONTENT, OCTETS, UNKNOWN, active, create, told, upload
from tests.description import error_form, held_to_its_description
from tests.service import Client, Service, until

MADE_UP: Final = settings(
    max_examples=10 * int(os.environ.get("CALOTYPE_EXAMPLES", "4")),
    deadline=None,
    database=None,
    derandomize="CALOTYPE_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MIB: Final = 1024 * 1024


@pytest.fixture
def owner(demo: Client) -> Client:
    """Every answer is held to the description, in which no 5xx but 503 stands; and 503 is none for bad input."""
    demo.http.event_hooks = {"response": [held_to_its_description, _not_unavailable]}
    return demo


@pytest.fixture(autouse=True)
def no_bug_is_logged(service: Service) -> Iterator[None]:
    already = service.log.read_text().count("unforeseen_error")
    yield
    logged = service.log.read_text()
    assert logged.count("unforeseen_error") == already, logged[-4000:]


def _not_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code != 503, answer.text


class Watched:
    """An image, and that what is refused leaves it as it was."""

    def __init__(self, client: Client, image: dict[str, Any]) -> None:
        self.client, self.image = client, image

    def send(self, method: str, path: str = "", **given: Any) -> httpx.Response:
        before = self.client.image(self.image["id"])
        answer = self.client.http.request(method, self.image["self"] + path, **given)
        if answer.status_code >= 400:
            error_form(answer.request.url.path, answer.status_code, answer.headers["content-type"], answer.content)
            assert self.client.image(self.image["id"]) == before
        return answer


# --- what is made up --------------------------------------------------------------------------------------------------

ODD: Final = (
    "\x00",
    "\r\nX-Injected: yes",
    "\u202e",
    "\ufeff",
    "💥" * 20,
    "a" * 9000,
    "~",
    "~2",
    "/",
    "%00",
    "../..",
    "' OR 1=1 --",
)
TEXTS: Final = st.text(max_size=40) | st.sampled_from(ODD)
NAMES: Final = TEXTS | st.sampled_from(
    sorted(
        {*attributes.BASE, *attributes.READ_ONLY, *attributes.SYSTEM, *attributes.OWNERS, "max_ram", "key", "absent"}
    )
)
SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


PATHS: Final = NAMES.map(lambda name: f"/{escaped(name)}") | NAMES | VALUES
STEPS: Final = st.fixed_dictionaries(
    {}, optional={"op": st.sampled_from([*patch.OPERATIONS, "move", "test", 5]), "path": PATHS, "value": VALUES}
)
OLD_STEPS: Final = st.dictionaries(st.sampled_from([*patch.OPERATIONS, "copy"]), PATHS, max_size=2).flatmap(
    lambda step: VALUES.map(lambda value: {**step, "value": value})
)
PATCHES: Final = st.lists(STEPS | OLD_STEPS, max_size=4) | VALUES
FILTERS: Final = st.sampled_from(
    [
        *("limit", "marker", "sort", "sort_key", "sort_dir", "visibility", "member_status", "os_hidden", "protected"),
        *("tag", "__imagetype", "__platform", *query.EXACT, *query.NUMBERS, *query.TIMES),
    ]
)
FILTER_VALUES: Final = (
    TEXTS
    | st.integers().map(str)
    | st.builds("{}:{}".format, st.sampled_from(["in", "gt", "gte", "lt", "eq", "neq", "name", "created_at"]), TEXTS)
    | st.datetimes().map(lambda time: f"gte:{time.isoformat()}")
    | st.sampled_from(
        ["in:", 'in:"', "in:a,,b", "asc", "desc", "name:asc,id:desc", "all", "true", UNKNOWN, "-0", "1e3", "٣"]
    )
)
# What fits into a header of HTTP: no CR, LF or NUL. Those are sent below, by hand.
HEADER_VALUES: Final = (
    st.binary(max_size=60).map(lambda raw: re.sub(rb"[\x00-\x1f\x7f]", b"", raw).strip())
    | st.integers().map(lambda number: str(number).encode())
    | st.sampled_from([b"bytes=", b"bytes=-", b"bytes=0-0,1-1", b"bytes=5-1", b"bytes=-99999999999999999999", b"0x10"])
    | st.sampled_from([b"+1", b"1_000", b"\xd9\xa3", b'"', b"W/", b"*", b"*, *", b"9" * 5000])
)  # fmt: skip


@MADE_UP
@given(document=PATCHES, media_type=st.sampled_from([patch.V2_1, patch.V2_0]))
def test_a_patch_is_done_or_refused_and_then_nothing_is_changed(owner: Client, document: Any, media_type: str) -> None:
    watched = Watched(owner, image_of(owner))

    answer = watched.send("PATCH", content=as_json(document), headers={"Content-Type": media_type})

    assert answer.status_code in (200, 400, 403, 409, 413)


@MADE_UP
@given(document=st.dictionaries(NAMES, VALUES, max_size=4) | VALUES)
def test_a_document_to_create_from_makes_an_image_as_described_or_none(owner: Client, document: Any) -> None:
    answer = owner.http.post("/v2/images", content=as_json(document))

    assert answer.status_code in (201, 400, 403, 409, 413)
    if answer.status_code == 201:
        made = answer.json()
        assert owner.image(made["id"]) == made
        owner.http.patch(made["self"], content='[{"op": "replace", "path": "/protected", "value": false}]',
                         headers={"Content-Type": patch.V2_1})  # fmt: skip
        assert owner.http.delete(made["self"]).status_code == 204


@MADE_UP
@given(filters=st.lists(st.tuples(FILTERS | TEXTS, FILTER_VALUES), max_size=4))
def test_a_list_is_answered_or_its_filter_is_refused(owner: Client, filters: list[tuple[str, str]]) -> None:
    url = httpx.URL("/v2/images").copy_merge_params([(as_utf8(name), as_utf8(value)) for name, value in filters])

    answer = owner.http.get(url)

    assert answer.status_code in (200, 400, 414)


@MADE_UP
@given(range_=HEADER_VALUES, if_range=st.none() | HEADER_VALUES, known=st.none() | HEADER_VALUES)
def test_conditions_of_a_download_never_break_it(
    owner: Client, range_: bytes, if_range: bytes | None, known: bytes | None
) -> None:
    headers = [(b"Range", range_)]
    headers += [
        (name, value) for name, value in ((b"If-Range", if_range), (b"If-None-Match", known)) if value is not None
    ]

    answer = owner.http.get(readable(owner)["file"], headers=headers)

    assert answer.status_code in (200, 206, 304, 416)
    if answer.status_code == 206:
        first, last = re.fullmatch(r"bytes (\d+)-(\d+)/\d+", answer.headers["content-range"]).groups()  # type: ignore[union-attr]
        assert answer.content == CONTENT[int(first) : int(last) + 1]
    elif answer.status_code == 200:
        assert answer.content == CONTENT


@MADE_UP
@given(size=HEADER_VALUES, content_type=st.just(b"application/octet-stream") | HEADER_VALUES)
def test_an_upload_that_lies_about_itself_is_refused(owner: Client, size: bytes, content_type: bytes) -> None:
    watched = Watched(owner, image_of(owner, disk_format="raw", container_format="bare"))
    headers = [(b"Content-Type", content_type), (b"x-openstack-image-size", size)]

    answer = watched.send("PUT", "/file", content=b"", headers=headers)

    assert answer.status_code in (400, 413, 415)


@MADE_UP
@given(member=VALUES, status=VALUES)
def test_members_are_named_and_answer_in_words_that_there_are(owner: Client, member: Any, status: Any) -> None:
    watched = Watched(owner, image_of(owner))

    added = watched.send("POST", "/members", content=as_json({"member": member}))
    answered = watched.send("PUT", f"/members/{owner.project_id}", content=as_json({"status": status}))

    assert added.status_code in (200, 400, 403, 409, 413)
    assert answered.status_code in (400, 404)


@MADE_UP
@given(tag=TEXTS)
def test_a_tag_is_kept_as_it_was_sent_or_refused(owner: Client, tag: str) -> None:
    watched = Watched(owner, image_of(owner))
    path = "/tags/" + "".join(f"%{byte:02x}" for byte in as_utf8(tag).encode())

    answer = watched.send("PUT", path)

    assert answer.status_code in (204, 400, 404, 405, 414)
    if answer.status_code == 204:
        assert tag in owner.image(watched.image["id"])["tags"]
        assert watched.send("DELETE", path).status_code == 204


def image_of(client: Client, **fields: Any) -> dict[str, Any]:
    """A queued image for all examples of a test: the one that is there with this name, else a new one."""
    name = f"bad-input-{'-'.join(sorted(fields))}"
    listed = client.http.get("/v2/images", params={"name": name, "status": "queued"}).json()["images"]
    if listed:
        image: dict[str, Any] = listed[0]
        return image
    return create(client, name=name, key="value", **fields)


def readable(client: Client) -> dict[str, Any]:
    listed = client.http.get("/v2/images", params={"name": "bad-input-active", "status": "active"}).json()["images"]
    image: dict[str, Any] = listed[0] if listed else active(client, name="bad-input-active")
    return image


def as_json(document: Any) -> bytes:
    return json.dumps(document, allow_nan=True).encode()


def as_utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


# --- bombs ------------------------------------------------------------------------------------------------------------

BOMBS: Final[dict[str, bytes]] = {
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "never closed": b"[" * 1_000_000,
    "above the limit": b'{"name": "' + b"x" * MIB + b'"}',
    "many members": json.dumps({f"key{n}": n for n in range(40_000)}).encode(),
    "a huge number": b'{"min_disk": 1' + b"0" * 5000 + b"}",
    "a huge exponent": b'{"min_disk": 1e999999999}',
    "a huge number as text of a property": b'{"key": 1' + b"0" * 100_000 + b"}",
    "no number": b'{"min_disk": NaN}',
    "infinity": b'{"min_disk": -Infinity}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone surrogate in a name": b'{"\\udfff": "x"}',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "overlong UTF-8": b'{"name": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "a NUL": b'{"name": "\\u0000"}',
    "a raw NUL": b'{"name": "\x00"}',
    "two documents": b'{"name": 5} {"name": 6}',
    "a comment": b'{/* */"name": 5}',
    "single quotes": b"{'name': 'x'}",
    "a form": b"name=x&min_disk=5",
    "XML": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "null": b"null",
    "blanks": b" \r\n\t",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(40),
}
TAKING_JSON: Final = [
    ("POST", "/v2/images", {}),
    ("PATCH", "/v2/images/{image}", {"Content-Type": patch.V2_1}),
    ("PATCH", "/v2/images/{image}", {"Content-Type": patch.V2_0}),
    ("POST", "/v2/images/{image}/members", {}),
    ("PUT", "/v2/images/{image}/members/{project}", {}),
    ("POST", "/v2/cloudimages/action", {}),
    ("PUT", "/v1/cloudimages/{image}/upload", {}),
    ("POST", "/v1/cloudimages/{image}/copy", {}),
    ("POST", "/identity/v3/auth/tokens", {}),
    ("POST", "/identity/v3/users/{user}/password", {}),
]


@pytest.mark.parametrize(
    ("method", "path", "headers"), TAKING_JSON, ids=lambda part: str(part) if isinstance(part, str) else ""
)
def test_a_document_that_is_a_bomb_is_refused(owner: Client, method: str, path: str, headers: dict[str, str]) -> None:
    image = create(owner)
    count = len(owner.http.get("/v2/images?limit=1000").json()["images"])
    user = owner.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": owner.token}).json()["token"]["user"]
    path = path.format(image=image["id"], project=owner.project_id, user=user["id"])

    statuses = {name: owner.http.request(method, path, content=bomb, headers=headers).status_code
                for name, bomb in BOMBS.items()}  # fmt: skip

    assert {name: status for name, status in statuses.items() if status not in (400, 413)} == {}
    assert owner.image(image["id"]) == image
    assert len(owner.http.get("/v2/images?limit=1000").json()["images"]) == count


def test_of_a_name_that_stands_twice_the_last_counts(owner: Client) -> None:
    answer = owner.http.post("/v2/images", content=b'{"os_hidden": 5, "os_hidden": true, "name": "a", "name": "b"}')

    assert answer.status_code == 201
    assert (answer.json()["os_hidden"], answer.json()["name"]) == (True, "b")


@pytest.mark.parametrize("length", [1, 8192, 65_536])
@pytest.mark.parametrize("character", ["a", "\x00", "\r\n", "ü", "\u202e"])
def test_names_and_values_of_properties_cannot_inject(owner: Client, character: str, length: int) -> None:
    text = (character * length)[:length] + "\r\nX-Injected: yes"
    image = create(owner)

    for document in ({text: "x"}, {"key": text}, {"name": text}, {"tags": [text]}):
        answer = owner.http.post("/v2/images", json=document)
        assert "x-injected" not in answer.headers
        assert answer.status_code in ((201, 400, 413) if "key" in document else (400, 413))
    assert owner.image(image["id"]) == image


@pytest.mark.parametrize("attribute", ["kernel_id", "ramdisk_id"])
def test_parts_of_an_image_are_named_by_their_ids(owner: Client, attribute: str) -> None:
    values = (UNKNOWN, False, "x", 5)

    statuses = [owner.http.post("/v2/images", json={attribute: value}).status_code for value in values]

    assert statuses == [201, 400, 400, 400]


# --- bodies where there are none, and other types ---------------------------------------------------------------------

BODYLESS: Final = [
    ("GET", "/v2/images"),
    ("GET", "/v2/images/{image}"),
    ("GET", "/v2/images/{image}/file"),
    ("HEAD", "/v2/images/{image}/file"),
    ("GET", "/v2/images/{image}/members"),
    ("PUT", "/v2/images/{image}/tags/x"),
    ("DELETE", "/v2/images/{image}/tags/x"),
    ("GET", "/v2/schemas/image"),
    ("GET", "/identity/v3"),
    ("GET", "/calotype/v1/openapi.json"),
    ("GET", "/health/live"),
]


@pytest.mark.parametrize("body", [b"{", b"[]", b"x" * (4 * MIB)], ids=["torn", "json", "long"])
def test_a_body_that_nobody_asked_for_does_no_harm(owner: Client, body: bytes) -> None:
    image = active(owner)

    statuses = [
        owner.http.request(method, path.format(image=image["id"]), content=body).status_code
        for method, path in BODYLESS
    ]

    assert [status for status in statuses if status not in (200, 204)] == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"x" * (4 * MIB)], ids=["torn", "json", "long"])
def test_a_deletion_whose_body_makes_no_sense_deletes_nothing(owner: Client, body: bytes) -> None:
    """It may say `delete_backup`: what cannot be read may have said so."""
    image = active(owner)

    answer = owner.http.request("DELETE", image["self"], content=body)

    assert answer.status_code in (400, 413)
    assert owner.http.get(image["self"]).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "multipart/form-data",
        "application/octet-stream2",
        "*/*",
        ",",
        ";",
        "/",
        "a" * 8000,
    ],
)
def test_another_type_of_content_is_refused(owner: Client, content_type: str) -> None:
    watched = Watched(owner, create(owner))

    for method, path, content in (("PUT", "/file", CONTENT), ("PATCH", "", b"[]")):
        answer = watched.send(method, path, content=content, headers={"Content-Type": content_type})
        assert answer.status_code == 415, (method, answer.text)


# --- markers ----------------------------------------------------------------------------------------------------------


def test_a_marker_of_another_project_tells_nothing(owner: Client, admin: Client) -> None:
    foreign, deleted = create(admin, visibility="private")["id"], create(admin, visibility="private")
    admin.http.delete(deleted["self"])

    answers = {
        marker: owner.http.get("/v2/images", params={"marker": marker}) for marker in (foreign, UNKNOWN, deleted["id"])
    }

    assert {answer.status_code for answer in answers.values()} == {400}
    assert len({told(answer).replace(marker, "ID") for marker, answer in answers.items()}) == 1


# --- what only a socket sends -----------------------------------------------------------------------------------------


class Wire:
    """A connection on which anything may be written."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.socket = socket.create_connection(("127.0.0.1", client.service.port), timeout=30)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, line: str, *headers: str) -> None:
        lines = [line, f"Host: 127.0.0.1:{self.client.service.port}", f"X-Auth-Token: {self.client.token}", *headers]
        self.socket.sendall("\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n")

    def end(self, body: bytes) -> None:
        """Send the last of it; where the server has hung up already, there is nothing to send to."""
        with contextlib.suppress(OSError):
            self.socket.sendall(body)
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer; 0 where the server hung up without one."""
        reading = http.client.HTTPResponse(self.socket, method="GET")
        try:
            reading.begin()
            return reading.status, {name.lower(): value for name, value in reading.getheaders()}, reading.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, {}, b""
        finally:
            reading.close()


def sent(client: Client, line: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
    with Wire(client) as wire:
        try:
            wire.head(line, "Connection: close", *headers)
        except ConnectionError:
            return 0, {}, b""
        return wire.answer()


ODD_PATHS: Final = [
    *("/v2/images/%", "/v2/images/%zz", "/v2/images/%0", "/v2/images/%00", "/v2/images/%ff%fe", "/v2/images/%c0%af"),
    *("/v2/images/..%2f..%2fetc%2fpasswd", "/v2/images/../../etc/passwd", "/v2/images/%2e%2e/%2e%2e/etc/passwd"),
    *("/v2//images", "//v2/images/x", "/v2/images//", "/v2/images/x;a=b", "/v2/images/x%0d%0aX-Injected:%20yes"),
    *("/v2/images/\udcff", "/v2/images/x\x01", "/v2/images/{image_id}", "/v2/images/%25%32%66", "/v2/images/x%3F"),
    *("*", "v2/images", "http://example.test/v2/images/x", "/v2/images/x/tags/%", "/v2/images/x/tags//"),
    *("/v2/images/" + "a" * 60_000, "/" * 5000, "/v2/images/" + "%2f" * 5000, "/v2/images/" + "../" * 5000),
    *("/v2/images/x/members/%00", "/calotype/v1/buckets/%2e%2e", "/calotype/v1/buckets/a%00b/objects/x"),
    *("/calotype/v1/buckets/abc/objects/..%2f..%2fx", "/v1/%ff/jobs/%ff", "/v1/x/jobs/" + "0" * 32),
    *("/identity/v3/users/%00", "/identity/v3/projects/%ff/users/x/roles/y", "/v2/images?%ff=%fe", "/v2/images?%00=x"),
    *("/v2/images?limit=%d9%a3", "/v2/images?a=" + "b" * 60_000, "/v2/images?&&=&"),
    "/v2/images?" + "&".join(f"k{n}=v" for n in range(2000)),
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: ascii(path)[:50])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_an_odd_path_is_answered_in_good_order(demo: Client, method: str, path: str) -> None:
    status, headers, body = sent(demo, f"{method} {path} HTTP/1.1", "Content-Length: 0")

    assert status < 500, body
    assert "x-injected" not in headers
    if status >= 400 and body:
        assert set(json.loads(body)) <= {"error", "error_code", "error_msg", "request_id"}
    assert demo.http.get("/v2/images?limit=1").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        *(
            "X-Auth-Token",
            "Content-Type",
            "x-openstack-image-size",
            "Range",
            "If-None-Match",
            "Accept",
            "X-IMS-Revision",
        ),
        *(
            "X-Forwarded-For",
            "Host",
            "Cookie",
            "Content-Length",
            "Transfer-Encoding",
            "Expect",
            "Content-Encoding",
            "TE",
        ),
        "X-Subject-Token",
    ],
)
def test_an_odd_header_is_answered_in_good_order(demo: Client, header: str) -> None:
    image = active(demo)

    for value in (
        "",
        "\x00",
        "a\rb",
        "\udcff\udcfe",
        "ü",
        "a" * 65_536,
        "-1",
        "1e9",
        ",,,",
        "\x7f",
        "chunked, gzip",
        "18446744073709551616",
    ):
        for method, path in (("GET", image["file"]), ("PUT", image["file"]), ("GET", "/identity/v3/auth/tokens")):
            status, headers, body = sent(demo, f"{method} {path} HTTP/1.1", f"{header}: {value}")
            assert status < 500, (value, body)
            assert "x-injected" not in headers
    assert demo.image(image["id"]) == image
    assert demo.http.get(image["file"]).content == CONTENT


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 10", "Content-Length: 20"],
        ["Content-Length: 10", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Content-Length: +10"],
        ["Content-Length: 1e1"],
        ["Content-Length: 18446744073709551616"],
        ["Content-Length: -1"],
        ["Content-Length : 10"],
        [" Content-Length: 10"],
        ["Content-Length: 10\r\n folded: yes"],
    ],
    ids=str,
)
def test_a_length_that_can_be_read_in_two_ways_makes_no_image(demo: Client, lines: list[str]) -> None:
    """Two servers in a row that read it differently would see different requests: smuggling."""
    image = create(demo)

    with Wire(demo) as wire:
        wire.head(
            f"PUT {image['file']} HTTP/1.1", "Content-Type: application/octet-stream", "Connection: close", *lines
        )
        wire.end(b"0\r\n\r\n" + b"x" * 20)
        status, _, body = wire.answer()

    assert status < 500, body
    until(lambda: demo.image(image["id"])["status"] == "queued", "no bytes to be kept")
    assert demo.image(image["id"])["size"] is None


@pytest.mark.parametrize(
    "chunks",
    [
        *(b"FFFFFFFFFFFFFFFFF\r\nx", b"-5\r\nhello\r\n0\r\n\r\n", b"x\r\nhello\r\n", b"5\r\nhelloXX0\r\n\r\n"),
        *(b"5;" + b"a" * 100_000, b"5\nhello\n0\n\n"),
    ],
)
def test_chunks_that_are_none_make_no_image(demo: Client, chunks: bytes) -> None:
    image = create(demo)

    with Wire(demo) as wire:
        wire.head(
            f"PUT {image['file']} HTTP/1.1", "Content-Type: application/octet-stream", "Transfer-Encoding: chunked"
        )
        wire.end(chunks)
        status, _, body = wire.answer()

    assert status < 500, body
    until(lambda: demo.image(image["id"])["status"] == "queued", "no bytes to be kept")


def test_what_comes_behind_the_announced_length_is_not_of_the_image(demo: Client) -> None:
    image, other = create(demo), create(demo)

    with Wire(demo) as wire:
        wire.head(
            f"PUT {image['file']} HTTP/1.1", "Content-Type: application/octet-stream", f"Content-Length: {len(CONTENT)}"
        )
        wire.socket.sendall(CONTENT + b"and more that is no request\r\n\r\n")
        first, second = wire.answer()[0], wire.answer()[0]

    assert (first, second in (0, 400)) == (204, True)
    assert demo.http.get(image["file"]).content == CONTENT
    assert demo.image(other["id"]) == other


def test_of_two_uploads_at_once_one_wins_and_the_other_is_told(demo: Client) -> None:
    image, half = create(demo), len(CONTENT) // 2

    with Wire(demo) as wire:
        wire.head(
            f"PUT {image['file']} HTTP/1.1", "Content-Type: application/octet-stream", f"Content-Length: {len(CONTENT)}"
        )
        wire.socket.sendall(CONTENT[:half])
        until(lambda: demo.image(image["id"])["status"] == "saving", "the first upload to begin")
        second = upload(demo, image, b"the other's bytes" * 100)
        wire.socket.sendall(CONTENT[half:])
        first = wire.answer()[0]

    assert (first, second.status_code) == (204, 409)
    assert told(second)
    assert demo.http.get(image["file"]).content == CONTENT


def test_many_uploads_that_begin_at_once_store_one_and_only_one(demo: Client) -> None:
    image, contents = create(demo), [uuid.uuid4().bytes * 64 for _ in range(6)]
    answered: list[tuple[bytes, int]] = []
    together = threading.Barrier(len(contents))

    def bring(content: bytes) -> None:
        with httpx.Client(base_url=demo.service.url, headers={**OCTETS, "X-Auth-Token": demo.token}, timeout=60) as own:
            together.wait(timeout=30)
            answered.append((content, own.put(image["file"], content=content).status_code))

    threads = [threading.Thread(target=bring, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert sorted(status for _, status in answered) == [204, *[409] * (len(contents) - 1)]
    assert demo.http.get(image["file"]).content == next(content for content, status in answered if status == 204)


def test_an_image_that_is_being_filled_can_be_patched_and_stays_whole(demo: Client) -> None:
    image = create(demo)

    def body() -> Iterator[bytes]:
        yield CONTENT
        until(lambda: demo.image(image["id"])["status"] == "saving", "the upload to begin")
        with httpx.Client(base_url=demo.service.url, headers={"X-Auth-Token": demo.token}) as own:
            for path, value, status in (("/name", "renamed", 200), ("/disk_format", "qcow2", 403), ("/size", 5, 403)):
                document = json.dumps([{"op": "replace", "path": path, "value": value}])
                answer = own.patch(image["self"], content=document, headers={"Content-Type": patch.V2_1})
                assert answer.status_code == status, answer.text
        yield CONTENT

    assert demo.http.put(image["file"], content=body(), headers=OCTETS).status_code == 204

    filled = demo.image(image["id"])
    assert (filled["name"], filled["disk_format"], filled["size"]) == ("renamed", "raw", 2 * len(CONTENT))
