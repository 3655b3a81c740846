"""The served OpenAPI document: it tells every route and nothing else, and the running service keeps to it."""

import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import schemathesis

from calotype.web import openapi
from calotype.web.app import ROUTES
from calotype.web.route import Route
from tests.acceptance.test_imagev2 import active, change, create
from tests.description import DOCUMENT, held_to_its_description
from tests.service import Client, Service, password_auth

EMPTY: Final = {"POST /v2/cache/clean"}  # answers 200 without a body, as upstream does
IDS: Final = [f"{route.method} {route.path}" for route in ROUTES]


@pytest.fixture
def member(service: Service) -> Iterator[Client]:
    """A client each of whose answers is held to the description."""
    with service.demo() as client:
        client.http.event_hooks = {"response": [held_to_its_description]}
        yield client


@pytest.fixture
def operator(service: Service) -> Iterator[Client]:
    with service.admin() as client:
        client.http.event_hooks = {"response": [held_to_its_description]}
        yield client


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_served_description_is_that_of_the_route_table(service: Service) -> None:
    answer = httpx.get(service.url + openapi.PATH)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_who_has_the_description_is_not_sent_it_again(service: Service) -> None:
    etag = httpx.get(service.url + openapi.PATH).headers["etag"]

    answered = {
        known: httpx.get(service.url + openapi.PATH, headers={"If-None-Match": known}).status_code
        for known in (etag, f'"other", W/{etag}', "*", '"other"')
    }

    assert answered == {etag: 304, f'"other", W/{etag}': 304, "*": 304, '"other"': 200}


def test_it_is_an_openapi_3_1_document() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_route_is_described_and_nothing_else() -> None:
    told = {(method, path) for path, operations in DOCUMENT["paths"].items() for method in operations}

    assert told == {(route.method.lower(), openapi.shown_path(route)) for route in ROUTES}


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [told["operationId"] for operations in DOCUMENT["paths"].values() for told in operations.values()]

    assert len(set(names)) == len(names) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_a_route_says_what_it_wants_and_gives(route: Route) -> None:
    told = DOCUMENT["paths"][openapi.shown_path(route)][route.method.lower()]

    assert told["summary"]
    assert (told.get("security") == []) == (route.permission is None)
    assert {one["name"] for one in told.get("parameters", ()) if one["in"] == "path"} == set(
        re.findall(r"\{(\w+)", route.path)
    )
    answered = "content" in told["responses"][str(route.status)]
    if route.method == "HEAD" or route.status == 204:
        assert not answered, "gives= is too much"
    elif route.status != 202 and f"{route.method} {route.path}" not in EMPTY:  # 202 may say no more than that
        assert answered, "gives= is missing"
    assert all("content" in answer for status, answer in told["responses"].items() if status >= "400") or (
        route.method == "HEAD"
    )


def test_every_reference_in_it_leads_somewhere() -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    named = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}

    assert named
    assert named <= set(DOCUMENT["components"]["schemas"])


# --- the running service ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route",
    [pytest.param(route, id=id_) for route, id_ in zip(ROUTES, IDS, strict=True) if route.permission is not None],
)
def test_without_a_token_every_call_that_wants_one_is_refused(service: Service, route: Route) -> None:
    path = re.sub(r"\{\w+(:path)?\}", "x", route.path)

    answer = httpx.request(route.method, service.url + path)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"]
    held_to_its_description(answer)


