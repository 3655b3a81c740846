"""Buckets, and what is known of the objects in them."""

from typing import NewType

from msgspec import Struct

from calotype.identity.model import ProjectId

BucketName = NewType("BucketName", str)
ObjectKey = NewType("ObjectKey", str)  # checked by `address.object_key`


class Bucket(Struct, frozen=True, kw_only=True):
    """A named store that images come from and go to. Names are unique within a project."""

    name: BucketName
    project_id: ProjectId | None  # None: every project sees it
    created_at: int | None  # ms; None for one that the operator has mapped
    mapped: bool = False  # a folder of the settings, which other programs may write to as well
    read_only: bool = False


class ObjectAddress(Struct, frozen=True, kw_only=True):
    """`bucket:key`, all that a request may say of where bytes are."""

    bucket: BucketName
    key: ObjectKey

    def __str__(self) -> str:
        return f"{self.bucket}:{self.key}"


class ObjectInfo(Struct, frozen=True, kw_only=True):
    key: ObjectKey
    size: int  # bytes
    modified_at: int  # ms
    etag: str  # another for every version of the object; says nothing about the bytes


class ObjectPage(Struct, frozen=True, kw_only=True):
    """In the order of the keys' UTF-8 bytes."""

    objects: list[ObjectInfo]
    next_marker: ObjectKey | None  # the last key of this page if there are more
