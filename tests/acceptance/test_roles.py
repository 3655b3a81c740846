"""Who may do what with an image, and in which of its states: every call of the Image API by everyone who may stand
before an image, and in every state all that can be done. The calls come from the route table: a new one without a row
fails.
"""

import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest

from calotype.web.imagev2 import ROUTES
from tests.acceptance.test_imagev2 import CONTENT, OCTETS, PATCH, active, create, raw_request
from tests.actors import Actors
from tests.service import Client, Service, until


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[Actors]:
    with contextlib.ExitStack() as opened:
        made = Actors(service, opened.enter_context(service.admin()))
        for client in made.clients.values():
            opened.enter_context(client)
        yield made


ALL = ("nobody", "unscoped", "stranger", "reader", "pending", "accepted", "rejected", "owner", "admin")
Row = tuple[int, int, int, int, int, int, int, int, int]

# Rows that many calls have in common: what each of ALL is answered about an image that is shared.
READS: Final[Row] = (401, 401, 404, 200, 200, 200, 200, 200, 200)
REFUSED: Final[Row] = (401, 401, 403, 403, 403, 403, 403, 403, 403)
ANYONE: Final[Row] = (401, 401, 200, 200, 200, 200, 200, 200, 200)


def changes(status: int) -> Row:
    """Of a call that the owner and an admin may make: to a stranger the image does not exist."""
    return (401, 401, 404, 403, 403, 403, 403, status, status)


def admins(status: int) -> Row:
    return (401, 401, 403, 403, 403, 403, 403, 403, status)


IMAGE, MEMBERS, MEMBER = (
    "/v2/images/{image_id}",
    "/v2/images/{image_id}/members",
    "/v2/images/{image_id}/members/{member_id}",
)
TAG = f"{IMAGE}/tags/{{tag:path}}"
# In `{member_id}` stands the project of `pending`. The image is active, or queued where a call needs that.
MATRIX: Final[dict[tuple[str, str], Row]] = {
    ("POST", "/v2/images"): (401, 401, 201, 403, 201, 201, 201, 201, 201),
    ("GET", "/v2/images"): ANYONE,
    ("GET", IMAGE): READS,
    ("PATCH", IMAGE): changes(200),
    ("DELETE", IMAGE): changes(204),
    ("PUT", f"{IMAGE}/file"): changes(204),
    ("GET", f"{IMAGE}/file"): READS,
    ("HEAD", f"{IMAGE}/file"): READS,
    ("PUT", f"{IMAGE}/stage"): changes(204),
    ("POST", f"{IMAGE}/import"): changes(409),  # nothing is staged
    ("GET", f"{IMAGE}/tasks"): READS,
    ("PUT", TAG): changes(204),
    ("DELETE", TAG): changes(204),
    ("POST", f"{IMAGE}/actions/deactivate"): changes(204),
    ("POST", f"{IMAGE}/actions/reactivate"): changes(204),
    ("GET", MEMBERS): READS,
    ("POST", MEMBERS): changes(200),
    ("GET", MEMBER): (401, 401, 404, 200, 200, 404, 404, 200, 200),
    ("PUT", MEMBER): (401, 401, 404, 403, 200, 404, 404, 403, 200),
    ("DELETE", MEMBER): changes(204),
    ("GET", "/v2/info/usage"): ANYONE,
    ("GET", "/v2/info/import"): ANYONE,
    ("GET", "/v2/info/stores"): ANYONE,
    ("GET", "/v2/info/stores/detail"): admins(200),
    ("DELETE", "/v2/stores/{store_id}/{image_id}"): admins(403),  # its only store
    ("GET", f"{IMAGE}/locations"): admins(200),
    ("POST", f"{IMAGE}/locations"): REFUSED,  # the settings hide them
    ("GET", "/v2/cache"): admins(200),
    ("DELETE", "/v2/cache"): admins(204),
    ("POST", "/v2/cache/clean"): admins(200),
    ("POST", "/v2/cache/prune"): admins(200),
    ("PUT", "/v2/cache/{image_id}"): admins(202),
    ("DELETE", "/v2/cache/{image_id}"): admins(204),
    ("GET", "/v2/cache/nodes/{image_id}"): admins(200),
    ("GET", "/v2/tasks"): admins(200),
    ("POST", "/v2/tasks"): admins(400),  # the body of the call below is not one
    ("GET", "/v2/tasks/{task_id}"): admins(404),
    **{
        ("GET", f"/v2/schemas/{schema}"): ANYONE for schema in ("image", "images", "member", "members", "task", "tasks")
    },
}
GIVEN: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v2/images"): {"json": {"name": "of the matrix"}},
    ("PATCH", IMAGE): {"content": "[]", "headers": PATCH},
    ("PUT", f"{IMAGE}/file"): {"content": CONTENT, "headers": OCTETS},
    ("PUT", f"{IMAGE}/stage"): {"content": CONTENT, "headers": OCTETS},
    ("POST", f"{IMAGE}/import"): {"json": {"method": {"name": "glance-direct"}}},
    ("POST", MEMBERS): {"json": {"member": "0" * 32}},
    ("PUT", MEMBER): {"json": {"status": "accepted"}},
    ("POST", f"{IMAGE}/locations"): {"json": {"url": "http://127.0.0.1/x"}},
    ("POST", "/v2/tasks"): {"json": {}},
}
QUEUED: Final = {
    (method, f"{IMAGE}/{part}") for method, part in (("PUT", "file"), ("PUT", "stage"), ("POST", "import"))
}


