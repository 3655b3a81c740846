"""What goes wrong with images in the catalogue, their members, tags, places and quotas."""

from calotype.errors.families import CalotypeError, Conflict, Forbidden, Invalid, NotFound, TooLarge, Unavailable


class ImageNotFound(NotFound):
    code = "image_not_found"
    img = "IMG.0144"

    def __init__(self, image_id: str) -> None:
        super().__init__(f"no image {image_id}")


class TagNotFound(NotFound):
    code = "tag_not_found"

    def __init__(self, tag: str) -> None:
        super().__init__(f"the image has no tag {tag}")


class MemberNotFound(NotFound):
    """The image is not shared with the project, or that is not for this caller to know."""

    code = "member_not_found"

    def __init__(self, member_id: str) -> None:
        super().__init__(f"the image is not shared with project {member_id}")


class MemberExists(Conflict):
    code = "member_exists"

    def __init__(self, member_id: str) -> None:
        super().__init__(f"the image is shared with project {member_id} already")


class TooManyMembers(TooLarge):
    code = "too_many_members"
    img = "IMG.0088"


class NotShareable(Forbidden):
    """Public and community images are everyone's: they have no members."""

    code = "not_shareable"
    img = "IMG.0089"


class DuplicateImage(Conflict):
    code = "duplicate_image"

    def __init__(self, image_id: str) -> None:
        super().__init__(f"an image with the id {image_id} exists or existed; ids are never used twice")


class NameTaken(Conflict):
    """Where the settings want it so, the images of a project differ in their names."""

    code = "name_taken"
    img = "IMG.0009"


class WrongStatus(Conflict):
    """The image's state does not allow this."""

    code = "wrong_status"
    img = "IMG.0046"

    def __init__(self, *, now: str, wanted: str) -> None:
        super().__init__(f"the image is {now}; {wanted}")
        self.now = now


class ImportRefused(Conflict):
    """The image, or the store it is to go to, does not allow this import."""

    code = "import_refused"


class UnknownEndpoint(Invalid):
    """The catalog names no Image service in that region, or not for that interface."""

    code = "unknown_endpoint"


class StagedBytesGone(CalotypeError):
    """What was staged is not in the staging folder of this deployment any more."""

    code = "staged_bytes_gone"
    img = "IMG.0057"


class ImageProtected(Forbidden):
    code = "image_protected"

    def __init__(self, image_id: str) -> None:
        super().__init__(f"image {image_id} is protected and cannot be deleted; set protected to false first")


class ImageInUse(Conflict):
    """A job is working on the image."""

    code = "image_in_use"
    img = "IMG.0090"


class NotImageOwner(Forbidden):
    code = "not_image_owner"
    img = "IMG.0047"


class AttributeConflict(Invalid):
    code = "attribute_conflict"
    img = "IMG.0035"


class ReadOnlyAttribute(Forbidden):
    code = "read_only_attribute"
    img = "IMG.0035"


class MissingAttribute(Conflict):
    """A patch replaces or removes what is not there."""

    code = "missing_attribute"
    img = "IMG.0035"


class ImageQuotaExceeded(TooLarge):
    code = "image_quota_exceeded"
    img = "IMG.0015"


class StorageQuotaExceeded(TooLarge):
    code = "storage_quota_exceeded"
    img = "IMG.0059"


class ImageTooLarge(TooLarge):
    code = "image_too_large"
    img = "IMG.0059"


class BlobNotFound(NotFound):
    """The bytes are gone: the image was deleted since its row was read."""

    code = "blob_not_found"
    img = "IMG.0144"

    def __init__(self, blob_id: str) -> None:
        super().__init__(f"no blob {blob_id}")


class StoreNotFound(NotFound):
    """No store of this name is configured, or it does not hold the image."""

    code = "store_not_found"


class StoreReadOnly(Forbidden):
    """An http store holds nothing: images point at URLs in it."""

    code = "store_read_only"


class StoreNotConfigured(Conflict):
    """A request names a store that this service does not have."""

    code = "store_not_configured"


class DuplicateLocation(Invalid):
    code = "duplicate_location"


class LocationConflict(Conflict):
    """What is said of a location contradicts what is known of the image."""

    code = "location_conflict"


class LiesElsewhere(Conflict):
    """The bytes of the image lie at a URL; this wants them in a store of the service."""

    code = "lies_elsewhere"


class NotCacheable(Invalid):
    """The image has no bytes yet, or more than the cache of the node holds."""

    code = "not_cacheable"


class LastCopy(Forbidden):
    """An image that is active has its bytes in one store at least."""

    code = "last_copy"


class NoSpace(Unavailable):
    """The disk of the service is full."""

    code = "no_space"
    img = "IMG.0014"


class ScratchFull(NoSpace):
    """A job did not get the room on disk that it needs before its result is published."""

    code = "scratch_full"
