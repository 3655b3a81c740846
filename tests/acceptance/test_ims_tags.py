"""Tags as IMS has them: on one image, over a project, and as a way to find images."""

import uuid
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.test_imagev2 import create
from tests.actors import Actors
from tests.description import held_to_its_description
from tests.service import Client, Service


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


@pytest.fixture(scope="module")
def alone(actors: Actors) -> Client:
    """A project of which no other test knows."""
    return actors.clients["stranger"]


def call(client: Client, method: str, path: str, body: Any = None) -> httpx.Response:
    path = path.replace("{project}", client.project_id)
    answer = client.http.request(method, path, json=body) if body is not None else client.http.request(method, path)
    held_to_its_description(answer)
    return answer


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def of(image: dict[str, Any], rest: str = "") -> str:
    return f"/v2/{{project}}/images/{image['id']}/tags{rest}"


def tags(client: Client, image: dict[str, Any]) -> list[str]:
    return list(client.image(image["id"])["tags"])


ALL: Final = "/v1/cloudimages/tags"


# --- one image --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"tag": "team.blue"}, "team=blue"),
        ({"tag": "team=blue"}, "team=blue"),
        ({"tag": "team"}, "team"),
        ({"tag": " team = blue "}, "team=blue"),
        ({"image_tag": {"key": "team", "value": "blue"}}, "team=blue"),
        ({"image_tag": {"key": "team"}}, "team"),
        ({"tag": "team.blue", "image_tag": {}}, "team=blue"),
        ({"tag": "team.blue", "image_tag": {"key": "", "value": ""}}, "team=blue"),
        ({"tag": "", "image_tag": {"key": "team", "value": ""}}, "team"),
    ],
)
def test_a_tag_is_put_in_every_form(owner: Client, given: dict[str, Any], kept: str) -> None:
    image = create(owner, tags=["other"])

    for _ in range(2):
        assert call(owner, "PUT", ALL, {"image_id": image["id"], **given}).status_code == 204

    assert tags(owner, image) == ["other", kept]


def test_a_key_has_one_value_which_the_next_replaces(owner: Client) -> None:
    image = create(owner, tags=["team.red", "other"])

    call(owner, "PUT", ALL, {"image_id": image["id"], "tag": "team=blue"})
    first = tags(owner, image)
    call(owner, "POST", of(image), {"tag": {"key": "team", "value": "green"}})
    second = tags(owner, image)
    call(
        owner, "POST", of(image, "/action"), {"action": "create", "tags": [{"key": "team"}, {"key": "x", "value": "1"}]}
    )

    assert (first, second) == (["team=blue", "other"], ["team=green", "other"])
    assert tags(owner, image) == ["team", "other", "x=1"]
    assert call(owner, "GET", of(image)).json() == {
        "tags": [{"key": "team", "value": ""}, {"key": "other", "value": ""}, {"key": "x", "value": "1"}]
    }


def test_a_tag_goes_by_its_key_once(owner: Client) -> None:
    image = create(owner, tags=["team=blue", "action=x", "a/b c=d"])

    answers = [
        call(owner, "DELETE", of(image, f"/{key}")).status_code for key in ("team", "team", "action", "a%2Fb%20c")
    ]

    assert answers == [204, 404, 204, 204]
    assert tags(owner, image) == []


@pytest.mark.parametrize(
    "path", ["/v2/{project}/images/{image}/tags/action", "/v1/{project}/cloudimages/{image}/tags/delete"]
)
def test_tags_go_in_a_batch_again_and_again(owner: Client, path: str) -> None:
    image = create(owner, tags=["team=blue", "other"])
    method = "POST" if path.endswith("action") else "DELETE"
    gone = [{"key": "team", "value": "something else"}, {"key": "not there"}, {"key": "!" * 127, "value": "v" * 255}]

    for _ in range(2):
        body = {"action": "delete", "tags": gone}
        assert call(owner, method, path.replace("{image}", image["id"]), body).status_code == 204

    assert tags(owner, image) == ["other"]


BAD_TAGS: Final = (
    {"key": ""},
    {"key": "k" * 37},
    {"key": "with space"},
    {"key": "ümlaut"},
    {"key": "k", "value": "v" * 44},
    {"key": "k", "value": "a.b"},
)