@pytest.mark.parametrize(
    ("method", "path"),
    # Metadata definitions have a table of their own, in test_metadefs.
    sorted({(r.method, r.path) for r in ROUTES if r.permission is not None and "/metadefs/" not in r.path}),
)
def test_each_call_answers_each_caller_as_it_may(actors: Actors, method: str, path: str) -> None:
    """From the route table: a new route without a row fails here."""
    expected = dict(zip(ALL, MATRIX[method, path], strict=True))

    filled = {
        "{member_id}": actors.clients["pending"].project_id,
        "{tag:path}": "x",
        "{store_id}": "local",
        "{task_id}": str(uuid.uuid4()),
    }
    make = create if (method, path) in QUEUED else active
    answered: dict[str, int] = {}
    image_id = ""
    for actor in ALL:
        if not image_id and "{image_id}" in path:
            image_id = actors.shared_image(lambda owner: make(owner, tags=["x"]))["id"]
        changed = path.replace("{image_id}", image_id)
        for name, value in filled.items():
            changed = changed.replace(name, value)
        status = actors.call(actor, method, changed, **GIVEN.get((method, path), {})).status_code
        if method not in ("GET", "HEAD") and status < 300:
            image_id = ""  # it is no longer as it was: the next one gets another
        answered[actor] = status

    assert answered == expected


# --- visibilities -----------------------------------------------------------------------------------------------------

OWN = ("reader", "owner", "admin")
SEEN = {"private": OWN, "community": ALL[2:], "public": ALL[2:]}
LISTED = {"private": OWN, "community": ("reader", "owner"), "public": ALL[2:]}  # when no visibility is asked for


