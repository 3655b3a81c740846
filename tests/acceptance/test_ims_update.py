"""Updating an image as IMS has it: what may change, in which forms it is sent, and what is refused with which code."""

from typing import Any, Final

import httpx
import pytest

from tests.acceptance.test_imagev2 import active, create
from tests.description import held_to_its_description
from tests.service import Client

PROJECT: Final = "7d5ed3b5-1f4a-4f0a-9f5a-8d5b6e4a2c11"


def patched(client: Client, image: dict[str, Any], *operations: Any, **headers: str) -> httpx.Response:
    answer = client.http.patch(f"/v2/cloudimages/{image['id']}", json=list(operations), headers=headers)
    held_to_its_description(answer)
    return answer


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": f"/{path}", "value": value}


def put(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": f"/{path}", "value": value}


def remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": f"/{path}", "value": None}


@pytest.fixture(scope="module")
def image(service: Any) -> Any:
    with service.demo() as client:
        yield active(client, name="as-it-was", __support_xen="true")


@pytest.mark.parametrize(
    ("operation", "shown"),
    [
        (put("name", "web-golden 17"), "web-golden 17"),
        (put("name", "金色 17"), "金色 17"),
        (put("name", 17), "17"),
        (add("__description", "nightly"), "nightly"),
        (put("__description", None), ""),
        (put("min_ram", "1024"), 1024),
        (put("min_ram", 512), 512),
        (add("min_ram", 0), 0),
        (add("max_ram", "4096"), "4096"),
        (put("max_ram", 0), "0"),
        (put("min_disk", "40"), 40),
        (put("protected", "true"), True),
        (put("protected", False), False),
        (put("enterprise_project_id", PROJECT), PROJECT),
        (put("enterprise_project_id", 0), "0"),
        (add("enterprise_project_id", ""), "0"),
        (add("hw_firmware_type", "uefi"), "uefi"),
        (add("hw_vif_multiqueue_enabled", True), "true"),
        (add("os_shutdown_timeout", 60), "60"),
        (put("os_shutdown_timeout", "300"), "300"),
        (add("__is_config_init", True), "true"),
        (add("__support_amd", False), "false"),
        (add("__support_largememory", "true"), "true"),
        (add("made_by", "packer"), "packer"),
        (put("made_by", 1.0), "1"),
        (add("made_by", "hand"), "hand"),
    ],
)
def test_an_attribute_takes_its_value_in_any_form(
    demo: Client, image: dict[str, Any], operation: dict[str, Any], shown: Any
) -> None:
    attribute = operation["path"][1:]
    if operation["op"] == "replace" and attribute in ("max_ram", "__description", "os_shutdown_timeout", "made_by"):
        patched(demo, image, add(attribute, "100"))

    answer = patched(demo, image, operation)

    assert answer.status_code == 200
    assert answer.json()[attribute] == shown
    assert answer.json()["id"] == image["id"]
    assert demo.image(image["id"])[attribute] == shown


def test_a_custom_attribute_is_removed_again(demo: Client) -> None:
    image = active(demo)
    patched(demo, image, add("team", "blue"), add("enterprise_project_id", PROJECT), add("max_ram", 5))

    answer = patched(demo, image, remove("team"), {"op": "remove", "path": "/max_ram"}, remove("enterprise_project_id"))

    assert answer.status_code == 200
    assert {"team", "max_ram", "enterprise_project_id"} & answer.json().keys() == set()


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([put("__description", "x")], "IMG.0035"),  # absent: clients then send add
        ([put("max_ram", 1)], "IMG.0035"),
        ([remove("max_ram")], "IMG.0035"),
        ([remove("enterprise_project_id")], "IMG.0035"),
        ([remove("name")], "IMG.0035"),
        ([remove("min_ram")], "IMG.0035"),
        ([add("Team", "blue")], "IMG.0035"),
        ([put("id", "x")], "IMG.0035"),
        ([put("status", "active")], "IMG.0035"),
        ([put("visibility", "public")], "IMG.0035"),
        ([put("tags", ["a"])], "IMG.0035"),
        ([put("disk_format", "raw")], "IMG.0035"),
        ([put("virtual_env_type", "DataImage")], "IMG.0035"),
        ([put("__os_version", "Windows 10 64bit")], "IMG.0035"),
        ([add("__support_kvm", "true")], "IMG.0035"),
        ([add("__anything", "x")], "IMG.0035"),
        ([add("os_glance_x", "x")], "IMG.0035"),
        ([add("__support_xen_hana", "true")], "IMG.0035"),
        ([add("__support_xen_gpu_type", "M60_vGPU")], "IMG.0035"),
        ([add("__support_kvm_gpu_type", "V100")], "IMG.0035"),
        ([add("__support_kvm_infiniband", "true")], "IMG.0035"),
        ([add("__support_largememory", "maybe")], "IMG.0035"),
        ([add("os_shutdown_timeout", 59)], "IMG.0035"),
        ([add("os_shutdown_timeout", "301")], "IMG.0035"),
        ([add("hw_vif_multiqueue_enabled", "yes")], "IMG.0035"),
        ([put("name", "")], "IMG.0013"),
        ([put("name", None)], "IMG.0013"),
        ([put("name", " padded")], "IMG.0003"),
        ([put("name", "a/b")], "IMG.0003"),
        ([put("name", "n" * 129)], "IMG.0002"),
        ([add("__description", "a<b")], "IMG.0054"),
        ([add("__description", "d" * 1025)], "IMG.0004"),
        ([put("min_ram", -1)], "IMG.0055"),
        ([put("min_ram", "much")], "IMG.0055"),
        ([put("min_ram", None)], "IMG.0055"),
        ([add("max_ram", "x")], "IMG.0055"),
        ([add("max_ram", 5), put("min_ram", 6)], "IMG.0055"),
        ([add("hw_firmware_type", "efi")], "IMG.0141"),
        ([add("enterprise_project_id", "mine")], "IMG.0155"),
        ([add("team", ["a"])], "IMG.0001"),
        ([add("team", {"a": 1})], "IMG.0001"),
        ([{"op": "move", "path": "/name", "value": "x"}], "IMG.0001"),
        ([{"op": "Add", "path": "/name", "value": "x"}], "IMG.0001"),
        ([{"op": "add", "path": "name", "value": "x"}], "IMG.0001"),
        ([{"op": "add", "path": "/name"}], "IMG.0001"),
        (["x"], "IMG.0001"),
        ([put("name", "changed"), put("absent", "x")], "IMG.0035"),
    ],
)
def test_what_cannot_be_is_refused_whole(
    demo: Client, refused: dict[str, Any], operations: list[Any], code: str
) -> None:
    answer = patched(demo, refused, *operations)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert demo.image(refused["id"]) == refused


