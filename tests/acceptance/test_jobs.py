"""The job query and its neighbours, over HTTP against the running service."""

import re
import uuid
from pathlib import Path

import pytest

from tests.service import Client, Service, password_auth

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OLD_TIME = re.compile(r"\d\d-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d{4} \d\d:\d\d:\d\d:\d{3}")
UNKNOWN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def imported(demo: Client, alpine: Path) -> str:
    """The id of a job that imported the Alpine image."""
    demo.put_object("jobs-tests", "alpine.qcow2", alpine)
    job_id = demo.import_image("jobs-tests:alpine.qcow2", f"jobs-{uuid.uuid4().hex[:8]}")
    demo.succeeded(job_id)
    return job_id


def test_a_successful_job_tells_all_eight_fields_and_the_image(demo: Client, imported: str) -> None:
    job = demo.job(imported)

    assert list(job) == [
        "job_id",
        "job_type",
        "begin_time",
        "end_time",
        "status",
        "error_code",
        "fail_reason",
        "entities",
    ]
    assert job["job_type"] == "imsImportImageJob"
    assert TIME.fullmatch(job["begin_time"])
    assert TIME.fullmatch(job["end_time"])
    assert list(job["entities"]) == ["image_name", "image_id"]
    assert demo.image(job["entities"]["image_id"])["status"] == "active"


def test_the_older_form_is_given_on_request_for_the_same_record(demo: Client, imported: str) -> None:
    job = demo.job(imported, **{"X-Ims-Revision": "2022-10"})

    assert list(job) == [
        "status",
        "entities",
        "job_id",
        "job_type",
        "begin_time",
        "end_time",
        "error_code",
        "fail_reason",
    ]
    assert OLD_TIME.fullmatch(job["begin_time"])
    assert OLD_TIME.fullmatch(job["end_time"])
    assert job["entities"] == {"image_id": demo.job(imported)["entities"]["image_id"]}


def test_a_finished_job_never_changes_again_and_costs_a_304(demo: Client, imported: str) -> None:
    path = f"/v1/{demo.project_id}/jobs/{imported}"
    first = demo.http.get(path)
    again = demo.http.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert demo.http.get(path).content == first.content
    assert (again.status_code, again.content) == (304, b"")


def test_the_progress_call_ends_at_one(demo: Client, imported: str) -> None:
    job = demo.http.get(f"/v1/cloudimages/job/{imported}").json()

    assert job["status"] == "SUCCESS"
    assert job["entities"]["process_percent"] == 1
    assert job["entities"]["current_task"] == ""


def test_the_native_form_tells_the_steps(demo: Client, imported: str) -> None:
    job = demo.http.get(f"/calotype/v1/jobs/{imported}").json()

    assert job["state"] == "succeeded"
    assert [step["name"] for step in job["steps"]] == ["fetch", "inspect", "convert", "verify", "publish"]
    assert {step["state"] for step in job["steps"]} == {"done"}
    assert job["progress"]["percent"] == 100.0


@pytest.mark.parametrize("job_id", [UNKNOWN, UNKNOWN.upper(), "x", "../../etc/passwd", "0" * 31, "%00", "é" * 32])
def test_unknown_and_malformed_ids_get_the_same_answer(demo: Client, job_id: str) -> None:
    answer = demo.http.get(f"/v1/{demo.project_id}/jobs/{job_id.replace('/', '%2F')}")

    if answer.status_code != 404:  # a slash in the id makes it another path
        assert answer.status_code == 400
        assert answer.content == (b'{"error":{"code":"IMG.0023","message":"An exception occurred during task query."}}')
    assert ("/" in job_id) or answer.status_code == 400


def test_a_foreign_job_is_told_like_an_unknown_one_to_the_byte(admin: Client, demo: Client, imported: str) -> None:
    foreign = admin.http.get(f"/v1/{admin.project_id}/jobs/{imported}")
    unknown = admin.http.get(f"/v1/{admin.project_id}/jobs/{UNKNOWN}")

    assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content) == (400, unknown.content)
    assert admin.http.get(f"/calotype/v1/jobs/{imported}").content == (
        admin.http.get(f"/calotype/v1/jobs/{UNKNOWN}").content
    )
    assert admin.http.get(f"/v1/cloudimages/job/{imported}").content == unknown.content


