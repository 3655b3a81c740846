"""The list of images as IMS has it: what is seen, how it is filtered, and in which form it is told."""

import uuid
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.test_imagev2 import CONTENT, active, create
from tests.actors import Actors
from tests.description import held_to_its_description
from tests.service import Client, Service

LIST: Final = "/v2/cloudimages"
PROJECT: Final = str(uuid.UUID(int=7))  # an enterprise project
# Attributes whose type a client decodes strictly; every other one is a string.
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "protected": (bool,),
    "os_hidden": (bool,),
    "tags": (list,),
    "min_disk": (int,),
    "min_ram": (int,),
    "size": (int,),
    "virtual_size": (int, type(None)),
}


def listed(client: Client, **filters: Any) -> list[dict[str, Any]]:
    answer = client.http.get(LIST, params=filters)
    assert answer.status_code == 200, answer.text
    held_to_its_description(answer)
    images: list[dict[str, Any]] = answer.json()["images"]
    return images


def ids(client: Client, **filters: Any) -> set[str]:
    return {image["id"] for image in listed(client, limit=1000, **filters)}


def fault(answer: httpx.Response) -> tuple[int, str]:
    held_to_its_description(answer)
    return answer.status_code, answer.json()["error"]["code"]


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


def test_an_image_is_told_with_the_types_that_clients_decode(owner: Client) -> None:
    image = active(owner, max_ram=4096, __description="nightly", tags=["team=blue"])

    (told,) = listed(owner, id=image["id"])

    wrong = {name: value for name, value in told.items() if not isinstance(value, TYPES.get(name, (str,)))}
    assert wrong == {}
    assert told["max_ram"] == "4096"
    assert told["__image_size"] == str(len(CONTENT))
    assert told["size"] == len(CONTENT)
    assert told["created_at"].endswith("Z")
    assert (told["__imagetype"], told["visibility"], told["__isregistered"]) == ("private", "private", "true")
    assert "name" in told
    assert None not in [value for name, value in told.items() if name != "virtual_size"]


def test_a_queued_image_is_listed_at_once_and_a_deleted_one_is_not(owner: Client) -> None:
    image = create(owner)

    before = listed(owner, id=image["id"], limit=1)
    owner.http.delete(image["self"])
    after = listed(owner, id=image["id"], limit=1)

    assert [one["status"] for one in before] == ["queued"]
    assert after == []


@pytest.mark.parametrize("asked", ["not-an-id", str(uuid.UUID(int=1))])
def test_nothing_found_is_an_empty_list(owner: Client, asked: str) -> None:
    assert owner.http.get(LIST, params={"id": asked}).json() == {"images": []}