@pytest.mark.parametrize("visibility", SEEN)
def test_each_visibility_shows_an_image_to_whom_it_is_meant_for(actors: Actors, visibility: str) -> None:
    owner, admin = actors.clients["owner"], actors.clients["admin"]
    if visibility == "public":  # which an admin makes it
        image = active(admin, visibility=visibility, owner=owner.project_id)
    else:
        image = active(owner, visibility=visibility)
    operation = {"content": "[]", "headers": PATCH}

    def answers(method: str, path: str, **given: Any) -> dict[str, int]:
        return {actor: actors.call(actor, method, path, **given).status_code for actor in ALL[2:]}

    def listed(actor: str, **params: str) -> bool:
        answer = actors.clients[actor].http.get("/v2/images", params={"name": image["name"], **params})
        return [one["id"] for one in answer.json()["images"]] == [image["id"]]

    seen = {actor: 200 if actor in SEEN[visibility] else 404 for actor in ALL[2:]}
    assert answers("GET", image["self"]) == seen
    assert answers("GET", image["file"]) == seen
    refused = {actor: 403 if seen[actor] == 200 else 404 for actor in ALL[2:]}
    assert answers("PATCH", image["self"], **operation) == {**refused, "owner": 200, "admin": 200}
    assert answers("POST", f"{image['self']}/members", json={"member": "0" * 32}) == {
        **refused,
        "owner": 403,
        "admin": 403,
    }
    assert tuple(actor for actor in ALL[2:] if listed(actor)) == LISTED[visibility]
    assert {actor for actor in ALL[2:] if listed(actor, visibility=visibility)} == set(SEEN[visibility])
    assert admin.http.delete(image["self"]).status_code == 204


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A user of a service without workers: what is importing stays so."""
    service = Service(tmp_path_factory.mktemp("resting"), environment={"CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000"})
    try:
        with service.start("--no-worker").demo() as client:
            yield client
    finally:
        if service.process is not None and service.process.poll() is None:
            service.stop()


@contextlib.contextmanager
def queued(client: Client) -> Iterator[dict[str, Any]]:
    yield create(client)


@contextlib.contextmanager
def saving(client: Client) -> Iterator[dict[str, Any]]:
    image = create(client)
    with socket.create_connection(("127.0.0.1", client.service.port)) as connection:
        connection.sendall(raw_request(client, image["file"], "Content-Length: 100000") + b"the first of many")
        until(lambda: client.image(image["id"])["status"] == "saving", "the upload to begin")
        yield image


@contextlib.contextmanager
def uploading(client: Client) -> Iterator[dict[str, Any]]:
    image = create(client)
    staged = client.http.put(f"{image['self']}/stage", content=CONTENT, headers=OCTETS)
    assert staged.status_code == 204, staged.text
    yield image


@contextlib.contextmanager
def importing(client: Client) -> Iterator[dict[str, Any]]:
    with uploading(client) as image:
        answer = client.http.post(f"{image['self']}/import", json={"method": {"name": "glance-direct"}})
        assert answer.status_code == 202, answer.text
        yield image


@contextlib.contextmanager
def activated(client: Client) -> Iterator[dict[str, Any]]:
    yield active(client)


@contextlib.contextmanager
def deactivated(client: Client) -> Iterator[dict[str, Any]]:
    image = active(client)
    assert client.http.post(f"{image['self']}/actions/deactivate").status_code == 204
    yield image


@contextlib.contextmanager
def deleted(client: Client) -> Iterator[dict[str, Any]]:
    image = active(client)
    assert client.http.delete(image["self"]).status_code == 204
    yield image


def _patch(path: str, value: Any) -> dict[str, Any]:
    return {"json": [{"op": "replace", "path": path, "value": value}], "headers": PATCH}


OPERATIONS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "show": ("GET", "", {}),
    "rename": ("PATCH", "", _patch("/name", "renamed")),
    "redeclare": ("PATCH", "", _patch("/disk_format", "qcow2")),
    "upload": ("PUT", "/file", {"content": CONTENT, "headers": OCTETS}),
    "stage": ("PUT", "/stage", {"content": CONTENT, "headers": OCTETS}),
    "import": ("POST", "/import", {"json": {"method": {"name": "glance-direct"}}}),
    "download": ("GET", "/file", {}),
    "deactivate": ("POST", "/actions/deactivate", {}),
    "reactivate": ("POST", "/actions/reactivate", {}),
    "share": ("POST", "/members", {"json": {"member": "0" * 32}}),
    "tag": ("PUT", "/tags/x", {}),
    "delete": ("DELETE", "", {}),
}
STATES: Final[dict[str, tuple[Callable[[Client], Any], tuple[int, ...]]]] = {
    "queued": (queued, (200, 200, 200, 204, 204, 409, 204, 403, 403, 200, 204, 204)),
    "saving": (saving, (200, 200, 403, 409, 409, 409, 204, 403, 403, 200, 204, 204)),
    "uploading": (uploading, (200, 200, 403, 409, 409, 202, 204, 403, 403, 200, 204, 204)),
    "importing": (importing, (200, 200, 403, 409, 409, 409, 204, 403, 403, 200, 204, 204)),
    "active": (activated, (200, 200, 403, 409, 409, 409, 200, 204, 204, 200, 204, 204)),
    "deactivated": (deactivated, (200, 200, 403, 409, 409, 409, 403, 204, 204, 200, 204, 204)),
    "deleted": (deleted, (404,) * 12),
}


@pytest.mark.parametrize("state", STATES)
def test_each_state_allows_what_it_should(resting: Client, state: str) -> None:
    make, row = STATES[state]
    expected = dict(zip(OPERATIONS, row, strict=True))
    answered = {}

    for operation, (method, below, given) in OPERATIONS.items():
        with make(resting) as image:
            before = resting.http.get(image["self"])
            if state != "deleted":
                assert before.json()["status"] == state
            answer = resting.http.request(method, image["self"] + below, **given)
            answered[operation] = answer.status_code
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"], operation
                assert resting.http.get(image["self"]).text == before.text, operation

    assert answered == expected


def test_an_image_that_was_deleted_is_not_made_again(resting: Client) -> None:
    with deleted(resting) as image:
        answer: httpx.Response = resting.http.post("/v2/images", json={"id": image["id"]})

    assert answer.status_code == 409