def test_images_are_answered_as_described(member: Client, operator: Client) -> None:
    image, queued = active(member, tags=["x"], key="value"), create(member)

    change(member, image, {"op": "replace", "path": "/name", "value": "described"})
    for method, path in (
        ("GET", image["self"]),
        ("GET", image["file"]),
        ("HEAD", image["file"]),
        ("GET", queued["file"]),
        ("GET", "/v2/images?limit=2"),
        ("GET", "/v2/images?limit=x"),
        ("PUT", f"{image['self']}/tags/y"),
        ("DELETE", f"{image['self']}/tags/y"),
        ("DELETE", f"{image['self']}/tags/y"),
        ("GET", f"{image['self']}/members"),
        ("GET", "/v2/schemas/image"),
        ("GET", "/v2/"),
        ("DELETE", queued["self"]),
        ("GET", queued["self"]),
        ("GET", "/v2/nothing"),
        ("PUT", "/v2/images"),
    ):
        member.http.request(method, path)
    member.http.get(image["file"], headers={"Range": "bytes=1-2"})
    member.http.get(image["file"], headers={"Range": "bytes=999999999-"})
    member.http.get(image["file"], headers={"If-None-Match": "*"})
    member.http.patch(image["self"], content="[]")
    path = f"{image['self']}/members"
    member.http.post(path, json={"member": operator.project_id})
    operator.http.put(f"{path}/{operator.project_id}", json={"status": "accepted"})
    member.http.get(path)

    assert member.http.get(image["self"]).json()["name"] == "described"


def test_buckets_and_jobs_are_answered_as_described(member: Client) -> None:
    bucket = f"described-{uuid.uuid4().hex[:8]}"

    member.put_object(bucket, "disk.raw", b"\x00" * 1024)
    member.get_object(bucket, "disk.raw")
    member.http.head(f"/calotype/v1/buckets/{bucket}/objects/disk.raw")
    for path in ("/calotype/v1/buckets", f"/calotype/v1/buckets/{bucket}", f"/calotype/v1/buckets/{bucket}/objects"):
        member.http.get(path)
    job = member.import_image(f"{bucket}:disk.raw", "described")
    member.ended(job)
    member.job(job, **{"X-IMS-Revision": "2022-10"})
    for path in (f"/v1/cloudimages/job/{job}", f"/calotype/v1/jobs/{job}", "/calotype/v1/jobs?limit=1"):
        assert member.http.get(path).status_code == 200
    member.http.post(f"/calotype/v1/jobs/{job}:cancel")
    member.http.post("/v2/cloudimages/action", json={"name": "no source"})
    member.http.delete(f"/calotype/v1/buckets/{bucket}")


def test_identity_is_answered_as_described(member: Client, operator: Client) -> None:
    name = f"described-{uuid.uuid4().hex[:8]}"

    made = {
        kind: operator.http.post(f"/identity/v3/{kind}s", json={kind: {"name": name}}).json()[kind]["id"]
        for kind in ("domain", "project", "user", "role")
    }
    assignment = f"/identity/v3/projects/{made['project']}/users/{made['user']}/roles"
    operator.http.put(f"{assignment}/{made['role']}")
    operator.http.head(f"{assignment}/{made['role']}")
    for path in (
        assignment,
        *(f"/identity/v3/{kind}s/{found}" for kind, found in made.items()),
        *(f"/identity/v3/{kind}s" for kind in (*made, "region", "service", "endpoint")),
        *(f"/identity/v3/{kind}s?limit=1" for kind in made),
        "/identity/v3/role_assignments?include_names",
        "/identity/v3/auth/catalog",
        "/identity/v3/auth/projects",
        "/identity/v3/auth/domains",
        f"/identity/v3/users/{made['user']}/projects",
        "/identity/v3",
        "/identity/v3/",
    ):
        assert operator.http.get(path).status_code == 200, path
        member.http.get(path)
    operator.http.get("/identity")
    operator.http.post("/identity/v3/auth/tokens", json=password_auth(member.user, "wrong", "demo"))
    for client in (member, operator):
        client.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": member.token})
        client.http.head("/identity/v3/auth/tokens", headers={"X-Subject-Token": member.token})
        client.http.post("/identity/v3/users", json={"user": {"name": ""}})
    operator.http.delete(f"{assignment}/{made['role']}")
    for kind in ("user", "project", "role"):
        assert operator.http.delete(f"/identity/v3/{kind}s/{made[kind]}").status_code == 204
