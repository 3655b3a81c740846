"""A request that is sent again under the same key starts nothing again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.service import Client, Service

REPLAYED: Final = "Idempotent-Replayed"
HEADERS: Final = ("Idempotency-Key", "X-Client-Token")


def asked(client: Client, key: str | None, name: str, header: str = HEADERS[0], **more: Any) -> httpx.Response:
    body = {"name": name, "image_url": "golden:disk.raw", "min_disk": 1, **more}
    headers = {} if key is None else {header: key}
    return client.http.post("/v2/cloudimages/action", json=body, headers=headers)


def images(client: Client, name: str) -> list[str]:
    return [image["id"] for image in client.http.get("/v2/images", params={"name": name}).json()["images"]]


@pytest.fixture(scope="module", autouse=True)
def source(service: Service) -> None:
    with service.demo() as client:
        client.put_object("golden", "disk.raw", b"\1" * 65536)


@pytest.mark.parametrize("header", HEADERS)
def test_the_same_request_gives_the_same_job(demo: Client, header: str) -> None:
    key, name = uuid4().hex, f"once-{header}".lower()
    first, second = asked(demo, key, name, header), asked(demo, key, name, header)

    assert first.status_code == second.status_code == 200
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"
    assert first.json() == second.json()
    job = demo.succeeded(first.json()["job_id"])
    third = asked(demo, key, name, header)  # also when the job has ended
    assert third.json() == first.json()
    assert images(demo, name) == [job["entities"]["image_id"]]


def test_without_a_key_each_request_is_one_of_its_own(demo: Client) -> None:
    first, second = asked(demo, None, "twice"), asked(demo, None, "twice")
    assert first.json()["job_id"] != second.json()["job_id"]
    for answer in (first, second):
        demo.succeeded(answer.json()["job_id"])
    assert len(images(demo, "twice")) == 2


def test_another_request_under_the_key_is_refused_and_begins_nothing(demo: Client) -> None:
    key = uuid4().hex
    assert asked(demo, key, "mine").status_code == 200
    answer = asked(demo, key, "not-mine")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "IMG.0001"
    assert "idempotency key" in answer.json()["error"]["detail"]
    assert images(demo, "not-mine") == []


def test_a_refused_request_does_not_use_its_key_up(demo: Client) -> None:
    key = uuid4().hex
    refused = asked(demo, key, "corrected", min_disk=0)
    assert refused.status_code == 400
    assert asked(demo, key, "corrected").status_code == 200


def test_sent_many_times_at_once_it_is_done_once(demo: Client) -> None:
    key = uuid4().hex
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: asked(demo, key, "at-once"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    [job_id] = {answer.json()["job_id"] for answer in answers}
    demo.succeeded(job_id)
    assert len(images(demo, "at-once")) == 1


def test_a_key_is_its_users_own(demo: Client, admin: Client) -> None:
    key = uuid4().hex
    admin.put_object("golden", "disk.raw", b"\2" * 65536)
    mine, theirs = asked(demo, key, "same-key"), asked(admin, key, "same-key")
    assert mine.status_code == theirs.status_code == 200
    assert mine.json()["job_id"] != theirs.json()["job_id"]


def test_quotes_around_a_key_do_not_count(demo: Client) -> None:
    key = uuid4().hex
    assert asked(demo, key, "quoted").json() == asked(demo, f'"{key}"', "quoted").json()


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", "ä"], ids=["empty", "long", "tab", "not-ascii"])
def test_what_is_no_key_is_refused(demo: Client, key: str) -> None:
    headers = {HEADERS[0].encode(): key.encode()}
    body = {"name": "no-key", "image_url": "golden:disk.raw", "min_disk": 1}
    answer = demo.http.post("/v2/cloudimages/action", json=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert "idempotency key" in answer.json()["error"]["detail"]
    assert images(demo, "no-key") == []


def test_two_keys_are_one_too_many(demo: Client) -> None:
    headers = dict(zip(HEADERS, (uuid4().hex, uuid4().hex), strict=True))
    body = {"name": "two-keys", "image_url": "golden:disk.raw", "min_disk": 1}
    assert demo.http.post("/v2/cloudimages/action", json=body, headers=headers).status_code == 400
    assert images(demo, "two-keys") == []


def test_the_other_calls_that_begin_jobs_know_keys_too(demo: Client) -> None:
    made = demo.succeeded(asked(demo, None, "origin").json()["job_id"])["entities"]["image_id"]
    calls = [
        (f"/v1/cloudimages/{made}/copy", {"name": "copied"}),
        (f"/v1/cloudimages/{made}/file", {"bucket_url": f"golden:{uuid4().hex}", "file_format": "qcow2"}),
    ]
    for path, body in calls:
        headers = {HEADERS[0]: uuid4().hex}
        answers = [demo.http.post(path, json=body, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
        assert answers[0].json() == answers[1].json()
        demo.succeeded(answers[0].json()["job_id"])
    assert len(images(demo, "copied")) == 1


def test_a_key_is_known_after_a_crash(service: Service, demo: Client) -> None:
    key = uuid4().hex
    first = asked(demo, key, "survivor")
    service.kill()
    service.start()
    with service.demo() as client:
        assert asked(client, key, "survivor").json() == first.json()
        client.succeeded(first.json()["job_id"])
        assert len(images(client, "survivor")) == 1
