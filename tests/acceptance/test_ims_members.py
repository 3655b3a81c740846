"""Sharing as IMS has it: batches that are jobs, with the result of each pair; who an image is shared with."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.test_imagev2 import active, create
from tests.actors import Actors
from tests.description import held_to_its_description
from tests.inventory import Described
from tests.service import Client, Service

BATCH: Final = "/v1/cloudimages/members"


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[Actors]:
    with service.admin() as admin:
        made = Actors(service, admin)
        yield made
        for client in made.clients.values():
            client.http.close()


@pytest.fixture(scope="module")
def owner(actors: Actors) -> Client:
    return actors.clients["owner"]


def call(client: Client, method: str, **body: Any) -> httpx.Response:
    answer = client.http.request(method, BATCH, json=body)
    held_to_its_description(answer)
    return answer


def done(client: Client, method: str, **body: Any) -> dict[str, Any]:
    answer = call(client, method, **body)
    assert answer.status_code == 200, answer.text
    return client.succeeded(answer.json()["job_id"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def statuses(client: Client, image: dict[str, Any]) -> dict[str, str]:
    answer = client.http.get(f"/v1/{client.project_id}/cloudimages/{image['id']}/members")
    held_to_its_description(answer)
    assert answer.status_code == 200, answer.text
    return {member["member_id"]: member["status"] for member in answer.json()["members"]}


def test_images_are_shared_answered_and_withdrawn_in_batches(actors: Actors, owner: Client) -> None:
    images = [active(owner), create(owner)]
    ids = [image["id"] for image in images]
    first, second = actors.clients["pending"], actors.clients["accepted"]
    projects = [first.project_id, second.project_id]

    added = done(owner, "POST", images=ids, projects=projects)
    offered = [statuses(owner, image) for image in images]
    answered = done(second, "PUT", images=ids, project_id=second.project_id, status="accepted")
    refused = done(second, "PUT", images=ids[1:], project_id=second.project_id, status="rejected")
    after = [statuses(owner, image) for image in images]
    again = done(owner, "POST", images=ids, projects=projects)
    removed = done(owner, "DELETE", images=ids, projects=projects)

    assert added["job_type"] == "imsAddImageMembersJob"
    assert added["entities"].keys() == {"results"}
    assert sorted(
        (one["image_id"], one["project_id"], one["status"]) for one in added["entities"]["results"]
    ) == sorted((image_id, project_id, "success") for image_id in ids for project_id in projects)
    assert offered == [dict.fromkeys(projects, "pending")] * 2
    assert answered["job_type"] == "imsUpdateImageMembersJob"
    assert {(one["image_id"], one["status"]) for one in answered["entities"]["results"]} == {
        (image_id, "success") for image_id in ids
    }
    assert refused["entities"]["results"][0]["image_id"] == ids[1]
    assert after == [
        {first.project_id: "pending", second.project_id: "accepted"},
        {first.project_id: "pending", second.project_id: "rejected"},
    ]
    assert {one["status"] for one in again["entities"]["results"]} == {"success"}
    assert (removed["job_type"], removed["entities"]) == ("imsDelImageMembersJob", {"results": []})
    assert [statuses(owner, image) for image in images] == [{}, {}]
    assert done(owner, "DELETE", images=ids, projects=projects)["entities"] == {"results": []}


def test_sharing_again_leaves_the_answer(actors: Actors, owner: Client) -> None:
    image = actors.shared_image(create)
    member = actors.clients["accepted"].project_id

    done(owner, "POST", images=[image["id"]], projects=[member])

    assert statuses(owner, image)[member] == "accepted"


def test_an_offer_is_seen_and_can_be_answered_otherwise(actors: Actors, owner: Client) -> None:
    image, member = create(owner), actors.clients["pending"]
    done(owner, "POST", images=[image["id"]], projects=[member.project_id])

    def listed() -> list[str]:
        answer = member.http.get("/v2/cloudimages", params={"id": image["id"]})
        return [one["visibility"] for one in answer.json()["images"]]

    before = listed()
    done(member, "PUT", images=[image["id"]], project_id=member.project_id, status="accepted")
    between = listed()
    done(member, "PUT", images=[image["id"]], project_id=member.project_id, status="rejected", vault_id="")

    assert (before, between, listed()) == ([], ["shared"], [])
    assert member.http.get(image["self"]).status_code == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
@pytest.mark.parametrize(
    "broken",
    [
        {"images": None},
        {"images": []},
        {"images": "id"},
        {"images": [1]},
        {"images": [str(uuid.UUID(int=n)) for n in range(101)]},
        {"projects": [], "project_id": ""},
        {"projects": "id", "project_id": 5},
        {"projects": None, "project_id": None},
    ],
)
def test_a_batch_names_images_and_projects(owner: Client, method: str, broken: dict[str, Any]) -> None:
    body = {"images": [str(uuid.UUID(int=1))], "projects": ["a" * 32], "project_id": owner.project_id}

    assert code(call(owner, method, **{**body, "status": "accepted", **broken})) == (400, "IMG.0001")


def test_a_batch_is_refused_whole_for_the_first_reason(actors: Actors, owner: Client) -> None:
    mine, foreign = create(owner), active(actors.clients["accepted"])
    shared = actors.shared_image(create)
    member, other = actors.clients["accepted"], actors.clients["stranger"]
    public = create(actors.clients["admin"], visibility="public")
    community = create(owner, visibility="community")
    unknown = str(uuid.UUID(int=1))
    to = [other.project_id]

    def add(client: Client, image_ids: list[str], projects: list[str]) -> tuple[int, str]:
        return code(call(client, "POST", images=image_ids, projects=projects))

    assert add(owner, [mine["id"], unknown], to) == (400, "IMG.0027")
    assert add(owner, [mine["id"], "no id"], to) == (400, "IMG.0027")
    assert add(owner, [mine["id"], foreign["id"]], to) == (400, "IMG.0027")
    assert add(owner, [public["id"]], to) == (400, "IMG.0047")
    assert add(actors.clients["admin"], [public["id"]], to) == (400, "IMG.0089")
    assert add(owner, [community["id"]], to) == (400, "IMG.0089")
    assert add(member, [shared["id"]], to) == (400, "IMG.0047")
    assert add(owner, [mine["id"]], [*to, owner.project_id]) == (400, "IMG.0076")
    assert add(owner, [mine["id"]], [*to, uuid.uuid4().hex]) == (400, "IMG.0108")
    assert add(owner, [mine["id"]], [*to, "demo"]) == (400, "IMG.0108")
    assert code(call(owner, "POST", images=[mine["id"]], domains=["x"])) == (400, "IMG.0105")
    assert code(call(member, "DELETE", images=[shared["id"]], projects=to)) == (400, "IMG.0047")
    assert code(call(owner, "DELETE", images=[unknown], projects=to)) == (400, "IMG.0027")
    assert statuses(owner, mine) == {}


def test_only_the_recipient_answers(actors: Actors, owner: Client) -> None:
    image = actors.shared_image(create)
    member, stranger = actors.clients["pending"], actors.clients["stranger"]

    def answer(client: Client, project_id: str, status: str = "accepted") -> tuple[int, str]:
        return code(call(client, "PUT", images=[image["id"]], project_id=project_id, status=status))

    assert answer(owner, owner.project_id) == (400, "IMG.0027")
    assert answer(owner, member.project_id) == (400, "IMG.0030")
    assert answer(stranger, stranger.project_id) == (400, "IMG.0027")
    assert answer(member, member.project_id, "pending") == (400, "IMG.0001")
    assert answer(member, member.project_id, "Accepted") == (400, "IMG.0001")
    assert statuses(owner, image)[member.project_id] == "pending"
    assert code(call(actors.clients["reader"], "POST", images=[image["id"]], projects=["x"])) == (403, "IMG.0026")


@pytest.fixture
def narrow(make_service: Callable[..., Service]) -> Service:
    return make_service(environment={"CALOTYPE_IMAGE_MEMBERS": "2"})


def test_limits_hold_and_what_changed_before_a_job_began_is_told_by_pair(narrow: Service) -> None:
    narrow.start("--no-worker")
    with narrow.admin() as admin, narrow.demo() as demo:
        actors = Actors(narrow, admin)
        projects = [actors.clients[name].project_id for name in ("pending", "accepted", "rejected")]
        kept, gone, alone = create(demo), create(demo), create(demo)
        mixed = call(demo, "POST", images=[kept["id"], gone["id"]], projects=projects[:2]).json()["job_id"]
        failing = call(demo, "POST", images=[alone["id"]], projects=projects[:1]).json()["job_id"]
        too_many = code(call(demo, "POST", images=[kept["id"]], projects=projects))
        for image in (gone, alone):
            assert demo.http.delete(image["self"]).status_code == 204
        narrow.stop()
        narrow.start()

        told, failed = demo.succeeded(mixed), demo.ended(failing)
        full = code(call(demo, "POST", images=[kept["id"]], projects=projects[2:]))

        assert too_many == full == (400, "IMG.0088")
        assert {(one["image_id"], one["status"]) for one in told["entities"]["results"]} == {
            (kept["id"], "success"),
            (gone["id"], "fail"),
        }
        assert statuses(demo, kept) == dict.fromkeys(projects[:2], "pending")
        assert (failed["status"], failed["error_code"]) == ("FAIL", "IMG.0027")
        assert failed["entities"]["error_code"] == "IMG.0027"
        progress = demo.http.get(f"/v1/cloudimages/job/{mixed}").json()
        assert progress["entities"] == {"process_percent": 1, "current_task": progress["entities"]["current_task"]}
        for client in actors.clients.values():
            client.http.close()


# --- who an image is shared with --------------------------------------------------------------------------------------


def test_members_are_told_in_pages_with_their_kind(actors: Actors, owner: Client) -> None:
    image = actors.shared_image(create)
    path = f"/v1/{owner.project_id}/cloudimages/{image['id']}/members"

    first = owner.http.get(path, params={"limit": 2})
    second = owner.http.get(path, params={"limit": 2, "marker": first.json()["page_info"]["next_marker"]})

    held_to_its_description(first)
    assert first.json()["page_info"]["current_count"] == 2
    assert second.json()["page_info"] == {"current_count": 1}
    told = [*first.json()["members"], *second.json()["members"]]
    assert [one["status"] for one in told] == ["pending", "accepted", "rejected"]
    assert {one["member_type"] for one in told} == {"project"}
    assert {one["schema"] for one in told} == {"/v2/schemas/member"}
    assert first.json()["schema"] == "/v2/schemas/members"


def test_a_member_sees_itself_and_one_that_is_not_there_is_not_found(actors: Actors, owner: Client) -> None:
    image, member = actors.shared_image(create), actors.clients["pending"]
    base = "/v1/{}/cloudimages/" + image["id"] + "/members"

    own = member.http.get(f"{base.format(member.project_id)}/{member.project_id}")
    absent = owner.http.get(f"{base.format(owner.project_id)}/{uuid.uuid4().hex}")
    hidden = member.http.get(f"{base.format(member.project_id)}/{actors.clients['accepted'].project_id}")

    held_to_its_description(own)
    assert own.json()["status"] == "pending"
    assert statuses(member, image) == {member.project_id: "pending"}
    assert (absent.status_code, hidden.status_code) == (404, 404)
    assert actors.clients["stranger"].http.get(base.format(actors.clients["stranger"].project_id)).status_code == 404
    assert statuses(owner, create(owner)) == {}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "marker=nobody"])
def test_a_wrong_page_of_members_is_refused(owner: Client, query: str) -> None:
    image = create(owner)

    answer = owner.http.get(f"/v1/{owner.project_id}/cloudimages/{image['id']}/members?{query}")

    held_to_its_description(answer)
    assert code(answer) == (400, "IMG.0001")


def test_a_vault_that_is_named_with_an_answer_must_be_one_for_servers(
    actors: Actors, owner: Client, service: Service
) -> None:
    image = active(owner)
    member = actors.clients["pending"]
    done(owner, "POST", images=[image["id"]], projects=[member.project_id])
    described = Described(service)
    # Of that project only: one of everybody's would be that of other tests' servers.
    good, away, other = (
        described.vault(project=member.project, **fields) for fields in ({}, {"usable": False}, {"type": "disk"})
    )
    answer = {"images": [image["id"]], "project_id": member.project_id, "status": "accepted"}

    for vault_id, wanted in ((uuid.uuid4().hex, "IMG.0184"), (away, "IMG.0188"), (other, "IMG.0193")):
        assert code(call(member, "PUT", **answer, vault_id=vault_id)) == (400, wanted)
    assert statuses(owner, image)[member.project_id] == "pending"
    done(member, "PUT", **answer, vault_id=good)
    assert statuses(owner, image)[member.project_id] == "accepted"
