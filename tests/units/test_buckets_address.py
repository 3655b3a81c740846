"""Names of buckets and objects: what is accepted, and with which error not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.buckets.address import bucket_name, object_key, parse_address
from calotype.errors import (
    EmptyBucketName,
    EmptyObjectKey,
    Invalid,
    InvalidBucketName,
    InvalidObjectAddress,
    InvalidObjectKey,
    ObjectKeyTooLong,
    SpaceInObjectKey,
)


@pytest.mark.parametrize("name", ["abc", "a-b", "a.b", "0ab", "my-images.2026", "a" * 63, "1.2.3", "1.2.3.4.5"])
def test_a_name_of_the_form_is_accepted(name: str) -> None:
    assert bucket_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["ab", "a" * 64, "Abc", "-ab", "ab-", ".ab", "ab.", "a_b", "a/b", "a b", "äbc", "abc\n", "10.0.0.1", "..", "a\0b"],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidBucketName):
        bucket_name(name)


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "disks/web.qcow2",
        "a:b",
        "a b",
        "...",
        "a/.b",
        "..a/b..",
        "\u00fcn\u00efc\u00f6d\u00e9/\u65e5\u672c",
        "a" * 255,
        "-rf",
        "%2e%2e",
        "a/" * 31 + "b",
        ("a" * 255 + "/") * 3 + "a" * 255,
    ],
)
def test_a_key_is_any_path_of_plain_names(key: str) -> None:
    assert object_key(key) == key


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", EmptyObjectKey),
        ("a" * 256, ObjectKeyTooLong),
        ("ä" * 128, ObjectKeyTooLong),  # 256 bytes
        (("a" * 204 + "/") * 5, ObjectKeyTooLong),  # 1025 bytes
        ("a/" * 32 + "b", InvalidObjectKey),
        ("/a", InvalidObjectKey),
        ("a/", InvalidObjectKey),
        ("a//b", InvalidObjectKey),
        (".", InvalidObjectKey),
        ("..", InvalidObjectKey),
        ("a/../b", InvalidObjectKey),
        ("a/./b", InvalidObjectKey),
        ("a\\b", InvalidObjectKey),
        ("a\0b", InvalidObjectKey),
        ("a\nb", InvalidObjectKey),
        ("a\x7fb", InvalidObjectKey),
        ("a\x85b", InvalidObjectKey),
        ("a\u2028b", InvalidObjectKey),
        ("a\ud800b", InvalidObjectKey),
        ("\ufffd", InvalidObjectKey),
        (".calotype-tmp/a", InvalidObjectKey),
        (".calotype-tmp", InvalidObjectKey),
    ],
)
def test_another_key_is_refused_with_its_own_error(key: str, error: type[Invalid]) -> None:
    with pytest.raises(error) as refused:
        object_key(key)

    assert type(refused.value) is error


def test_an_address_is_a_bucket_and_all_after_the_first_colon() -> None:
    address = parse_address("images:disks/a:b.qcow2")

    assert (address.bucket, address.key) == ("images", "disks/a:b.qcow2")
    assert str(address) == "images:disks/a:b.qcow2"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidObjectAddress),
        ("images", InvalidObjectAddress),
        ("images/disk.qcow2", InvalidObjectAddress),
        (":disk.qcow2", EmptyBucketName),
        ("images:", EmptyObjectKey),
        ("Images:disk", InvalidBucketName),
        ("images:../disk", InvalidObjectKey),
        ("https://host/disk", InvalidObjectKey),
        ("file:///etc/passwd", InvalidObjectKey),
    ],
)
def test_another_address_is_refused_with_its_own_error(text: str, error: type[Invalid]) -> None:
    with pytest.raises(error):
        parse_address(text)


@pytest.mark.parametrize("key", ["a b", "a\u00a0b", "my disks/a.qcow2"])
def test_ims_wants_no_spaces_where_the_own_api_allows_them(key: str) -> None:
    assert parse_address(f"images:{key}").key == key
    with pytest.raises(SpaceInObjectKey):
        parse_address(f"images:{key}", ims=True)


@given(st.text(max_size=60))
def test_an_address_is_read_or_refused_and_never_crashes(text: str) -> None:
    try:
        address = parse_address(text, ims=True)
    except Invalid:
        return

    assert str(address) == text
    assert not {"", ".", ".."} & set(address.key.split("/"))