def test_a_path_with_anothers_project_is_refused_before_the_job_is_looked_at(
    admin: Client, demo: Client, imported: str
) -> None:
    answer = admin.http.get(f"/v1/{demo.project_id}/jobs/{imported}")

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "IMG.0030"


@pytest.mark.parametrize("token", [None, "", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
def test_a_bad_token_gets_the_gateways_form(service: Service, demo: Client, imported: str, token: str | None) -> None:
    import httpx

    headers = {} if token is None else {"X-Auth-Token": token}
    answer = httpx.get(f"{service.url}/v1/{demo.project_id}/jobs/{imported}", headers=headers)

    assert answer.status_code == 401
    assert list(answer.json()) == ["error_msg", "error_code", "request_id"]
    assert answer.json()["error_code"] == "APIGW.0301"
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"]


def test_a_revoked_token_is_refused_by_the_query_at_once_in_its_process(service: Service, demo: Client) -> None:
    with service.demo() as other:
        revoked = demo.http.delete(
            "/identity/v3/auth/tokens", headers={"X-Auth-Token": other.token, "X-Subject-Token": other.token}
        )
        answer = other.http.get(f"/v1/{other.project_id}/jobs/{UNKNOWN}")

    assert revoked.status_code == 204
    assert answer.status_code == 401


def test_an_unscoped_token_cannot_ask_for_jobs(service: Service, demo: Client) -> None:
    auth = password_auth(demo.user, demo.password, None)
    auth["auth"]["scope"] = "unscoped"
    token = demo.http.post("/identity/v3/auth/tokens", json=auth).headers["X-Subject-Token"]

    answer = demo.http.get(f"/v1/{demo.project_id}/jobs/{UNKNOWN}", headers={"X-Auth-Token": token})

    assert answer.status_code == 401


def test_two_slashes_at_the_joint_of_a_clients_url_are_accepted(demo: Client, service: Service, imported: str) -> None:
    answer = demo.http.get(f"{service.url}//v1/{demo.project_id}/jobs/{imported}")

    assert answer.status_code == 200


def test_a_wrong_method_on_the_query_is_405_in_the_apis_form(demo: Client) -> None:
    answer = demo.http.delete(f"/v1/{demo.project_id}/jobs/{UNKNOWN}")

    assert answer.status_code == 405
    assert "error" in answer.json()


def test_jobs_are_listed_newest_first_in_keyset_pages(demo: Client, imported: str) -> None:
    everything = demo.http.get("/calotype/v1/jobs", params={"limit": 1000}).json()["jobs"]
    paged: list[str] = []
    marker = None
    while True:
        params = {"limit": 2, **({"marker": marker} if marker else {})}
        page = demo.http.get("/calotype/v1/jobs", params=params).json()
        paged += [job["id"] for job in page["jobs"]]
        marker = page["next_marker"]
        if marker is None or len(paged) >= len(everything):
            break

    assert paged[: len(everything)] == [job["id"] for job in everything]
    assert [job["created"] for job in everything] == sorted((job["created"] for job in everything), reverse=True)


@pytest.mark.parametrize(
    "query", ["state=done", "type=x", "limit=-1", "limit=x", "marker=nope", f"marker={UNKNOWN}", "limit=%00"]
)
def test_a_bad_list_query_is_refused(demo: Client, query: str) -> None:
    answer = demo.http.get(f"/calotype/v1/jobs?{query}")

    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["code"]


def test_waiting_answers_when_the_job_has_ended(demo: Client, alpine: Path) -> None:
    demo.put_object("jobs-tests", "alpine.qcow2", alpine)
    job_id = demo.import_image("jobs-tests:alpine.qcow2", "waited-for")

    answer = demo.http.get(f"/calotype/v1/jobs/{job_id}", params={"wait": "60"})

    assert answer.json()["state"] == "succeeded"


def test_a_job_that_ended_cannot_be_cancelled(demo: Client, imported: str) -> None:
    answer = demo.http.post(f"/calotype/v1/jobs/{imported}:cancel")

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "job_finished"
