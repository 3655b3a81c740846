"""What a copy in another region is asked for as, under which ids, and what passes for the right bytes."""

import base64
import hashlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calotype.errors import (
    CalotypeError,
    EncryptedImageCopy,
    ImageTooLarge,
    Invalid,
    IsoImage,
    NoVaultThere,
    VerificationFailed,
    WrongStatus,
)
from calotype.identity.model import ProjectId
from calotype.images.model import Image, ImageId, ImageStatus
from calotype.jobs.kinds.cross_region import check_crossing
from calotype.jobs.kinds.region_image import TRIES, document_of, facts_of, image_ids, is_right, variants, verify
from calotype.regions.client import content_digest as written
from calotype.settings import ImageSettings, Settings
from calotype.web.imagev2.digests import content_digest as read

ID: Final = ImageId("9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111")
JOB: Final = "0123456789abcdef0123456789abcdef"
IMAGE: Final = Image(
    id=ID,
    project_id=ProjectId("p" * 32),
    name="golden",
    status=ImageStatus.ACTIVE,
    disk_format="qcow2",
    container_format="bare",
    min_disk=10,
    min_ram=512,
    size=3,
    checksum=hashlib.md5(b"abc", usedforsecurity=False).hexdigest(),
    hash_algorithm="sha512",
    hash_value=hashlib.sha512(b"abc").hexdigest(),
    stores=("local",),
    tags=("team=blue",),
    created_at=0,
    updated_at=0,
)


def with_properties(**properties: str) -> Image:
    return replace(IMAGE, properties=properties)


def document(image: Image, description: str | None = None) -> dict[str, Any]:
    return document_of(image, name="copy", description=description, region="east")


def test_a_copy_is_asked_for_hidden_and_private_with_its_origin() -> None:
    assert document(IMAGE) == {
        "name": "copy",
        "visibility": "private",
        "os_hidden": True,
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": 10,
        "min_ram": 512,
        "tags": ["team=blue"],
        "__data_origin": f"image,east,{ID}",
        "__originalimagename": ID,
    }


@pytest.mark.parametrize(
    "name", ["__os_version", "__support_kvm_infiniband", "__is_config_init", "hw_firmware_type", "colour", "max_ram"]
)
def test_what_an_owner_can_set_goes_along(name: str) -> None:
    assert document(with_properties(**{name: "v"}))[name] == "v"


@pytest.mark.parametrize(
    "name",
    [
        *("__os_type", "__platform", "__imagetype", "__root_origin", "__system__cmkid", "__backup_id", "__unheard_of"),
        *("os_glance_import_task", "_sys_x", "kernel_id", "ramdisk_id", "enterprise_project_id"),
    ],
)
def test_what_only_this_region_can_mean_stays(name: str) -> None:
    assert name not in document(with_properties(**{name: "v"}))


def test_the_description_is_that_of_the_request_or_none() -> None:
    described = with_properties(__description="of the source")

    assert "__description" not in document(described)
    assert document(described, "of the copy")["__description"] == "of the copy"


def test_a_service_that_refuses_gets_less_and_less_to_refuse() -> None:
    first, second, third = (set(one) for one in variants(document(IMAGE)))

    assert first - second == {"__data_origin", "__originalimagename"}
    assert second - third == {"os_hidden"}


def test_each_attempt_has_ids_of_its_own_and_always_the_same() -> None:
    ids = [image_id for attempt in range(1, 21) for image_id in image_ids(JOB, attempt)]

    assert len(set(ids)) == 20 * TRIES
    assert list(image_ids(JOB, 1)) == ids[:TRIES]
    assert set(ids).isdisjoint(image_ids(JOB[::-1], 1))


RIGHT: Final = {
    "status": "active",
    "size": 3,
    "checksum": IMAGE.checksum,
    "os_hash_algo": "sha512",
    "os_hash_value": IMAGE.hash_value,
}
OTHER: Final = "0" * 32


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"checksum": str(IMAGE.checksum).upper()},
        {"checksum": None},
        {"os_hash_algo": None, "os_hash_value": None},
        {"os_hash_algo": "sha256", "os_hash_value": OTHER * 2},  # nothing is known of it here; the md5 is
    ],
    ids=range(5),
)
def test_bytes_with_a_common_digest_are_right(told: dict[str, Any]) -> None:
    assert is_right(RIGHT | told, facts_of(IMAGE, name="c", description=None, region="east"), "west")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"status": "queued"}, "as queued"),
        ({"size": 4}, "4 bytes"),
        ({"size": None}, "None bytes"),
        ({"checksum": OTHER}, "its md5 differs"),
        ({"os_hash_value": OTHER * 4}, "its sha512 differs"),
        ({"checksum": None, "os_hash_algo": "sha256", "os_hash_value": OTHER * 2}, "no digest of the image"),
        ({"checksum": "", "os_hash_value": ""}, "no digest of the image"),
        ({"checksum": 7, "os_hash_value": []}, "no digest of the image"),
    ],
    ids=range(8),
)
def test_bytes_that_are_others_or_that_nothing_is_told_of_are_not(told: dict[str, Any], says: str) -> None:
    with pytest.raises(VerificationFailed, match=says):
        verify(RIGHT | told, facts_of(IMAGE, name="c", description=None, region="east"), "west")


@pytest.mark.parametrize(
    ("image", "error", "code"),
    [
        (with_properties(__whole_image="true"), NoVaultThere, "IMG.0189"),
        (with_properties(__system__cmkid="key"), EncryptedImageCopy, "IMG.0197"),
        (replace(IMAGE, disk_format="iso"), IsoImage, "IMG.0167"),
        (replace(IMAGE, size=129), ImageTooLarge, "IMG.0059"),
        (replace(IMAGE, status=ImageStatus.DEACTIVATED), WrongStatus, "IMG.0046"),
    ],
    ids=["whole", "encrypted", "iso", "large", "deactivated"],
)
def test_an_image_that_cannot_go_to_another_region_has_its_code(
    image: Image, error: type[CalotypeError], code: str
) -> None:
    with pytest.raises(error) as refused:
        check_crossing(image, Settings(image=ImageSettings(export_bytes=128)))

    assert refused.value.img == code


# --- Content-Digest ---------------------------------------------------------------------------------------------------


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=16, max_size=16))
def test_digests_that_are_written_into_the_header_are_read_from_it(sha512: bytes, md5: bytes) -> None:
    digests = {"sha512": sha512.hex(), "md5": md5.hex()}

    assert read(written({**digests, "whirlpool": "00"})) == digests


@given(st.text(max_size=100) | st.from_regex(r"(sha-256|md5|x)=:[A-Za-z0-9+/=]{0,50}:(,.*)?", fullmatch=True))
def test_a_header_is_read_or_refused_and_never_crashes(header: str) -> None:
    try:
        found = read(header)
    except Invalid:
        return
    assert {len(value) for value in found.values()} <= {32, 64, 128}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, {}),
        ("unixsum=:AAAA:", {}),
        (f"sha-256=:{base64.b64encode(bytes(32)).decode()}:, id-x=:AA==:", {"sha256": "00" * 32}),
    ],
    ids=["none", "unknown", "several"],
)
def test_what_is_not_known_of_the_header_is_passed_over(header: str | None, found: dict[str, str]) -> None:
    assert read(header) == found


@pytest.mark.parametrize("header", ["", "md5", "md5=abc", "md5=:AAAA:", "sha-512=:AAAA", "md5=:A:", "MD5=:AAAA:"])
def test_a_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(Invalid, match="content-digest"):
        read(header)