@pytest.mark.parametrize(
    ("fields", "hits", "misses"),
    [
        ({"protected": True}, {"protected": "true"}, {"protected": "false"}),
        ({"min_disk": 41}, {"min_disk": "41"}, {"min_disk": "40"}),
        ({"min_ram": 77}, {"min_ram": "77"}, {"min_ram": "76"}),
        ({"disk_format": "qcow2"}, {"disk_format": "qcow2"}, {"disk_format": "raw"}),
        ({"container_format": "bare"}, {"container_format": "bare"}, {"container_format": "ovf"}),
        ({"__os_version": "Ubuntu 18.04 server 64bit"}, {"__platform": "Ubuntu"}, {"__platform": "Debian"}),
        ({"__os_version": "OpenSUSE 15.0 64bit"}, {"__platform": "open SUSE"}, {"__platform": "SUSE"}),
        ({"__os_version": "Windows 10 64bit"}, {"__os_type": "Windows"}, {"__os_type": "Linux"}),
        ({"__os_version": "Windows 10 64bit"}, {"__os_bit": "64"}, {"__os_bit": "32"}),
        ({"virtual_env_type": "DataImage"}, {"virtual_env_type": "DataImage"}, {"virtual_env_type": "FusionCompute"}),
        ({"__support_xen": "true"}, {"__support_xen": "true"}, {"__support_xen": "false"}),
        ({"made_by": "packer"}, {"made_by": "packer"}, {"made_by": "hand"}),
        ({}, {"__isregistered": "true"}, {"__isregistered": "false"}),
        ({}, {"__imagetype": "private"}, {"__imagetype": "gold"}),
        ({}, {"visibility": "private"}, {"visibility": "public"}),
        ({}, {"__whole_image": "false"}, {"__whole_image": "true"}),
        ({}, {"enterprise_project_id": "0"}, {"enterprise_project_id": PROJECT}),
        (
            {"enterprise_project_id": "0"},
            {"enterprise_project_id": "0"},
            {"enterprise_project_id": PROJECT},
        ),
        (
            {"enterprise_project_id": PROJECT},
            {"enterprise_project_id": PROJECT},
            {"enterprise_project_id": "0"},
        ),
        ({}, {"enterprise_project_id": "all_granted_eps"}, {"status": "active"}),
        ({}, {"status": "queued"}, {"status": "killed"}),
        ({}, {"architecture": "x86"}, {"architecture": "arm"}),
        ({}, {"created_at": "gt:2020-01-02 00:00:00"}, {"created_at": "lt:2020-01-02T00:00:00Z"}),
        ({}, {"updated_at": "gte:2020-01-02T00:00:00Z"}, {"updated_at": "2020-01-02T00:00:00Z"}),
        ({}, {"__protected": "true"}, {"market": "true"}),
        ({"tags": ["team=blue"]}, {"tag": "team=blue"}, {"tag": "team=red"}),
        ({"tags": ["team.blue"]}, {"tag": "team=blue"}, {"tag": "team=blu"}),
        ({"tags": ["team=blue"]}, {"tag": "team"}, {"tag": "tea"}),
        ({"tags": ["team.blue"]}, {"tag": "team"}, {"tag": "TEAM"}),
        ({"tags": ["plain"]}, {"tag": "plain"}, {"tag": "plai"}),
        ({"tags": ["team=blue", "plain"]}, {"tag": ["team=blue", "plain"]}, {"tag": ["team=blue", "other"]}),
        ({"tags": ["a.b=c"]}, {"tag": "a.b"}, {"tag": "a"}),
    ],
)
def test_a_filter_finds_what_has_the_value_and_nothing_else(
    owner: Client, fields: dict[str, Any], hits: dict[str, Any], misses: dict[str, Any]
) -> None:
    image = create(owner, **fields)

    assert ids(owner, id=image["id"], **hits) == {image["id"]}
    assert ids(owner, id=image["id"], **misses) == set()


def test_sizes_are_bounds_that_count_themselves_in(owner: Client) -> None:
    image, size = active(owner), len(CONTENT)

    assert ids(owner, id=image["id"], size_min=size, size_max=size) == {image["id"]}
    assert ids(owner, id=image["id"], size_min=size + 1) == set()
    assert ids(owner, id=image["id"], size_max=size - 1) == set()


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=x",
        "marker=nothing",
        "sort_key=mood",
        "sort_dir=up",
        "created_at=since:2020-01-01T00:00:00Z",
        "updated_at=gt:yesterday",
        "visibility=mine",
        "member_status=maybe",
        "protected=perhaps",
        "__whole_image=partly",
        "min_disk=many",
        "enterprise_project_id=7",
        "name=%00",
        "&".join(f"tag=t{n}" for n in range(51)),
    ],
)
def test_a_wrong_filter_is_refused(owner: Client, query: str) -> None:
    assert fault(owner.http.get(f"{LIST}?{query}")) == (400, "IMG.0001")


def test_a_flavor_that_nobody_knows_is_refused(owner: Client) -> None:
    assert fault(owner.http.get(LIST, params={"flavor_id": "c3.large.2"})) == (400, "IMG.0192")


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", ["name", "container_format", "disk_format", "status", "id", "size", "created_at"])
def test_pages_follow_one_another_in_any_order(owner: Client, key: str, direction: str) -> None:
    mark = uuid.uuid4().hex
    made = {create(owner, name=f"page-{n % 3}", mark=mark)["id"] for n in range(5)}
    seen: list[str] = []
    asked = {"mark": mark, "limit": "2", "sort_key": key, "sort_dir": direction}

    for _ in range(3):
        answer = owner.http.get(LIST, params=asked)
        held_to_its_description(answer)
        seen += [image["id"] for image in answer.json()["images"]]
        asked["marker"] = seen[-1]

    assert len(seen) == 5
    assert set(seen) == made
    assert "page_info" not in answer.json()


