"""Metadata definitions over HTTP: what each call answers, to whom; upstream's own tests and client replayed."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import glanceclient
import httpx
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.metadefs import defaults
from calotype.metadefs.model import MOST_DEFINITIONS
from calotype.web.imagev2.metadefs import ROUTES
from tests.acceptance.test_cli import Cli
from tests.description import held_to_its_description
from tests.service import Client, Service

NAMESPACES: Final = "/v2/metadefs/namespaces"
STRING: Final = {"title": "A title", "type": "string"}


def name(prefix: str = "md") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _held(admin: Client, demo: Client) -> None:
    """Each answer of these tests is one that the description has."""
    for client in (admin, demo):
        client.http.event_hooks = {"response": [held_to_its_description]}


def create(client: Client, **fields: Any) -> dict[str, Any]:
    answer = client.http.post(NAMESPACES, json={"namespace": name(), **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def got(client: Client, path: str, **params: Any) -> dict[str, Any]:
    answer = client.http.get(path, params=params or None)  # of {} httpx would make an empty query
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def names(client: Client, path: str, kind: str, field: str = "name", **params: Any) -> list[str]:
    return [each[field] for each in got(client, path, **params)[kind]]


# --- what is there from the beginning ---------------------------------------------------------------------------------


def test_everyone_finds_the_resource_types_and_namespaces_that_the_service_brings(demo: Client) -> None:
    assert set(defaults.RESOURCE_TYPES) <= set(names(demo, "/v2/metadefs/resource_types", "resource_types"))
    listed = names(demo, NAMESPACES, "namespaces", "namespace", limit=1000, resource_types="OS::Glance::Image")

    assert {form.namespace for form in defaults.namespaces()} <= set(listed)
    shown = got(demo, f"{NAMESPACES}/OS::Compute::Watchdog", resource_type="OS::Glance::Image")
    assert list(shown["properties"]) == ["hw_watchdog_action"]
    assert (shown["visibility"], shown["protected"], shown["owner"]) == ("public", True, "admin")


# --- upstream's tests, replayed ---------------------------------------------------------------------------------------


def test_a_protected_namespace_is_deleted_after_it_was_unprotected(admin: Client) -> None:
    resource_type = names(admin, "/v2/metadefs/resource_types", "resource_types")[0]
    called = name()
    fields = {"description": "Tempest", "display_name": called}

    create(
        admin,
        namespace=called,
        visibility="public",
        resource_type_associations=[{"name": resource_type}],
        protected=True,
        **fields,
    )
    assert called in names(admin, NAMESPACES, "namespaces", "namespace")
    shown = got(admin, f"{NAMESPACES}/{called}")
    refused = admin.http.delete(f"{NAMESPACES}/{called}")
    changed = admin.http.put(
        f"{NAMESPACES}/{called}", json={"namespace": called, "visibility": "private", "protected": False, **fields}
    )

    assert (shown["namespace"], shown["visibility"]) == (called, "public")
    assert refused.status_code == 403
    assert changed.status_code == 200
    assert (changed.json()["visibility"], changed.json()["protected"]) == ("private", False)
    assert admin.http.delete(f"{NAMESPACES}/{called}").status_code == 204
    assert admin.http.get(f"{NAMESPACES}/{called}").status_code == 404


def test_objects_are_created_shown_replaced_listed_and_deleted(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin)['namespace']}/objects"
    first, second = name("object"), name("update")

    created = admin.http.post(path, json={"name": first})
    replaced = admin.http.put(f"{path}/{first}", json={"name": second, "properties": {"a": STRING}, "required": ["a"]})

    assert created.status_code == 201
    assert (replaced.status_code, replaced.json()["name"]) == (200, second)
    assert names(admin, path, "objects") == [second]
    shown = got(admin, f"{path}/{second}")
    assert (shown["properties"], shown["required"]) == ({"a": STRING}, ["a"])
    assert (shown["self"], shown["schema"]) == (f"{path}/{second}", "/v2/schemas/metadefs/object")
    assert admin.http.get(f"{path}/{first}").status_code == 404
    assert admin.http.delete(f"{path}/{second}").status_code == 204
    assert names(admin, path, "objects") == []


def test_properties_are_created_shown_replaced_listed_and_deleted(admin: Client) -> None:
    resource_type = names(admin, "/v2/metadefs/resource_types", "resource_types")[0]
    namespace = f"{NAMESPACES}/{create(admin)['namespace']}"
    one = f"{namespace}/properties/{resource_type}"
    form = {"name": resource_type, "title": "first", "type": "string", "enum": ["xen", "qemu", "kvm"]}

    associated = admin.http.post(f"{namespace}/resource_types", json={"name": resource_type})
    created = admin.http.post(f"{namespace}/properties", json=form)
    shown = got(admin, one)
    replaced = admin.http.put(one, json={**form, "title": "second"})
    listed = got(admin, f"{namespace}/properties")
    deleted = admin.http.delete(one)

    assert [answer.status_code for answer in (associated, created, replaced, deleted)] == [201, 201, 200, 204]
    assert shown == created.json() == form
    assert replaced.json()["title"] == "second"
    assert listed == {"properties": {resource_type: {"title": "second", "type": "string", "enum": form["enum"]}}}
    assert got(admin, f"{namespace}/properties") == {"properties": {}}


def test_tags_are_put_added_renamed_and_deleted(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin)['namespace']}/tags"
    three = [{"name": f"sample-tag{n}"} for n in (1, 2, 3)]
    first, second = name("tag"), name("update")

    assert admin.http.post(path, json={"tags": three}).json() == {"tags": three}
    assert sorted(names(admin, path, "tags")) == ["sample-tag1", "sample-tag2", "sample-tag3"]
    assert admin.http.post(f"{path}/{first}").status_code == 201
    assert got(admin, f"{path}/{first}")["name"] == first
    assert admin.http.put(f"{path}/{first}", json={"name": second}).json()["name"] == second
    assert admin.http.delete(f"{path}/{second}").status_code == 204
    assert second not in names(admin, path, "tags")
    assert admin.http.delete(path).status_code == 204
    assert names(admin, path, "tags") == []


def test_a_resource_type_is_associated_listed_and_dissociated(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin)['namespace']}/resource_types"

    made = admin.http.post(path, json={"name": "OS::Nova::Flavor", "prefix": "hw:", "properties_target": "image"})

    assert made.status_code == 201
    shown = got(admin, path)["resource_type_associations"]
    assert shown == [made.json()]
    assert (shown[0]["prefix"], shown[0]["properties_target"]) == ("hw:", "image")
    assert admin.http.delete(f"{path}/OS::Nova::Flavor").status_code == 204
    assert got(admin, path) == {"resource_type_associations": []}
    assert admin.http.delete(f"{path}/OS::Nova::Flavor").status_code == 404


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("namespace", "namespace"),
        ("namespaces", "namespaces"),
        ("resource_type", "resource_type_association"),
        ("resource_types", "resource_type_associations"),
        ("object", "object"),
        ("objects", "objects"),
        ("property", "property"),
        ("properties", "properties"),
        ("tag", "tag"),
        ("tags", "tags"),
    ],
)
def test_schemas_have_the_names_that_clients_know(demo: Client, path: str, called: str) -> None:
    shown = got(demo, f"/v2/schemas/metadefs/{path}")

    assert shown["name"] == called
    assert shown["properties"]


# --- a namespace with everything in it --------------------------------------------------------------------------------

FULL: Final[dict[str, Any]] = {
    "display_name": "Everything",
    "description": "A namespace with one of each",
    "visibility": "public",
    "resource_type_associations": [
        {"name": "OS::Glance::Image", "prefix": "hw_"},
        {"name": "OS::Nova::Server", "properties_target": "metadata"},
    ],
    "properties": {
        "word": {
            "title": "Word",
            "type": "string",
            "description": "d",
            "enum": ["a", "b"],
            "default": "a",
            "pattern": "^[ab]$",
            "minLength": 1,
            "maxLength": 1,
            "operators": ["<or>"],
            "readonly": True,
            "confidential": False,
        },
        "number": {"title": "Number", "type": "number", "minimum": -1.5, "maximum": 10, "default": 3},
        "list": {
            "title": "List",
            "type": "array",
            "items": {"type": "string", "enum": ["x"]},
            "minItems": 0,
            "maxItems": 4,
            "uniqueItems": True,
            "additionalItems": False,
        },
    },
    "objects": [{"name": "thing", "description": "d", "required": ["a"], "properties": {"a": STRING, "b": STRING}}],
    "tags": [{"name": "one"}, {"name": "two words"}],
}


def test_a_namespace_is_created_with_all_that_is_in_it(admin: Client) -> None:
    called = name()

    answer = admin.http.post(NAMESPACES, json={"namespace": called, **FULL})
    shown = got(admin, f"{NAMESPACES}/{called}")

    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{admin.service.url}{NAMESPACES}/{called}"
    assert answer.json() == shown
    assert (shown["owner"], shown["protected"]) == (admin.project_id, False)
    assert shown["properties"] == FULL["properties"]
    assert shown["tags"] == FULL["tags"]
    assert {field: shown["objects"][0][field] for field in FULL["objects"][0]} == FULL["objects"][0]
    assert [each.get("prefix") for each in shown["resource_type_associations"]] == ["hw_", None]


def test_what_is_shown_is_as_the_schemas_say(admin: Client, demo: Client) -> None:
    """The clients of upstream refuse a document with an attribute that its schema does not have."""
    made = create(admin, **FULL)
    path = f"{NAMESPACES}/{made['namespace']}"
    shown = {
        "namespace": got(demo, path),
        "namespaces": got(demo, NAMESPACES, limit=1000),
        "object": got(demo, f"{path}/objects/thing"),
        "objects": got(demo, f"{path}/objects"),
        "property": got(demo, f"{path}/properties/word"),
        "properties": got(demo, f"{path}/properties"),
        "tag": got(demo, f"{path}/tags/two words"),
        "tags": got(demo, f"{path}/tags"),
        "resource_type": got(demo, f"{path}/resource_types")["resource_type_associations"][0],
        "resource_types": got(demo, f"{path}/resource_types"),
    }

    for schema, document in shown.items():
        jsonschema_rs.Draft4Validator(got(demo, f"/v2/schemas/metadefs/{schema}")).validate(document)


def test_a_namespace_that_was_shown_can_be_sent_back(admin: Client) -> None:
    made = create(admin, **FULL)
    path = f"{NAMESPACES}/{made['namespace']}"
    changed = {field: value for field, value in made.items() if field not in ("self", "schema")}
    changed = {field: value for field, value in changed.items() if not field.endswith("_at")}

    answer = admin.http.put(path, json={**changed, "display_name": "Other"})

    assert answer.status_code == 200
    assert got(admin, path) == {**made, "display_name": "Other", "updated_at": answer.json()["updated_at"]}


def test_replacing_takes_back_what_is_not_given(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, **FULL, owner='someone')['namespace']}"
    renamed = name()

    told = admin.http.put(path, json={"namespace": renamed}).json()

    assert (told["visibility"], told["protected"], told["owner"]) == ("private", False, admin.project_id)
    assert {"display_name", "description"} & set(told) == set()
    assert admin.http.get(path).status_code == 404
    assert got(admin, f"{NAMESPACES}/{renamed}")["tags"] == FULL["tags"]


def test_names_of_properties_have_the_prefix_of_the_resource_that_is_asked_for(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, **FULL)['namespace']}"
    image = "OS::Glance::Image"

    prefixed = got(admin, path, resource_type=image)

    assert list(prefixed["properties"]) == ["hw_word", "hw_number", "hw_list"]
    assert list(prefixed["objects"][0]["properties"]) == ["hw_a", "hw_b"]
    assert prefixed["objects"][0]["required"] == ["hw_a"]
    for other in ("OS::Nova::Server", "OS::Nothing"):
        assert list(got(admin, path, resource_type=other)["properties"]) == ["word", "number", "list"]
    assert got(admin, f"{path}/properties/hw_word", resource_type=image)["name"] == "word"
    for called, resource_type in (("word", image), ("hw_x", image), ("word", "OS::Nova::Server"), ("word", "OS::No")):
        asked = admin.http.get(f"{path}/properties/{called}", params={"resource_type": resource_type})
        assert asked.status_code == 404, called


@pytest.mark.parametrize(
    "twice",
    [
        {"objects": [{"name": "a"}, {"name": "a"}]},
        {"tags": [{"name": "a"}, {"name": "a"}]},
        {"resource_type_associations": [{"name": "a"}, {"name": "a"}]},
    ],
)
def test_a_name_given_twice_creates_nothing(admin: Client, twice: dict[str, Any]) -> None:
    called = name()

    answer = admin.http.post(NAMESPACES, json={"namespace": called, **twice})

    assert answer.status_code == 409
    assert admin.http.get(f"{NAMESPACES}/{called}").status_code == 404


def test_names_are_taken_once(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, **FULL)['namespace']}"
    other = create(admin)["namespace"]

    answers = {
        "namespace": admin.http.post(NAMESPACES, json={"namespace": other}),
        "renamed namespace": admin.http.put(path, json={"namespace": other}),
        "object": admin.http.post(f"{path}/objects", json={"name": "thing"}),
        "property": admin.http.post(f"{path}/properties", json={"name": "word", **STRING}),
        "renamed property": admin.http.put(f"{path}/properties/word", json={"name": "list", **STRING}),
        "tag": admin.http.post(f"{path}/tags/one"),
        "renamed tag": admin.http.put(f"{path}/tags/one", json={"name": "two words"}),
        "tags": admin.http.post(
            f"{path}/tags", json={"tags": [{"name": "new"}, {"name": "one"}]}, headers={"X-Openstack-Append": "True"}
        ),
        "association": admin.http.post(f"{path}/resource_types", json={"name": "OS::Glance::Image"}),
    }

    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(answers, 409)
    assert "new" not in names(admin, f"{path}/tags", "tags")
    assert got(admin, path)["properties"] == FULL["properties"]


def test_tags_in_bulk_take_the_place_of_others_unless_they_are_appended(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, **FULL)['namespace']}/tags"
    append = {"X-Openstack-Append": "true"}

    admin.http.post(path, json={"tags": [{"name": "c"}]})
    replaced = names(admin, path, "tags")
    admin.http.post(path, json={"tags": [{"name": "d"}]}, headers=append)
    appended = names(admin, path, "tags")
    none = admin.http.post(path, json={"tags": []})

    assert replaced == ["c"]
    assert appended == ["d", "c"]
    assert (none.status_code, none.json()) == (201, {"tags": []})
    assert names(admin, path, "tags") == appended


def test_nothing_is_deleted_from_a_protected_namespace(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, protected=True, **FULL)['namespace']}"
    before = got(admin, path)

    answers = {
        part: admin.http.delete(path + part).status_code
        for part in ("", "/objects", "/objects/thing", "/properties", "/properties/word", "/tags", "/tags/one")
    }
    answers["/resource_types"] = admin.http.delete(f"{path}/resource_types/OS::Glance::Image").status_code

    assert answers == dict.fromkeys(answers, 403)
    assert got(admin, path) == before


def test_deleting_a_namespace_deletes_what_is_in_it(admin: Client) -> None:
    called = create(admin, **FULL)["namespace"]

    assert admin.http.delete(f"{NAMESPACES}/{called}").status_code == 204
    create(admin, namespace=called)

    assert {"objects", "properties", "tags", "resource_type_associations"} & set(
        got(admin, f"{NAMESPACES}/{called}")
    ) == set()


def test_all_of_a_kind_are_deleted_at_once(admin: Client) -> None:
    path = f"{NAMESPACES}/{create(admin, **FULL)['namespace']}"

    for kind in ("objects", "properties"):
        assert admin.http.delete(f"{path}/{kind}").status_code == 204

    left = got(admin, path)
    assert {"objects", "properties"} & set(left) == set()
    assert left["tags"] == FULL["tags"]


def test_names_with_slashes_blanks_and_letters_of_all_kinds_are_found_again(admin: Client) -> None:
    called = f"{name()} ü"
    made = create(admin, namespace=called)
    path = f"{NAMESPACES}/{quote(called)}"
    odd = "a/b ?#%2F.ü"

    assert made["self"] == path
    assert admin.http.post(f"{path}/objects", json={"name": odd}).status_code == 201
    listed = got(admin, f"{path}/objects")["objects"][0]
    assert got(admin, listed["self"])["name"] == odd
    assert admin.http.post(f"{path}/tags/{quote(odd, safe='')}").json()["name"] == odd
    assert admin.http.delete(f"{path}/tags/{quote(odd, safe='')}").status_code == 204


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_of_namespaces_is_walked_page_by_page(admin: Client) -> None:
    resource_type = name("type")
    made = [
        create(admin, display_name="same", resource_type_associations=[{"name": resource_type}])["namespace"]
        for _ in range(5)
    ]
    for key, direction, expected in (
        ("created_at", "desc", made[::-1]),
        ("created_at", "asc", made),
        ("namespace", "asc", sorted(made)),
        ("display_name", "desc", made[::-1]),
        ("protected", "asc", made),
    ):
        asked = {"sort_key": key, "sort_dir": direction, "resource_types": f"OS::None,{resource_type}", "limit": "2"}
        page = got(admin, NAMESPACES, **asked)
        walked = [page]
        while "next" in page:
            page = got(admin, page["next"])
            walked.append(page)

        assert [each["namespace"] for one in walked for each in one["namespaces"]] == expected, key
        assert [len(one["namespaces"]) for one in walked] == [2, 2, 1]
        assert {one["first"] for one in walked} == {walked[0]["first"]}
        assert got(admin, walked[0]["first"]) == walked[0]
        assert walked[0]["schema"] == "/v2/schemas/metadefs/namespaces"


def test_lists_are_filtered(admin: Client, demo: Client) -> None:
    resource_type = name("type")
    kinds = {
        (visibility, protected): create(
            admin,
            visibility=visibility,
            protected=protected,
            resource_type_associations=[{"name": resource_type}],
        )["namespace"]
        for visibility in ("public", "private")
        for protected in (True, False)
    }

    def listed(client: Client, **asked: str) -> set[str]:
        return set(names(client, NAMESPACES, "namespaces", "namespace", resource_types=resource_type, **asked))

    assert listed(admin) == set(kinds.values())
    assert listed(admin, visibility="private") == {kinds["private", True], kinds["private", False]}
    assert listed(admin, protected="true") == {kinds["public", True], kinds["private", True]}
    assert listed(demo) == {kinds["public", True], kinds["public", False]}
    assert listed(demo, visibility="private") == set()
    assert listed(demo, protected="False", visibility="public") == {kinds["public", False]}
    assert listed(demo, unknown="parameter") == listed(demo)
    assert got(demo, NAMESPACES, limit=0)["namespaces"] == []


@pytest.mark.parametrize("kind", ["tags", "objects"])
def test_tags_and_objects_are_walked_page_by_page(admin: Client, kind: str) -> None:
    called = [{"name": each} for each in ("b", "a", "c")]
    path = f"{NAMESPACES}/{create(admin, **{kind: called})['namespace']}/{kind}"

    first = got(admin, path, limit=2, sort_key="name", sort_dir="asc")
    second = got(admin, first["next"])

    assert [[each["name"] for each in page[kind]] for page in (first, second)] == [["a", "b"], ["c"]]
    assert "next" not in second
    assert names(admin, path, kind) == ["c", "a", "b"]
    assert names(admin, path, kind, marker="a") == ["b"]
    assert admin.http.get(path, params={"marker": "nothing"}).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"limit": "-1"}, 400),
        ({"limit": "x"}, 400),
        ({"limit": "\u0661"}, 400),
        ({"limit": "9" * 5000}, 200),
        ({"sort_dir": "up"}, 400),
        ({"sort_key": "nothing"}, 400),
        ({"sort_key": "n.name; DROP TABLE metadef_namespaces"}, 400),
        ({"visibility": "shared"}, 400),
        ({"protected": "maybe"}, 400),
        ({"marker": "no such namespace"}, 404),
        ({"marker": "\x00"}, 404),
        ({"marker": "' OR 1=1 --"}, 404),
        ({"resource_types": "a\x00b,"}, 200),
        ({"resource_types": ","}, 200),
        ({"resource_types": ",".join(f"t{n}" for n in range(200))}, 400),
    ],
)
def test_parameters_of_a_list_are_checked(demo: Client, asked: dict[str, str], status: int) -> None:
    assert demo.http.get(NAMESPACES, params=asked).status_code == status


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_PROPERTIES: Final[list[dict[str, Any]]] = [
    {},
    {"title": "t"},
    {"type": "string"},
    {"title": 1, "type": "string"},
    {"title": "t", "type": "file"},
    {"title": "t", "type": None},
    {"title": "t", "type": "string", "minLength": -1},
    {"title": "t", "type": "string", "minimum": "1"},
    {"title": "t", "type": "string", "enum": "a"},
    {"title": "t", "type": "string", "enum": [["a"]]},
    {"title": "t", "type": "string", "readonly": "yes"},
    {"title": "t", "type": "array", "items": {"enum": []}},
    {"title": "t", "type": "array", "items": {"type": "string", "items": {}}},
    {"title": "t", "type": "string", "required": ["a", "a"]},
    {"title": "t", "type": "string", "unknown": 1},
    {"title": "t" * 256, "type": "string"},
    {"title": "t", "type": "string", "default": "x" * 70_000},
]


@pytest.mark.parametrize("form", BAD_PROPERTIES, ids=str)
def test_a_property_that_is_none_is_refused_wherever_it_is_sent(admin: Client, form: dict[str, Any]) -> None:
    called, there = name(), f"{NAMESPACES}/{create(admin, properties={'p': STRING})['namespace']}"

    answers = [
        admin.http.post(f"{there}/properties", json={"name": "new", **form}),
        admin.http.put(f"{there}/properties/p", json={"name": "p", **form}),
        admin.http.post(f"{there}/objects", json={"name": "new", "properties": {"a": form}}),
        admin.http.post(NAMESPACES, json={"namespace": called, "properties": {"a": form}}),
        admin.http.post(NAMESPACES, json={"namespace": called, "objects": [{"name": "o", "properties": {"a": form}}]}),
    ]

    assert [answer.status_code for answer in answers] == [400] * 5
    assert admin.http.get(f"{NAMESPACES}/{called}").status_code == 404
    assert got(admin, there)["properties"] == {"p": STRING}


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({}, 400),
        ({"namespace": ""}, 400),
        ({"namespace": "x" * 81}, 400),
        ({"namespace": "a/b"}, 400),
        ({"namespace": ".."}, 400),
        ({"namespace": "a\n"}, 400),
        ({"namespace": "a\x00"}, 400),
        ({"namespace": 1}, 400),
        ({"namespace": "bad", "visibility": "shared"}, 400),
        ({"namespace": "bad", "protected": "true"}, 400),
        ({"namespace": "bad", "display_name": "x" * 81}, 400),
        ({"namespace": "bad", "description": "x" * 501}, 400),
        ({"namespace": "bad", "description": "\x00"}, 400),
        ({"namespace": "bad", "owner": "x" * 256}, 400),
        ({"namespace": "bad", "unknown": 1}, 400),
        ({"namespace": "bad", "tags": ["a"]}, 400),
        ({"namespace": "bad", "tags": [{}]}, 400),
        ({"namespace": "bad", "objects": {}}, 400),
        ({"namespace": "bad", "resource_type_associations": [{"name": "x" * 81}]}, 400),
        ({"namespace": "bad", "resource_type_associations": [{"name": f"t{n}"} for n in range(101)]}, 400),
        ({"namespace": "bad", "tags": [{"name": f"t{n}"} for n in range(MOST_DEFINITIONS + 1)]}, 400),
        ({"namespace": "bad", "self": "x"}, 403),
        ({"namespace": "bad", "schema": "x"}, 403),
        ({"namespace": "bad", "created_at": "x"}, 403),
        ({"namespace": "bad", "updated_at": "x"}, 403),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_namespace_that_is_none_is_refused(admin: Client, document: dict[str, Any], status: int) -> None:
    assert admin.http.post(NAMESPACES, json=document).status_code == status
    assert admin.http.get(f"{NAMESPACES}/bad").status_code == 404


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'"\xff"', b"[" * 100_000, b'{"namespace": 1e999}'])
def test_a_body_that_is_no_document_is_refused(admin: Client, content: bytes) -> None:
    assert admin.http.post(NAMESPACES, content=content).status_code == 400


def test_a_namespace_is_never_larger_than_can_be_shown(admin: Client) -> None:
    tags = [{"name": f"t{n}"} for n in range(MOST_DEFINITIONS)]
    many = f"{NAMESPACES}/{create(admin, tags=tags)['namespace']}"
    large = f"{NAMESPACES}/{create(admin)['namespace']}"
    form = {"title": "t", "type": "string", "default": "x" * 60_000}

    one_more = [
        admin.http.post(f"{many}/tags/one-more"),
        admin.http.post(f"{many}/objects", json={"name": "one more"}),
    ]
    filled = [admin.http.post(f"{large}/properties", json={"name": f"p{n}", **form}).status_code for n in range(15)]

    assert [answer.status_code for answer in one_more] == [413, 413]
    assert filled == [201] * 13 + [413] * 2
    assert len(got(admin, f"{large}/properties")["properties"]) == 13
    assert len(got(admin, f"{many}/tags")["tags"]) == MOST_DEFINITIONS


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
WORDS: Final = st.sampled_from(
    ["title", "type", "enum", "default", "items", "name", "required", "minimum", "maxLength"]
)
FORMS: Final = st.dictionaries(WORDS, JSON | st.sampled_from(["string", "array", "number"]), max_size=6)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=FORMS, called=st.text(min_size=1, max_size=90), whole=JSON)
def test_whatever_is_sent_is_taken_or_refused(admin: Client, form: dict[str, Any], called: str, whole: Any) -> None:
    """The hooks hold each answer to the description, which has no 5xx but 503."""
    there = f"{NAMESPACES}/hypothesis"
    in_path = quote(called.encode("utf-8", "surrogatepass"), safe="")
    admin.http.post(NAMESPACES, json={"namespace": "hypothesis"})
    whole = json.dumps(whole)

    answers = [
        admin.http.post(f"{there}/properties", content=json.dumps({"title": "t", "type": "string", **form})),
        admin.http.post(f"{there}/objects", content=json.dumps({"name": called, "properties": {called: form}})),
        admin.http.post(f"{there}/tags/{in_path}"),
        admin.http.put(f"{there}/tags/{in_path}", content=json.dumps({"name": called})),
        admin.http.get(f"{there}/objects/{in_path}"),
        admin.http.get(f"{NAMESPACES}/{in_path}"),
        admin.http.post(f"{there}/resource_types", content=whole),
        admin.http.put(there, content=whole),
    ]
    shown = admin.http.get(there)
    cleared = [admin.http.delete(f"{there}/{kind}") for kind in ("properties", "objects", "tags")]

    assert {answer.status_code for answer in answers} <= {200, 201, 400, 403, 404, 405, 409, 413}
    assert [answer.status_code for answer in (shown, *cleared)] == [200, 204, 204, 204]


# --- who may do what --------------------------------------------------------------------------------------------------

ROLES: Final = ("nobody", "reader", "member", "admin")


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[dict[str, Client]]:
    """A reader of the demo project, its member, an admin."""
    with contextlib.ExitStack() as opened:
        admin, member = (opened.enter_context(client) for client in (service.admin(), service.demo()))
        roles = {role["name"]: role["id"] for role in admin.http.get("/identity/v3/roles").json()["roles"]}
        fields = {"name": name("user"), "password": "a long password", "domain_id": "default"}
        user = admin.http.post("/identity/v3/users", json={"user": fields}).json()["user"]
        path = f"/identity/v3/projects/{member.project_id}/users/{user['id']}/roles/{roles['reader']}"
        assert admin.http.put(path).status_code == 204
        reader = opened.enter_context(Client(service, user["name"], "a long password", "demo"))
        yield {"reader": reader, "member": member, "admin": admin}


GIVEN: Final[dict[tuple[str, str], Any]] = {
    ("POST", "namespaces"): lambda: {"namespace": name()},
    ("PUT", "{namespace}"): lambda: {"namespace": "of-the-matrix"},
    ("POST", "objects"): lambda: {"name": name()},
    ("POST", "properties"): lambda: {"name": name(), **STRING},
    ("POST", "tags"): lambda: {"tags": [{"name": name()}]},
    ("POST", "resource_types"): lambda: {"name": name()},
    ("PUT", "{object_name:path}"): lambda: {"name": "thing"},
    ("PUT", "{property_name:path}"): lambda: {"name": "word", **STRING},
    ("PUT", "{tag_name:path}"): lambda: {"name": "one"},
}
IN_PATH: Final = {
    "namespace": "of-the-matrix",
    "object_name:path": "thing",
    "property_name:path": "word",
    "tag_name:path": "one",
    "resource_type:path": "OS::Glance::Image",
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_everyone_reads_and_admins_write(actors: dict[str, Client], route: Any) -> None:
    """From the route table: reading is 200 for all with a token, writing for an admin only."""
    admin = actors["admin"]
    path = route.path
    for parameter, value in IN_PATH.items():
        path = path.replace(f"{{{parameter}}}", value)
    given_ = GIVEN.get((route.method, route.path.rsplit("/", 1)[1]))
    answered = {}
    for role in ROLES:
        admin.http.put(f"{NAMESPACES}/of-the-matrix", json={"namespace": "of-the-matrix"})
        admin.http.delete(f"{NAMESPACES}/of-the-matrix")
        create(admin, namespace="of-the-matrix", **FULL)
        if (route.method, route.path.rsplit("/", 1)[1]) == ("POST", "{tag_name:path}"):
            admin.http.delete(path)
        send = httpx.request if role == "nobody" else actors[role].http.request
        url = admin.service.url + path
        answered[role] = send(route.method, url, **({"json": given_()} if given_ else {})).status_code

    allowed = route.status
    refused = allowed if route.method == "GET" else 403
    assert answered == {"nobody": 401, "reader": refused, "member": refused, "admin": allowed}


def test_a_private_namespace_is_there_for_its_project_and_admins_only(actors: dict[str, Client], admin: Client) -> None:
    member, reader = actors["member"], actors["reader"]
    own = create(admin, owner=member.project_id, **{**FULL, "visibility": "private"})["namespace"]
    foreign = create(admin, **{**FULL, "visibility": "private"})["namespace"]
    parts = ("", "/objects", "/objects/thing", "/properties", "/properties/word", "/tags", "/tags/one")

    for client in (member, reader):
        seen = {part: client.http.get(f"{NAMESPACES}/{own}{part}").status_code for part in (*parts, "/resource_types")}
        unseen = {part: client.http.get(f"{NAMESPACES}/{foreign}{part}") for part in (*parts, "/resource_types")}
        missing = client.http.get(f"{NAMESPACES}/{'0' * len(foreign)}")
        listed = names(client, NAMESPACES, "namespaces", "namespace", limit=1000)

        assert seen == dict.fromkeys(seen, 200)
        assert {part: answer.status_code for part, answer in unseen.items()} == dict.fromkeys(unseen, 404)
        assert unseen[""].text.replace(foreign, "") == missing.text.replace("0" * len(foreign), "")
        assert client.http.get(NAMESPACES, params={"marker": foreign}).status_code == 404
        assert (own in listed, foreign in listed) == (True, False)


# --- upstream's client ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_client_of_upstream_does_all_of_it(admin: Client) -> None:
    client: Any = glanceclient.Client("2", endpoint=admin.service.url, token=admin.token)
    called, renamed = name(), name()

    client.metadefs_namespace.create(namespace=called, **FULL)
    shown = client.metadefs_namespace.get(called, resource_type="OS::Glance::Image")
    asked = {"page_size": 3, "sort_key": "namespace", "filters": {"resource_types": ["OS::Glance::Image"]}}
    listed = list(client.metadefs_namespace.list(sort_dir="asc", **asked))
    changed = client.metadefs_namespace.update(called, namespace=renamed, protected=False)
    assert (shown["namespace"], "hw_word" in shown["properties"]) == (called, True)
    assert called in [each.namespace for each in listed]
    assert changed.namespace == renamed

    assert client.metadefs_resource_type.associate(renamed, name="OS::Nova::Flavor", prefix="hw:").prefix == "hw:"
    assert "OS::Nova::Flavor" in [each.name for each in client.metadefs_resource_type.get(renamed)]
    client.metadefs_resource_type.deassociate(renamed, "OS::Nova::Flavor")
    assert "OS::Nova::Flavor" in [each.name for each in client.metadefs_resource_type.list()]

    client.metadefs_property.create(renamed, name="p", title="first", type="integer", minimum=1)
    assert client.metadefs_property.update(renamed, "p", title="second").title == "second"
    assert client.metadefs_property.get(renamed, "p").minimum == 1
    assert {each.name for each in client.metadefs_property.list(renamed)} == {"word", "number", "list", "p"}
    client.metadefs_property.delete(renamed, "p")
    client.metadefs_property.delete_all(renamed)
    assert list(client.metadefs_property.list(renamed)) == []

    client.metadefs_object.create(renamed, name="o", description="d", properties={"a": STRING})
    assert client.metadefs_object.update(renamed, "o", description="e").description == "e"
    assert client.metadefs_object.get(renamed, "o").properties == {"a": STRING}
    assert {each.name for each in client.metadefs_object.list(renamed)} == {"thing", "o"}
    client.metadefs_object.delete(renamed, "o")
    client.metadefs_object.delete_all(renamed)

    client.metadefs_tag.create(renamed, "t")
    assert client.metadefs_tag.update(renamed, "t", name="u").name == "u"
    assert {each.name for each in client.metadefs_tag.list(renamed)} == {"one", "two words", "u"}
    # Its append=True fails in the client itself, before anything is sent.
    assert [each.name for each in client.metadefs_tag.create_multiple(renamed, tags=["v", "w"])] == ["v", "w"]
    client.metadefs_tag.delete(renamed, "v")
    assert [each.name for each in client.metadefs_tag.list(renamed)] == ["w"]
    client.metadefs_tag.delete_all(renamed)

    client.metadefs_namespace.delete(renamed)
    with pytest.raises(glanceclient.exc.HTTPNotFound):
        client.metadefs_namespace.get(renamed)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`calotype` as an admin runs it."""
    made = Cli(capsys, monkeypatch, service.clouds_yaml)
    monkeypatch.setenv("OS_CLOUD", "calotype-admin")
    return made


