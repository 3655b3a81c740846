"""What an image is, what may be asked of it, and which state follows which."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NewType, Self

from msgspec import Struct
from msgspec.structs import replace

from calotype.blobs.model import BlobId, Digests
from calotype.errors import WrongStatus
from calotype.identity.model import ProjectId

ImageId = NewType("ImageId", str)  # lower-case UUID with dashes
UploadId = NewType("UploadId", str)  # u + 32 hex: an upload through the API; j + 32 hex: the job that brings the bytes

DEFAULT_OS_VERSION: Final = "Other Linux(64 bit)"


class ImageStatus(StrEnum):
    QUEUED = "queued"  # metadata exists, no bytes yet
    SAVING = "saving"  # an upload or a job is bringing bytes
    UPLOADING = "uploading"  # Image v2: bytes are being staged
    IMPORTING = "importing"  # Image v2: staged bytes are being imported
    ACTIVE = "active"  # verified; a server can boot from it
    DEACTIVATED = "deactivated"  # as active, but its bytes are withheld from users
    KILLED = "killed"  # it will never have bytes
    DELETED = "deleted"  # a tombstone: ids are never used twice
    PENDING_DELETE = "pending_delete"  # a word of the Image API; this service deletes at once


NEXT: Final[Mapping[ImageStatus, frozenset[ImageStatus]]] = {
    # To queued again: an upload that failed can be tried anew, as upstream has it.
    ImageStatus.QUEUED: frozenset(
        {
            ImageStatus.SAVING,
            ImageStatus.UPLOADING,
            ImageStatus.IMPORTING,
            ImageStatus.ACTIVE,
            ImageStatus.KILLED,
            ImageStatus.DELETED,
        }
    ),
    ImageStatus.SAVING: frozenset({ImageStatus.QUEUED, ImageStatus.ACTIVE, ImageStatus.KILLED, ImageStatus.DELETED}),
    ImageStatus.UPLOADING: frozenset(
        {ImageStatus.QUEUED, ImageStatus.IMPORTING, ImageStatus.KILLED, ImageStatus.DELETED}
    ),
    ImageStatus.IMPORTING: frozenset({ImageStatus.QUEUED, ImageStatus.ACTIVE, ImageStatus.KILLED, ImageStatus.DELETED}),
    ImageStatus.ACTIVE: frozenset({ImageStatus.DEACTIVATED, ImageStatus.DELETED}),
    ImageStatus.DEACTIVATED: frozenset({ImageStatus.ACTIVE, ImageStatus.DELETED}),
    ImageStatus.KILLED: frozenset({ImageStatus.DELETED}),
    ImageStatus.DELETED: frozenset(),
    ImageStatus.PENDING_DELETE: frozenset({ImageStatus.DELETED}),
}


class Visibility(StrEnum):
    PRIVATE = "private"  # its project only
    SHARED = "shared"  # its project, and the members
    COMMUNITY = "community"  # everyone who knows the id; listed only when asked for
    PUBLIC = "public"  # everyone


class MemberStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Location(Struct, frozen=True, kw_only=True):
    """Where bytes of an image lie that the service does not hold itself."""

    url: str
    store: str  # the http store it belongs to
    metadata: Mapping[str, Any] = {}  # of the owner's


class Staged(Struct, frozen=True, kw_only=True):
    """Bytes that were brought for an import, and wait for it in the staging folder under `token`."""

    token: str
    digests: Digests


class Image(Struct, frozen=True, kw_only=True):
    """A template that a server can be created from. Times are milliseconds since 1970, UTC."""

    id: ImageId
    project_id: ProjectId  # the owner
    name: str | None = None
    status: ImageStatus = ImageStatus.QUEUED
    visibility: Visibility = Visibility.PRIVATE
    protected: bool = False
    hidden: bool = False
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0  # GB (2^30 bytes)
    min_ram: int = 0  # MB
    size: int | None = None  # bytes stored; None until they are verified
    virtual_size: int | None = None  # bytes that a guest sees
    checksum: str | None = None  # md5 of the stored bytes, hex
    hash_algorithm: str | None = None
    hash_value: str | None = None
    blob_id: BlobId | None = None
    upload_id: UploadId | None = None  # who is bringing the bytes
    reserved_bytes: int = 0  # counted in the quota for an upload under way
    properties: Mapping[str, str] = {}  # every other attribute that is stored
    tags: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()  # that hold `blob_id`, heaviest first
    locations: tuple[Location, ...] = ()
    staged: Staged | None = None  # while it is uploading or importing
    has_members: bool = False  # some project was offered it, whatever that project answered
    created_at: int
    updated_at: int
    active_at: int | None = None
    deleted_at: int | None = None
    version: int = 1

    @property
    def is_staging(self) -> bool:
        """Whether bytes are being staged just now."""
        return self.status is ImageStatus.UPLOADING and self.staged is None

    def moved_to(self, status: ImageStatus) -> Self:
        """Return the image in the next state. Raises `WrongStatus` when the table does not allow it."""
        if status not in NEXT[self.status]:
            raise WrongStatus(now=self.status, wanted=f"it cannot become {status}")
        return replace(self, status=status)

    @property
    def is_whole(self) -> bool:
        """Whether it is of a server with all its disks."""
        return self.properties.get("__whole_image") == "true"

    @property
    def has_bytes(self) -> bool:
        return self.status in (ImageStatus.ACTIVE, ImageStatus.DEACTIVATED)

    @property
    def lies_elsewhere(self) -> bool:
        """Whether no store of the service holds its bytes: it points at URLs."""
        return self.has_bytes and not self.stores

    @property
    def stored_bytes(self) -> int:
        """What it counts for in the quota; bytes that lie elsewhere do not."""
        return (self.size or 0) if self.has_bytes and self.stores else 0


class ImageCreate(Struct, frozen=True, kw_only=True):
    """What an image is created with, checked. Whoever builds one has checked it with `attributes`."""

    id: ImageId | None = None  # None: a random one
    name: str | None = None
    visibility: Visibility = Visibility.PRIVATE
    protected: bool = False
    hidden: bool = False
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0  # GB
    min_ram: int = 0  # MB
    os_version: str | None = DEFAULT_OS_VERSION  # of the table of OS versions; None: no OS attributes (a data disk)
    properties: Mapping[str, str] = {}  # wins over what is derived from `os_version`
    tags: tuple[str, ...] = ()


class Member(Struct, frozen=True, kw_only=True):
    """A project that an image is shared with."""

    image_id: ImageId
    member_id: ProjectId
    status: MemberStatus
    created_at: int
    updated_at: int


class Operation(Struct, frozen=True, kw_only=True):
    """One step of a patch: what to do with the attribute `name`. `value` is None when removing; `position` is said of
    `locations` only, whose elements can be addressed."""

    op: Literal["add", "replace", "remove"]
    name: str
    value: object = None
    position: str | None = None


class TimeFilter(Struct, frozen=True, kw_only=True):
    """Times as shown, in whole seconds: `at` is the first millisecond of the second that was named."""

    operator: Literal["gt", "gte", "lt", "lte", "eq", "neq"]
    at: int


SortKey = Literal["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"]
Direction = Literal["asc", "desc"]


class TagFilter(Struct, frozen=True, kw_only=True):
    """What one tag of an image must be: one of the strings, or any that IMS reads as one of this key."""

    strings: tuple[str, ...] = ()
    key: str | None = None


class ImageQuery(Struct, frozen=True, kw_only=True):
    """Which images, in which order, how many. Everything given must hold; an attribute of several values is one of
    them, except tags, which must all be there."""

    visibility: Visibility | Literal["all"] | None = None  # None: all but the community images of others
    member_status: MemberStatus | Literal["all"] = MemberStatus.ACCEPTED  # of those that others share with the caller
    hidden: bool | None = False  # None: both
    protected: bool | None = None
    one_of: Mapping[str, tuple[str, ...]] = {}  # id, name, status, owner, disk_format …: column name -> values
    tags: tuple[str, ...] = ()
    tagged: tuple[TagFilter, ...] = ()  # of each, one tag must be there
    properties: tuple[tuple[str, str], ...] = ()
    defaulted: tuple[tuple[str, str], ...] = ()  # a property that has this value or is not there
    by_members: bool = False  # `visibility` as IMS tells it: an image is shared when it has members, else private
    offered: bool = False  # only what others share with the caller, by `member_status`; not its own
    numbers: Mapping[str, int] = {}  # size, virtual_size, min_disk, min_ram: equal; with _min, _max: inclusive bounds
    times: tuple[tuple[Literal["created_at", "updated_at"], TimeFilter], ...] = ()
    sort: tuple[tuple[SortKey, Direction], ...] = (("created_at", "desc"),)
    marker: str | None = None  # the id of the last image of the page before
    limit: int = 25


class Page(Struct, frozen=True, kw_only=True):
    images: tuple[Image, ...]
    next_marker: ImageId | None = None  # None: nothing follows
