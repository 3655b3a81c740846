"""Names of buckets and objects: what is accepted, and why not. Pure."""

import re
import unicodedata
from typing import Final

from calotype.buckets.model import BucketName, ObjectAddress, ObjectKey
from calotype.errors import (
    EmptyBucketName,
    EmptyObjectKey,
    InvalidBucketName,
    InvalidObjectAddress,
    InvalidObjectKey,
    ObjectKeyTooLong,
    SpaceInObjectKey,
)
from calotype.settings import BUCKET_NAME

NAME: Final = re.compile(BUCKET_NAME)
LIKE_AN_ADDRESS: Final = re.compile(r"[0-9]+(\.[0-9]+){3}")
MOST_KEY_BYTES: Final = 1024
MOST_SEGMENT_BYTES: Final = 255  # of a file name, on every file system that matters
MOST_SEGMENTS: Final = 32  # folders are gone down one by one, also for every object of a listing
TEMPORARY: Final = ".calotype-tmp"  # the folder in a bucket's folder where objects arrive; never a part of a key
REPLACEMENT: Final = "\ufffd"  # what decoding makes of bytes that are no UTF-8: different ones would be one key
# Control characters, halves of surrogate pairs, line and paragraph separators.
REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def parse_address(text: str, *, ims: bool = False) -> ObjectAddress:
    """Read `bucket:key`; the key may hold further colons. `ims`: by the rules of IMS, which wants no spaces.

    Raises `InvalidObjectAddress` and what `bucket_name` and `object_key` raise.
    """
    bucket, colon, key = text.partition(":")
    if not colon:
        raise InvalidObjectAddress("an object is named bucket:key, for example images:disks/web.qcow2")
    address = ObjectAddress(bucket=bucket_name(bucket), key=object_key(key))
    if ims and any(character.isspace() for character in key):
        raise SpaceInObjectKey("the folder and file names of an object may not contain spaces here")
    return address


def bucket_name(text: str) -> BucketName:
    """Raises `EmptyBucketName`, `InvalidBucketName`."""
    if not text:
        raise EmptyBucketName("the name of the bucket is empty")
    if not NAME.fullmatch(text) or LIKE_AN_ADDRESS.fullmatch(text):
        raise InvalidBucketName(
            "a bucket name has 3 to 63 characters of a-z, 0-9, '-' and '.', begins and ends with a letter or digit, "
            "and does not look like an IP address"
        )
    return BucketName(text)


def object_key(text: str) -> ObjectKey:
    """Raises `EmptyObjectKey`, `ObjectKeyTooLong`, `InvalidObjectKey`.

    A key is 1 to 1024 bytes of UTF-8 with at most 31 slashes; between them it has 1 to 255 bytes, neither `.` nor `..`.
    """
    if not text:
        raise EmptyObjectKey("the key of the object is empty")
    if REPLACEMENT in text:
        raise InvalidObjectKey("a key is UTF-8, in a URL percent-encoded")
    if any(unicodedata.category(character) in REFUSED for character in text) or "\\" in text:
        raise InvalidObjectKey("a key has no control characters, no line separators and no backslash")
    if len(text.encode()) > MOST_KEY_BYTES:
        raise ObjectKeyTooLong(f"a key has at most {MOST_KEY_BYTES} bytes of UTF-8")
    segments = text.split("/")
    if len(segments) > MOST_SEGMENTS:
        raise InvalidObjectKey(f"a key has at most {MOST_SEGMENTS} parts between slashes")
    for segment in segments:
        if not segment:
            raise InvalidObjectKey("a key does not begin or end with '/', nor has it '//'")
        if segment in (".", ".."):
            raise InvalidObjectKey("a key has no part that is '.' or '..'")
        if len(segment.encode()) > MOST_SEGMENT_BYTES:
            raise ObjectKeyTooLong(f"a part of a key between slashes has at most {MOST_SEGMENT_BYTES} bytes of UTF-8")
    if segments[0] == TEMPORARY:
        raise InvalidObjectKey(f"a key does not begin with {TEMPORARY}")
    return ObjectKey(text)
