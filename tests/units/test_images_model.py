"""Images as values: states, operating systems, and how they are shown."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import UnknownOsVersion, WrongStatus
from calotype.identity.model import ProjectId
from calotype.images.model import NEXT, Image, ImageId, ImageStatus, Visibility
from calotype.images.os_versions import find, os_attributes, table
from calotype.images.view import image_view, ims_view, time_text

IMAGE = Image(
    id=ImageId("9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"),
    project_id=ProjectId("0f0e0d0c0b0a09080706050403020100"),
    created_at=1767323045678,
    updated_at=1767323045678,
)


def test_every_state_has_a_row_in_the_table_of_states() -> None:
    assert set(NEXT) == set(ImageStatus)


@pytest.mark.parametrize("now", ImageStatus)
@pytest.mark.parametrize("wanted", ImageStatus)
def test_an_image_moves_only_as_the_table_says(now: ImageStatus, wanted: ImageStatus) -> None:
    image = msgspec.structs.replace(IMAGE, status=now)

    if wanted in NEXT[now]:
        assert image.moved_to(wanted).status is wanted
    else:
        with pytest.raises(WrongStatus):
            image.moved_to(wanted)


def test_nothing_comes_back_from_deleted_and_bytes_are_never_exchanged() -> None:
    assert NEXT[ImageStatus.DELETED] == frozenset()
    assert NEXT[ImageStatus.ACTIVE] | NEXT[ImageStatus.DEACTIVATED] == {
        ImageStatus.ACTIVE,
        ImageStatus.DEACTIVATED,
        ImageStatus.DELETED,
    }


def test_an_image_without_bytes_shows_null_where_upstream_does() -> None:
    assert image_view(IMAGE) == {
        "id": IMAGE.id,
        "name": None,
        "status": "queued",
        "visibility": "private",
        "protected": False,
        "os_hidden": False,
        "disk_format": None,
        "container_format": None,
        "min_disk": 0,
        "min_ram": 0,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "owner": "0f0e0d0c0b0a09080706050403020100",
        "tags": [],
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
        "self": "/v2/images/9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111",
        "file": "/v2/images/9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111/file",
        "schema": "/v2/schemas/image",
        "__imagetype": "private",
        "__isregistered": "true",
        "__image_source_type": "uds",
        "__image_size": "0",
    }


def test_ims_leaves_out_what_has_no_value_except_the_virtual_size() -> None:
    shown = ims_view(IMAGE)

    assert [name for name, value in shown.items() if value is None] == ["virtual_size"]
    assert shown["size"] == 0


@pytest.mark.parametrize(
    ("visibility", "has_members", "kind", "in_ims"),
    [
        (Visibility.PUBLIC, False, "gold", "public"),
        (Visibility.PRIVATE, False, "private", "private"),
        (Visibility.PRIVATE, True, "private", "private"),
        (Visibility.SHARED, False, "private", "private"),
        (Visibility.SHARED, True, "shared", "shared"),
        (Visibility.COMMUNITY, False, "private", "community"),
    ],
)
def test_the_kind_follows_from_visibility_and_members(
    visibility: Visibility, has_members: bool, kind: str, in_ims: str
) -> None:
    image = msgspec.structs.replace(IMAGE, visibility=visibility, has_members=has_members)

    assert image_view(image)["__imagetype"] == kind
    assert image_view(image)["visibility"] == visibility
    assert ims_view(image)["visibility"] == in_ims


def test_properties_are_shown_beside_the_attributes_as_text() -> None:
    image = msgspec.structs.replace(IMAGE, properties={"max_ram": "0", "k": "v"}, size=7, active_at=1767323045000)

    shown = image_view(image)

    assert (shown["max_ram"], shown["k"]) == ("0", "v")
    assert (shown["__image_size"], shown["active_at"]) == ("7", "2026-01-02T03:04:05Z")


@given(st.integers(min_value=0, max_value=253402300799999))
def test_times_are_whole_seconds_rounded_down(ms: int) -> None:
    assert len(time_text(ms)) == len("2026-01-02T03:04:05Z")


def test_every_os_version_gives_its_four_attributes_as_text() -> None:
    assert len(table()) == 237
    for name in table():
        told = os_attributes(name)
        assert told["__os_version"] == name
        assert told["__os_type"] in ("Linux", "Windows", "Other")
        assert told["__os_bit"] in ("32", "64")


def test_an_os_version_is_found_whatever_its_case_blanks_and_other_names() -> None:
    assert find("windows10 64BIT").os_version == "Windows 10 64bit"
    assert find("Windows Server 2012 R2 Essentials 64bit").os_version == "Windows Server 2012 Essentials R2 64bit"
    with pytest.raises(UnknownOsVersion):
        find("Plan 9")
