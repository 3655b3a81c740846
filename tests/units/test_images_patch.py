"""Patches: the two forms they come in, and what they make of an image."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import (
    AttributeConflict,
    CalotypeError,
    Forbidden,
    Invalid,
    InvalidSize,
    InvalidTag,
    MalformedBody,
    MissingAttribute,
    ReadOnlyAttribute,
    TooManyTags,
)
from calotype.identity.model import ProjectId
from calotype.images import attributes, patch
from calotype.images.model import Image, ImageId, ImageStatus, Operation, Visibility

IMAGE = Image(
    id=ImageId("9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"),
    project_id=ProjectId("0" * 32),
    name="web",
    disk_format="qcow2",
    container_format="bare",
    tags=("old",),
    properties={"key": "value", "a/b": "slash", "a~b": "tilde", "__os_type": "Linux"},
    created_at=1000,
    updated_at=1000,
)


def applied(*operations: dict[str, Any], image: Image = IMAGE, admin: bool = False) -> Image:
    parsed = patch.parse(list(operations))
    return patch.apply(image, parsed, is_admin=admin, may_publish=admin, most_tags=3, most_properties=5)


def replace(name: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": f"/{name}", "value": value}


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("name", "other", "name", "other"),
        ("name", None, "name", None),
        ("protected", True, "protected", True),
        ("os_hidden", True, "hidden", True),
        ("min_disk", 7, "min_disk", 7),
        ("min_ram", 7, "min_ram", 7),
        ("visibility", "community", "visibility", Visibility.COMMUNITY),
        ("tags", ["a", "b", "a"], "tags", ("a", "b")),
        ("disk_format", "raw", "disk_format", "raw"),
        ("container_format", "ovf", "container_format", "ovf"),
    ],
)
def test_a_base_attribute_is_replaced_and_added_alike(name: str, value: Any, attribute: str, expected: Any) -> None:
    for op in ("replace", "add"):
        changed = applied({"op": op, "path": f"/{name}", "value": value})

        assert getattr(changed, attribute) == expected


def test_properties_are_added_replaced_and_removed_in_order() -> None:
    changed = applied(
        {"op": "add", "path": "/new", "value": "1"},
        replace("new", "2"),
        {"op": "remove", "path": "/key"},
        {"op": "add", "path": "/key", "value": ""},
    )

    assert changed.properties["new"] == "2"
    assert changed.properties["key"] == ""


def test_the_older_media_type_names_the_operation_by_its_member() -> None:
    parsed = patch.parse([{"replace": "/name", "value": "x"}, {"remove": "/key"}], media_type=patch.V2_0)

    assert parsed == (Operation(op="replace", name="name", value="x"), Operation(op="remove", name="key"))


def test_escapes_in_a_path_stand_for_slash_and_tilde() -> None:
    changed = applied(replace("a~1b", "1"), replace("a~0b", "2"))

    assert (changed.properties["a/b"], changed.properties["a~b"]) == ("1", "2")
    assert patch.parse([replace("~01", "x")])[0].name == "~1"


@pytest.mark.parametrize(
    "name", ["id", "status", "size", "checksum", "owner", "created_at", "updated_at", "self", "file", "schema",
             "virtual_size", "os_hash_value", "direct_url", "locations", "location", "deleted", "deleted_at", "stores",
             "__os_type", "__image_size", "__unheard_of", "_sys_enterprise_project_id", "os_glance_import_task"]
)  # fmt: skip
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
def test_what_is_the_services_own_is_read_only(name: str, op: str) -> None:
    with pytest.raises(ReadOnlyAttribute):
        applied({"op": op, "path": f"/{name}", "value": "x"})


def test_no_position_in_locations_can_be_addressed() -> None:
    with pytest.raises(ReadOnlyAttribute):
        applied({"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/passwd"}})


@pytest.mark.parametrize("op", ["replace", "remove"])
def test_what_is_not_there_can_be_neither_replaced_nor_removed(op: str) -> None:
    with pytest.raises(MissingAttribute):
        applied({"op": op, "path": "/absent", "value": "x"})


@pytest.mark.parametrize("name", sorted(attributes.BASE))
def test_base_attributes_cannot_be_removed(name: str) -> None:
    with pytest.raises(ReadOnlyAttribute):
        applied({"op": "remove", "path": f"/{name}"})


def test_only_who_may_publish_makes_an_image_public() -> None:
    with pytest.raises(Forbidden):
        applied(replace("visibility", "public"))

    assert applied(replace("visibility", "public"), admin=True).visibility is Visibility.PUBLIC


def test_formats_are_fixed_once_bytes_have_come() -> None:
    active = IMAGE.moved_to(ImageStatus.ACTIVE)

    with pytest.raises(ReadOnlyAttribute):
        applied(replace("disk_format", "raw"), image=active)
    assert applied(replace("disk_format", "qcow2"), image=active) == active


def test_an_admin_sets_reserved_names_but_not_what_the_service_computes() -> None:
    assert applied({"op": "add", "path": "/__image_login_user", "value": "root"}, admin=True).properties[
        "__image_login_user"
    ]
    with pytest.raises(ReadOnlyAttribute):
        applied({"op": "add", "path": "/__os_type", "value": "Windows"}, admin=True)


def test_numbers_and_booleans_of_properties_become_text() -> None:
    changed = applied(replace("key", 7), {"op": "add", "path": "/flag", "value": True})

    assert (changed.properties["key"], changed.properties["flag"]) == ("7", "true")


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (replace("name", 5), MalformedBody),
        (replace("name", "x" * 256), Invalid),
        (replace("name", "x\x00"), Invalid),
        (replace("protected", "true"), MalformedBody),
        (replace("min_disk", -1), InvalidSize),
        (replace("min_disk", True), InvalidSize),
        (replace("min_ram", 2**31), InvalidSize),
        (replace("visibility", "secret"), MalformedBody),
        (replace("visibility", ["public"]), MalformedBody),
        (replace("tags", "a"), MalformedBody),
        (replace("tags", [""]), InvalidTag),
        (replace("tags", ["x" * 256]), InvalidTag),
        (replace("tags", [1]), InvalidTag),
        (replace("tags", ["a", "b", "c", "d"]), TooManyTags),
        (replace("disk_format", "exe"), MalformedBody),
        (replace("key", None), MalformedBody),
        (replace("key", {"a": "b"}), MalformedBody),
        (replace("key", ["a"]), MalformedBody),
        (replace("key", "x\x00"), MalformedBody),
        (replace("key", "x" * 65536), MalformedBody),
        ({"op": "add", "path": f"/{'n' * 256}", "value": ""}, MalformedBody),
        ({"op": "add", "path": "/line\nbreak", "value": ""}, MalformedBody),
        ({"op": "add", "path": "/hw_firmware_type", "value": "efi"}, Invalid),
        ({"op": "add", "path": "/__description", "value": "<b>"}, Invalid),
        ({"op": "add", "path": "/max_ram", "value": "much"}, InvalidSize),
        ({"op": "add", "path": "/virtual_env_type", "value": "Cloud"}, AttributeConflict),
        ({"op": "add", "path": "/__support_xen", "value": "false"}, AttributeConflict),
        ({"op": "move", "path": "/name", "from": "/key"}, MalformedBody),
        ({"op": "replace", "path": "/name"}, MalformedBody),
        ({"path": "/name", "value": "x"}, MalformedBody),
        ({"op": "replace", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "name", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "/", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "/tags/0", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "//name", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "/name/", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "/a~2", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": "/a~", "value": "x"}, MalformedBody),
        ({"op": "replace", "path": 5, "value": "x"}, MalformedBody),
    ],
)
def test_a_wrong_operation_is_refused(operation: dict[str, Any], error: type[CalotypeError]) -> None:
    with pytest.raises(error):
        applied(operation)


def test_attributes_that_exclude_each_other_are_refused_together() -> None:
    with pytest.raises(AttributeConflict):
        applied(
            {"op": "add", "path": "/__support_xen", "value": "true"},
            {"op": "add", "path": "/__support_xen_hana", "value": "true"},
        )


def test_max_ram_is_not_below_min_ram() -> None:
    with pytest.raises(InvalidSize):
        applied({"op": "add", "path": "/max_ram", "value": 512}, replace("min_ram", 1024))

    assert applied({"op": "add", "path": "/max_ram", "value": 0}, replace("min_ram", 1024)).properties["max_ram"] == "0"


def test_properties_are_limited_in_number() -> None:
    with pytest.raises(Invalid, match="at most 5 properties"):
        applied(*({"op": "add", "path": f"/p{n}", "value": ""} for n in range(3)))


@pytest.mark.parametrize("document", [{}, "x", None, 5, [5], [[]], ["x"]])
def test_a_patch_is_an_array_of_objects(document: Any) -> None:
    with pytest.raises(MalformedBody):
        patch.parse(document)


def test_the_older_form_wants_exactly_one_operation() -> None:
    for element in ({"value": "x"}, {"add": "/a", "remove": "/b", "value": "x"}):
        with pytest.raises(MalformedBody):
            patch.parse([element], media_type=patch.V2_0)


def test_an_empty_patch_changes_nothing() -> None:
    assert applied() == IMAGE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
OPERATION = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "replace", "remove", "move"]) | JSON,
        "path": st.sampled_from(sorted(attributes.BASE | attributes.READ_ONLY | {"key", "a~1b"})).map(lambda n: f"/{n}")
        | st.text(max_size=6).map(lambda n: f"/{n}")
        | JSON,
        "value": JSON,
        "add": st.text(max_size=6),
    },
)


@given(st.lists(OPERATION | JSON, max_size=4) | JSON, st.sampled_from([patch.V2_0, patch.V2_1]), st.booleans())
def test_any_document_is_applied_or_refused_and_never_touches_what_is_the_services(
    document: Any, media_type: str, admin: bool
) -> None:
    try:
        operations = patch.parse(document, media_type=media_type)
        changed = patch.apply(IMAGE, operations, is_admin=admin, may_publish=admin, most_tags=3, most_properties=5)
    except CalotypeError:
        return

    assert (changed.id, changed.project_id, changed.status, changed.size) == (
        IMAGE.id,
        IMAGE.project_id,
        IMAGE.status,
        None,
    )
    assert changed.properties["__os_type"] == "Linux"
    assert all(isinstance(value, str) for value in changed.properties.values())
    assert admin or changed.visibility is not Visibility.PUBLIC
