"""The roles and policies that the IMS API documents, given to users by an administrator; and how a refusal looks."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.test_imagev2 import create
from tests.service import Client, Service

PASSWORD: Final = "a long password"
Make = Callable[..., Client]


@pytest.fixture
def user(service: Service, admin: Client, demo: Client) -> Iterator[Make]:
    """A user with the given roles on the project `demo`; roles that are not there are made."""
    opened: list[Client] = []
    undo: list[str] = []

    def make(*roles: str) -> Client:
        user_id = _made(admin, "user", name=f"user-{uuid.uuid4().hex[:8]}", password=PASSWORD)
        undo.append(f"/identity/v3/users/{user_id}")
        for role in roles:
            known = admin.http.get("/identity/v3/roles", params={"name": role}).json()["roles"]
            role_id = known[0]["id"] if known else _made(admin, "role", name=role)
            path = f"/identity/v3/projects/{demo.project_id}/users/{user_id}/roles/{role_id}"
            assert admin.http.put(path).status_code == 204
        name = admin.http.get(f"/identity/v3/users/{user_id}").json()["user"]["name"]
        opened.append(Client(service, name, PASSWORD, demo.project))
        return opened[-1]

    yield make
    for client in opened:
        client.http.close()
    for path in undo:
        admin.http.delete(path)


def _made(admin: Client, kind: str, **fields: Any) -> str:
    answer = admin.http.post(f"/identity/v3/{kind}s", json={kind: fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()[kind]["id"])


def denied(answer: httpx.Response) -> bool:
    """Whether it was refused for want of an action, which IMS tells with one code."""
    if answer.status_code != 403:
        return False
    assert answer.json()["error"]["code"] == "IMG.0026", answer.text
    return True


NOWHERE: Final = str(uuid.UUID(int=0))


def calls(client: Client, image_id: str) -> dict[str, bool]:
    """One call of each kind, each with a body that does nothing: which of them are refused."""
    http = client.http
    return {
        "list": denied(http.get("/v2/cloudimages", params={"id": image_id})),
        "quota": denied(http.get("/v1/cloudimages/quota")),
        "job": denied(http.get(f"/v1/{client.project_id}/jobs/{uuid.uuid4().hex}")),
        "progress": denied(http.get(f"/v1/cloudimages/job/{uuid.uuid4().hex}")),
        "update": denied(http.patch(f"/v2/cloudimages/{image_id}", json=[{"op": "bad"}])),
        "system": denied(http.post("/v2/cloudimages/action", json={})),
        "either": denied(http.post("/v1/cloudimages/action", json={})),
        "data": denied(http.post("/v1/cloudimages/dataimages/action", json={})),
        "whole": denied(http.post("/v1/cloudimages/wholeimages/action", json={})),
        "quick": denied(http.post("/v2/cloudimages/quickimport/action", json={})),
        "export": denied(http.post(f"/v1/cloudimages/{image_id}/file", json={})),
        "copy": denied(http.post(f"/v1/cloudimages/{image_id}/copy", json={})),
        "share": denied(http.post("/v1/cloudimages/members", json={})),
        "upload": denied(http.put(f"/v1/cloudimages/{image_id}/upload", json={})),
    }


READS: Final = {"list", "quota", "job", "progress"}
EVERY: Final = READS | {"update", "system", "either", "data", "whole", "quick", "export", "copy", "share", "upload"}


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        (("IMS FullAccess",), EVERY),
        (("IMS Administrator", "Tenant Administrator"), EVERY),
        (("IMS ReadOnlyAccess",), READS),
        (("IMS Administrator",), set()),
        (("Server Administrator", "IMS Administrator"), {"list", "job", "update", "upload"}),
        (("op_gated_lld",), set()),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_a_documented_role_allows_what_is_documented(
    user: Make, demo: Client, roles: tuple[str, ...], allowed: set[str]
) -> None:
    image_id = create(demo)["id"]

    refused = calls(user(*roles), image_id)

    assert {call for call, was in refused.items() if not was} == allowed


@pytest.mark.parametrize("role", ["IMS ReadOnlyAccess", "op_gated_lld"])
def test_what_may_not_be_done_is_refused_alike_whether_or_not_the_image_is_there(
    user: Make, demo: Client, role: str
) -> None:
    client, image_id = user(role), create(demo)["id"]

    there, nowhere = (
        client.http.post(f"/v1/cloudimages/{one}/copy", json={"name": "x"}) for one in (image_id, NOWHERE)
    )
    tagged = client.http.put("/v1/cloudimages/tags", json={"image_id": NOWHERE, "tag": "a"})

    assert denied(there)
    assert denied(nowhere)
    assert denied(tagged)
    assert there.json()["error"] == nowhere.json()["error"]
    assert client.http.delete(f"/v2/images/{NOWHERE}").status_code == 403
    assert client.http.delete(f"/v2/images/{image_id}").status_code == 403
    assert demo.image(image_id)["status"] == "queued"


def test_a_policy_does_not_reach_over_to_other_services(user: Make, demo: Client) -> None:
    client = user("IMS FullAccess")

    assert client.http.get("/calotype/v1/buckets").status_code == 403
    assert client.http.get("/identity/v3/users").status_code == 403
    assert client.http.get("/v2/cache").status_code == 403
    bucketeer = user("Tenant Administrator")
    assert bucketeer.http.get("/calotype/v1/buckets").status_code == 200
    assert bucketeer.http.get("/v2/images").status_code == 403