@pytest.mark.parametrize("bad", BAD_TAGS, ids=str)
def test_a_tag_against_the_rules_is_refused_by_every_call(owner: Client, bad: dict[str, str]) -> None:
    image = create(owner)

    answers = [
        call(owner, "PUT", ALL, {"image_id": image["id"], "image_tag": bad}),
        call(owner, "POST", of(image), {"tag": bad}),
        call(owner, "POST", of(image, "/action"), {"action": "create", "tags": [bad]}),
    ]

    assert {code(answer) for answer in answers} == {(400, "IMG.0115")}
    assert tags(owner, image) == []


@pytest.mark.parametrize(
    ("rest", "body", "expected"),
    [
        ("", {}, "IMG.0001"),
        ("", {"tag": "k"}, "IMG.0001"),
        ("", {"tag": {"key": 1}}, "IMG.0001"),
        ("", {"tag": {"key": "k", "value": 1}}, "IMG.0001"),
        ("", [], "IMG.0001"),
        ("/action", {"action": "Create", "tags": [{"key": "k"}]}, "IMG.0001"),
        ("/action", {"tags": [{"key": "k"}]}, "IMG.0001"),
        ("/action", {"action": "create", "tags": []}, "IMG.0001"),
        ("/action", {"action": "create"}, "IMG.0001"),
        ("/action", {"action": "create", "tags": [{"key": "k"}, {"key": "k", "value": "2"}]}, "IMG.0115"),
        ("/action", {"action": "create", "tags": [{"key": f"k{n}"} for n in range(11)]}, "IMG.0116"),
        ("/action", {"action": "delete", "tags": []}, "IMG.0001"),
        ("/action", {"action": "delete", "tags": [{"key": "k" * 128}]}, "IMG.0115"),
        ("/action", {"action": "delete", "tags": [{"key": ""}]}, "IMG.0115"),
        ("/action", {"action": "delete", "tags": [{"key": "k", "value": "v" * 256}]}, "IMG.0115"),
        ("/action", {"action": "delete", "tags": [{"key": "k"}, {"key": "k"}]}, "IMG.0115"),
    ],
)
def test_what_is_no_change_of_tags_is_refused(owner: Client, rest: str, body: Any, expected: str) -> None:
    image = create(owner, tags=["k=1"])

    assert code(call(owner, "POST", of(image, rest), body)) == (400, expected)
    assert tags(owner, image) == ["k=1"]


def test_an_image_has_ten_tags_at_most(owner: Client) -> None:
    image = create(owner, tags=[f"k{n}" for n in range(10)])

    more = [
        call(owner, "PUT", ALL, {"image_id": image["id"], "tag": "eleventh"}),
        call(owner, "POST", of(image), {"tag": {"key": "eleventh"}}),
        call(owner, "POST", of(image, "/action"), {"action": "create", "tags": [{"key": "eleventh"}]}),
    ]

    assert {code(answer) for answer in more} == {(400, "IMG.0116")}
    assert call(owner, "PUT", ALL, {"image_id": image["id"], "tag": "k3=new"}).status_code == 204
    assert len(tags(owner, image)) == 10


@pytest.mark.parametrize(
    "body",
    [
        {"tag": "k"},
        {"image_id": "", "tag": "k"},
        {"image_id": str(uuid.UUID(int=1))},
        {"image_id": str(uuid.UUID(int=1)), "tag": "k", "image_tag": {"key": "k"}},
        {"image_id": 5, "tag": "k"},
        {"image_id": str(uuid.UUID(int=1)), "tag": 5},
        {"image_id": str(uuid.UUID(int=1)), "image_tag": "k"},
    ],
)
def test_a_put_names_one_image_and_one_tag(owner: Client, body: dict[str, Any]) -> None:
    assert code(call(owner, "PUT", ALL, body)) == (400, "IMG.0001")


