"""What is known of a blob."""

from typing import NewType

from msgspec import Struct

BlobId = NewType("BlobId", str)  # 32 hex


class Digests(Struct, frozen=True, kw_only=True):
    """What was counted and computed while bytes passed."""

    size: int  # bytes
    md5: str  # hex
    hash_algorithm: str  # sha512 or sha256
    hash_value: str  # hex


class Blob(Struct, frozen=True, kw_only=True):
    """Bytes that never change. `id` names them; a digest never does."""

    id: BlobId
    digests: Digests
    location: str = "local"