def test_files_of_upstreams_form_are_loaded_once(cli: Cli, admin: Client, demo: Client, tmp_path: Path) -> None:
    called, file = f"{name()}::files", tmp_path / "one.json"
    file.write_text(json.dumps({"namespace": called, **FULL, "visibility": None}))

    loaded = cli("metadefs", "load", file, "--json").json
    printed = cli("metadefs", "export", called).json
    admin.http.put(f"{NAMESPACES}/{called}", json={"namespace": called, "visibility": "public", "display_name": "ours"})
    again = cli("metadefs", "load", file, "--json").json

    assert loaded == [{"namespace": called, "result": "created"}]
    assert printed == {"namespace": called, "protected": False, **FULL}
    assert again == [{"namespace": called, "result": "kept"}]
    assert got(demo, f"{NAMESPACES}/{called}")["display_name"] == "ours"


def test_exported_files_are_loaded_again(cli: Cli, admin: Client, tmp_path: Path) -> None:
    called = create(admin, namespace=f"{name()}::files/ü".replace("/", "-"), **FULL)["namespace"]
    before, folder = got(admin, f"{NAMESPACES}/{called}"), tmp_path / "all"

    written = cli("metadefs", "export", "--into", folder).out.split()
    refused = cli.refused("metadefs", "export", "--into", folder)
    cli("metadefs", "export", "--into", folder, "--force")
    admin.http.delete(f"{NAMESPACES}/{called}")
    cli("metadefs", "load", folder / f"{called}.json")

    assert "[file_exists]" in refused
    assert sorted(written) == sorted(str(path) for path in folder.iterdir())
    every = {json.loads(path.read_text())["namespace"] for path in folder.iterdir()}
    assert {called, *(form.namespace for form in defaults.namespaces())} <= every
    after = got(admin, f"{NAMESPACES}/{called}")
    assert [after[part] for part in ("properties", "tags", "visibility")] == [
        before[part] for part in ("properties", "tags", "visibility")
    ]


@pytest.mark.parametrize(
    ("content", "code"), [(None, "cannot_read"), ("[]", "not_metadefs"), ("{}", "not_metadefs"), ("{", "not_metadefs")]
)
def test_a_file_that_holds_no_namespace_is_refused(cli: Cli, tmp_path: Path, content: str | None, code: str) -> None:
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content)

    assert f"[{code}]" in cli.refused("metadefs", "load", file)


def test_what_is_exported_is_either_one_namespace_or_all(cli: Cli, tmp_path: Path) -> None:
    cli("metadefs", "export", status=2)
    cli("metadefs", "export", "OS::Glance::Signatures", "--into", tmp_path, status=2)