def test_only_the_owner_tags_and_what_cannot_be_seen_is_not_there(actors: Actors, owner: Client) -> None:
    image = actors.shared_image(create)
    tag, pair = {"image_id": image["id"], "tag": "k"}, {"tag": {"key": "k"}}

    for actor in ("accepted", "pending"):
        other = actors.clients[actor]
        assert code(call(other, "PUT", ALL, tag)) == (400, "IMG.0047")
        assert code(call(other, "POST", of(image), pair)) == (400, "IMG.0047")
        assert code(call(other, "DELETE", of(image, "/k"))) == (400, "IMG.0047")
        assert call(other, "GET", of(image)).status_code == 200
    stranger, reader = actors.clients["stranger"], actors.clients["reader"]
    assert code(call(stranger, "PUT", ALL, tag)) == (400, "IMG.0027")
    assert code(call(stranger, "POST", of(image), pair)) == (404, "IMG.0144")
    assert code(call(stranger, "GET", of(image))) == (404, "IMG.0144")
    assert code(call(owner, "POST", of({"id": "nothing"}), pair)) == (404, "IMG.0144")
    assert code(call(reader, "POST", of(image), pair)) == (403, "IMG.0026")
    foreign = stranger.http.get(f"/v2/{owner.project_id}/images/tags")
    assert code(foreign) == (400, "IMG.0030")


def test_image_ids_and_tags_calls_of_image_v2_win_over_projects(owner: Client) -> None:
    image = create(owner)

    assert owner.http.put(f"{image['self']}/tags/plain").status_code == 204
    assert owner.http.delete(f"{image['self']}/tags/plain").status_code == 204


# --- many images ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family(alone: Client) -> dict[str, str]:
    """Images of a project of its own; name -> id."""
    made = {
        "none": [],
        "red": ["team=red", "os=linux"],
        "blue": ["team.blue", "os=linux"],
        "plain": ["team", "os=windows"],
        "odd": ["team=red", "size=big", "plain"],
    }
    return {name: create(alone, name=f"web-{name}", tags=given)["id"] for name, given in made.items()}


def find(client: Client, **body: Any) -> dict[str, Any]:
    answer = call(client, "POST", "/v2/{project}/images/resource_instances/action", {"action": "filter", **body})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, "none red blue plain odd"),
        ({"tags": [], "not_tags": [], "tags_any": [], "not_tags_any": []}, "none red blue plain odd"),
        ({"tags": [{"key": "team", "values": ["red"]}]}, "red odd"),
        ({"tags": [{"key": "team", "values": ["red", "blue"]}]}, "red blue odd"),
        ({"tags": [{"key": "team", "values": []}]}, "red blue plain odd"),
        ({"tags": [{"key": "team"}]}, "red blue plain odd"),
        ({"tags": [{"key": "team", "values": [""]}]}, "plain"),
        ({"tags": [{"key": "team"}, {"key": "os", "values": ["linux"]}]}, "red blue"),
        ({"tags": [{"key": "tea"}]}, ""),
        ({"tags_any": [{"key": "size"}, {"key": "os", "values": ["windows"]}]}, "plain odd"),
        ({"not_tags": [{"key": "team", "values": ["red"]}, {"key": "os"}]}, "none blue plain odd"),
        ({"not_tags_any": [{"key": "size"}, {"key": "os", "values": ["linux"]}]}, "none plain"),
        ({"tags": [{"key": "team"}], "not_tags_any": [{"key": "os"}]}, "odd"),
        ({"without_any_tag": True, "tags": [{"key": "team"}]}, "none"),
        ({"matches": [{"key": "resource_name", "value": "eb-"}], "tags": [{"key": "size"}]}, "odd"),
        ({"matches": [{"key": "resource_name", "value": "EB-"}]}, ""),
        ({"matches": [{"key": "resource_name", "value": "%"}]}, ""),
        ({"matches": [{"key": "resource_name", "value": ""}]}, ""),
        ({"matches": [{"key": "resource_id", "value": "nothing"}]}, ""),
    ],
)
def test_images_are_found_and_counted_by_tags(
    alone: Client, family: dict[str, str], asked: dict[str, Any], names: str
) -> None:
    expected = {family[name] for name in names.split()}

    told = find(alone, **asked)

    assert {one["resource_id"] for one in told["resources"]} == expected
    assert told["total_count"] == len(expected)
    assert find(alone, **asked, action="count") == {"total_count": len(expected)}


def test_a_found_image_is_told_with_its_tags(alone: Client, family: dict[str, str]) -> None:
    told = find(alone, matches=[{"key": "resource_id", "value": family["blue"].upper()}])

    assert told["resources"] == [
        {
            "resource_id": family["blue"],
            "resource_name": "web-blue",
            "resource_detail": {"status": "queued"},
            "tags": [{"key": "team", "value": "blue"}, {"key": "os", "value": "linux"}],
        }
    ]