@pytest.fixture(scope="module")
def refused(service: Any) -> Any:
    with service.demo() as client:
        image = active(client, name="as-it-was", __support_xen="true")
        yield client.image(image["id"])


@pytest.mark.parametrize(("body", "code"), [("", "IMG.0007"), ("{", "IMG.0001"), ("{}", "IMG.0001")])
def test_a_body_that_is_no_array_is_refused(demo: Client, refused: dict[str, Any], body: str, code: str) -> None:
    answer = demo.http.patch(f"/v2/cloudimages/{refused['id']}", content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("media_type", "operation"),
    [
        ("application/json", put("name", "renamed")),
        ("application/openstack-images-v2.1-json-patch", put("name", "renamed")),
        ("application/openstack-images-v2.0-json-patch", {"replace": "/name", "value": "renamed"}),
    ],
)
def test_three_media_types_are_taken(demo: Client, media_type: str, operation: dict[str, Any]) -> None:
    image = active(demo)

    answer = patched(demo, image, operation, **{"Content-Type": media_type})

    assert (answer.status_code, answer.json()["name"]) == (200, "renamed")


def test_no_operation_changes_nothing(demo: Client) -> None:
    image = active(demo)

    answer = patched(demo, image)

    assert (answer.status_code, answer.json()["updated_at"]) == (200, demo.image(image["id"])["updated_at"])


def test_only_active_images_of_ones_own_are_updated(demo: Client, admin: Client) -> None:
    queued, foreign = create(demo), active(admin, visibility="shared")
    admin.http.post(f"{foreign['self']}/members", json={"member": demo.project_id})
    public, hidden = active(admin, visibility="public"), active(admin, visibility="private")
    change = put("name", "mine")

    answers = {
        name: patched(demo, image, change)
        for name, image in {"queued": queued, "foreign": foreign, "public": public, "hidden": hidden}.items()
    }

    assert {name: (answer.status_code, answer.json()["error"]["code"]) for name, answer in answers.items()} == {
        "queued": (400, "IMG.0046"),
        "foreign": (400, "IMG.0047"),
        "public": (400, "IMG.0083"),
        "hidden": (404, "IMG.0144"),
    }
    assert patched(demo, {"id": "nothing"}, change).status_code == 404
    assert patched(admin, public, change).status_code == 200