def test_a_page_of_nothing_and_the_marker_of_the_next(owner: Client) -> None:
    mark = uuid.uuid4().hex
    made = [create(owner, mark=mark)["id"] for _ in range(2)]

    first = owner.http.get(LIST, params={"mark": mark, "limit": 1}).json()

    assert listed(owner, mark=mark, limit=0) == []
    assert first["page_info"] == {"next_marker": made[1]}
    assert owner.http.get(LIST, params={"mark": mark, "limit": 2}).json().keys() == {"images"}


# --- who sees what ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(actors: Actors) -> dict[str, Any]:
    return actors.shared_image(create)


def test_an_image_with_members_is_shared_and_one_without_is_private_again(actors: Actors) -> None:
    owner, member = actors.clients["owner"], actors.clients["stranger"]
    image = create(owner)
    path = f"{image['self']}/members"

    owner.http.post(path, json={"member": member.project_id})
    (told,) = listed(owner, id=image["id"])
    found = {
        visibility: ids(owner, id=image["id"], visibility=visibility) != set() for visibility in ("private", "shared")
    }
    owner.http.delete(f"{path}/{member.project_id}")
    (after,) = listed(owner, id=image["id"])

    assert (told["visibility"], told["__imagetype"]) == ("shared", "shared")
    assert found == {"private": False, "shared": True}
    assert (after["visibility"], after["__imagetype"]) == ("private", "private")
    assert ids(owner, id=image["id"], visibility="private") == {image["id"]}
    assert ids(owner, id=image["id"], visibility="shared") == set()


@pytest.mark.parametrize("answer", ["pending", "accepted", "rejected"])
def test_offers_are_found_by_the_recipients_own_answer(actors: Actors, shared: dict[str, Any], answer: str) -> None:
    recipient, owner = actors.clients[answer], actors.clients["owner"]
    asked = {"visibility": "shared", "__imagetype": "shared", "member_status": answer}

    assert ids(recipient, **asked) == {shared["id"]}
    assert shared["id"] not in ids(owner, **asked)
    assert ids(recipient, id=shared["id"]) == ({shared["id"]} if answer == "accepted" else set())
    assert ids(actors.clients["stranger"], id=shared["id"]) == set()


def test_what_is_shared_in_either_direction_is_told_apart_by_its_owner(actors: Actors, shared: dict[str, Any]) -> None:
    owner, member = actors.clients["owner"], actors.clients["accepted"]

    assert shared["id"] in ids(owner, __imagetype="shared", owner=owner.project_id)
    assert ids(member, __imagetype="shared", owner=owner.project_id) == {shared["id"]}
    assert ids(member, __imagetype="shared", owner=member.project_id) == set()


def test_public_images_are_gold_for_everyone(actors: Actors) -> None:
    image = create(actors.clients["admin"], visibility="public", protected=True)
    asked = {"__imagetype": "gold", "visibility": "public", "protected": "true", "id": image["id"]}

    for actor in ("owner", "stranger", "reader"):
        (told,) = listed(actors.clients[actor], **asked)
        assert (told["__imagetype"], told["visibility"]) == ("gold", "public")
    assert ids(actors.clients["stranger"], owner=actors.clients["stranger"].project_id) == set()


def test_an_admin_lists_the_images_of_all_and_nobody_none(actors: Actors, shared: dict[str, Any]) -> None:
    admin = actors.clients["admin"]

    assert ids(admin, id=shared["id"], visibility="shared") == {shared["id"]}
    assert ids(admin, id=shared["id"], visibility="private") == set()
    private = create(actors.clients["owner"], visibility="private")
    assert ids(admin, id=private["id"], visibility="private") == {private["id"]}
    assert ids(admin, visibility="shared", member_status="pending") == set()
    assert actors.call("nobody", "GET", LIST).status_code == 401
