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


def nth_of(blob_id: BlobId, number: int) -> BlobId:
    """The id of the `number`th blob, below 256, of the job whose first blob is `blob_id`. Number 0 is that itself."""
    return BlobId(f"{blob_id[:-2]}{int(blob_id[-2:], 16) ^ number:02x}")


def first_of(blob_id: str) -> str:
    """What the ids of all blobs of a job have in common, and those of no two jobs."""
    return blob_id[:-2]