def test_what_is_found_comes_in_pages(alone: Client, family: dict[str, str]) -> None:
    pages = [find(alone, limit="2", offset=str(offset)) for offset in (0, 2, 4, 6)]

    assert [len(page["resources"]) for page in pages] == [2, 2, 1, 0]
    assert {page["total_count"] for page in pages} == {5}
    assert {one["resource_id"] for page in pages for one in page["resources"]} == set(family.values())
    assert len(find(alone, limit=1, offset=4)["resources"]) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"action": "Filter"}, "IMG.0001"),
        ({"action": None}, "IMG.0001"),
        ({"limit": "0"}, "IMG.0001"),
        ({"limit": "1001"}, "IMG.0001"),
        ({"limit": "ten"}, "IMG.0001"),
        ({"limit": True}, "IMG.0001"),
        ({"offset": "-1"}, "IMG.0001"),
        ({"offset": "9" * 30}, "IMG.0001"),
        ({"tags": {}}, "IMG.0001"),
        ({"tags": ["k"]}, "IMG.0001"),
        ({"tags": [{"key": "k", "values": "v"}]}, "IMG.0001"),
        ({"tags": [{"key": "k", "values": [1]}]}, "IMG.0001"),
        ({"tags": [{"key": ""}]}, "IMG.0115"),
        ({"tags": [{"key": "k" * 129}]}, "IMG.0115"),
        ({"tags": [{"key": "k", "values": ["v" * 256]}]}, "IMG.0115"),
        ({"tags": [{"key": "k", "values": ["v", "v"]}]}, "IMG.0115"),
        ({"tags": [{"key": "k", "values": [str(n) for n in range(11)]}]}, "IMG.0115"),
        ({"tags_any": [{"key": "k"}, {"key": "k"}]}, "IMG.0115"),
        ({"not_tags": [{"key": f"k{n}"} for n in range(11)]}, "IMG.0115"),
        ({"not_tags_any": [{"key": "k\u0000"}]}, "IMG.0115"),
        ({"without_any_tag": "true"}, "IMG.0001"),
        ({"matches": [{"key": "resource_name"}]}, "IMG.0001"),
        ({"matches": [{"key": "resource_type", "value": "x"}]}, "IMG.0001"),
        ({"matches": [{"key": "resource_name", "value": "x"}, {"key": "resource_name", "value": "y"}]}, "IMG.0001"),
        ({"matches": [{"key": "resource_name", "value": "n" * 256}]}, "IMG.0001"),
        ({"matches": {}}, "IMG.0001"),
    ],
)
def test_a_query_against_the_rules_is_refused(alone: Client, body: dict[str, Any], expected: str) -> None:
    path = "/v2/{project}/images/resource_instances/action"

    assert code(call(alone, "POST", path, {"action": "filter", **body})) == (400, expected)


def test_the_tags_of_a_project_are_told_by_key(alone: Client, family: dict[str, str]) -> None:
    assert call(alone, "GET", "/v2/{project}/images/tags").json() == {
        "tags": [
            {"key": "os", "values": ["linux", "windows"]},
            {"key": "plain", "values": [""]},
            {"key": "size", "values": ["big"]},
            {"key": "team", "values": ["", "blue", "red"]},
        ]
    }


def test_the_tags_of_the_images_that_filters_find_are_told_once(alone: Client, family: dict[str, str]) -> None:
    def listed(**asked: Any) -> list[str]:
        answer = alone.http.get(ALL, params={"owner": alone.project_id, **asked})
        held_to_its_description(answer)
        found: list[str] = answer.json()["tags"]
        return found

    assert listed() == ["os=linux", "os=windows", "plain", "size=big", "team", "team.blue", "team=red"]
    assert listed(id=family["red"]) == ["os=linux", "team=red"]
    assert listed(tag="size") == ["plain", "size=big", "team=red"]
    assert listed(limit=3, page=2) == ["size=big", "team", "team.blue"]
    assert listed(limit=3, page=4) == []
    assert listed(limit=0) == []
    assert listed(name="nobody") == []


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "page=0", "page=x", "visibility=mine", "marker=x"])
def test_a_list_of_tags_refuses_wrong_parameters(alone: Client, query: str) -> None:
    assert code(alone.http.get(f"{ALL}?{query}")) == (400, "IMG.0001")
