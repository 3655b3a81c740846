"""What can go wrong, as one hierarchy; no HTTP in it.

A *family* says what a program can do about an error and is what `web/problems.py` maps to the wire.
A *leaf* says what happened: `code` is stable and readable, `img` is the code that the IMS API has for the same fact
(its message is in `calotype/jobs/img_codes.json`). The text of an error is for the caller: what was wrong and what to
do, in the API's words, without paths, queries or secrets.
"""

from typing import ClassVar


class CalotypeError(Exception):
    """The root. Anything raised to a caller that is not of this kind is a bug."""

    code: ClassVar[str] = "error"
    img: ClassVar[str] = "IMG.0061"

    @property
    def message(self) -> str:
        return str(self)


# --- families ---------------------------------------------------------------------------------------------------------


class Invalid(CalotypeError):
    """What was sent cannot be accepted as it is; sending it again will not help."""

    code = "invalid"
    img = "IMG.0001"


class Unauthenticated(CalotypeError):
    """Who is calling is not known."""

    code = "unauthenticated"
    img = "IMG.0087"


class Forbidden(CalotypeError):
    """The caller is known and may not do this."""

    code = "forbidden"
    img = "IMG.0026"


class NotFound(CalotypeError):
    """It does not exist, or not for this caller."""

    code = "not_found"
    img = "IMG.0121"


class Conflict(CalotypeError):
    """It cannot be done in the present state."""

    code = "conflict"
    img = "IMG.0046"


class TooLarge(CalotypeError):
    """It is above a limit or a quota."""

    code = "too_large"
    img = "IMG.0059"


class UnsupportedMedia(CalotypeError):
    """The body is of a type this call does not take."""

    code = "unsupported_media_type"
    img = "IMG.0001"


class RangeNotSatisfiable(CalotypeError):
    """No byte of the asked range exists. `size` is the length of the whole in bytes."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the range is outside the {size} bytes of the object")
        self.size = size


class Throttled(CalotypeError):
    """Too much at once; later it may work."""

    code = "throttled"
    img = "IMG.0060"


class Unavailable(CalotypeError):
    """A part of the service is away for now; the same call may succeed later."""

    code = "unavailable"
    img = "IMG.0014"


# --- requests ---------------------------------------------------------------------------------------------------------


class MalformedBody(Invalid):
    code = "malformed_body"
    img = "IMG.0001"


class EmptyBody(Invalid):
    code = "empty_body"
    img = "IMG.0007"


class WrongProject(Invalid):
    """The project in the path is not the credential's."""

    code = "wrong_project"
    img = "IMG.0030"


class BadFilter(Invalid):
    code = "bad_filter"
    img = "IMG.0001"


class InvalidName(Invalid):
    code = "invalid_name"
    img = "IMG.0003"


class MissingName(Invalid):
    code = "missing_name"
    img = "IMG.0013"


class NameTooLong(Invalid):
    code = "name_too_long"
    img = "IMG.0002"


class DescriptionTooLong(Invalid):
    code = "description_too_long"
    img = "IMG.0004"


class InvalidDescription(Invalid):
    code = "invalid_description"
    img = "IMG.0054"


class InvalidSize(Invalid):
    """min_disk, min_ram or max_ram is out of bounds, or smaller than what the image needs."""

    code = "invalid_size"
    img = "IMG.0055"


class UnknownOsVersion(Invalid):
    code = "unknown_os_version"
    img = "IMG.0056"


class InvalidOsType(Invalid):
    code = "invalid_os_type"
    img = "IMG.0122"


class UnknownResource(Invalid):
    """No source was named that an image could be made from."""

    code = "unknown_resource"
    img = "IMG.0021"


class InvalidTag(Invalid):
    code = "invalid_tag"
    img = "IMG.0115"


class TooManyTags(Invalid):
    code = "too_many_tags"
    img = "IMG.0116"


class InvalidFirmware(Invalid):
    code = "invalid_firmware"
    img = "IMG.0141"


class InvalidImageType(Invalid):
    code = "invalid_image_type"
    img = "IMG.0117"


class MissingOsVersion(Invalid):
    code = "missing_os_version"
    img = "IMG.0166"


class InvalidEnterpriseProject(Invalid):
    code = "invalid_enterprise_project"
    img = "IMG.0155"


class InvalidArchitecture(Invalid):
    code = "invalid_architecture"
    img = "IMG.0212"


class KeyDoesNotExist(Invalid):
    """An encryption key was named; this deployment has none."""

    code = "key_does_not_exist"
    img = "IMG.0095"


class UnknownFlavor(Invalid):
    """A list was asked for the images of a flavor; this service has no flavors."""

    code = "unknown_flavor"
    img = "IMG.0192"


class UnknownImage(Invalid):
    """An image that a body names does not exist, or not for this caller."""

    code = "unknown_image"
    img = "IMG.0027"


class PublicImage(Invalid):
    """What IMS does with images of one's own only."""

    code = "public_image"
    img = "IMG.0083"


class SharedWithItself(Invalid):
    """The recipient is the project that owns the image."""

    code = "shared_with_itself"
    img = "IMG.0076"


class UnknownProject(Invalid):
    """A recipient that is no project here."""

    code = "unknown_project"
    img = "IMG.0108"


class EncryptedImageShare(Invalid):
    code = "encrypted_image_share"
    img = "IMG.0098"


class WholeImageShare(Invalid):
    """A full-server image that is not made from a CBR backup."""

    code = "whole_image_share"
    img = "IMG.0135"


class NotSupported(Invalid):
    """The API knows this, the deployment does not offer it."""

    code = "not_supported"
    img = "IMG.0105"


# --- images -----------------------------------------------------------------------------------------------------------


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
    img = "IMG.0066"

    def __init__(self, image_id: str) -> None:
        super().__init__(f"an image with the id {image_id} exists or existed; ids are never used twice")


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
    img = "IMG.0028"

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


# --- disk images ------------------------------------------------------------------------------------------------------


class DiskRefused(Invalid):
    """The gate did not let a disk image pass. The family of all that is wrong with an image's content."""

    code = "disk_refused"
    img = "IMG.0057"


class EmptyDisk(DiskRefused):
    code = "empty_disk"


class FormatMismatch(DiskRefused):
    """The content is not of the declared format, or of none that can be used, or of two at once."""

    code = "format_mismatch"


class TruncatedDisk(DiskRefused):
    code = "truncated_disk"


class UnsafeDisk(DiskRefused):
    """The image refers to something outside itself, or is encrypted."""

    code = "unsafe_disk"


class UnpackRefused(DiskRefused):
    """What is compressed around an image is damaged, packed twice, or more than may be unpacked."""

    code = "unpack_refused"


class DiskTooLarge(DiskRefused):
    """The virtual size is above what is allowed."""

    code = "disk_too_large"
    img = "IMG.0059"


class ConversionFailed(CalotypeError):
    """qemu-img could not do it. The text holds its last words, without paths."""

    code = "conversion_failed"
    img = "IMG.0057"


class SandboxUnavailable(Unavailable):
    """What conversions need is not installed, or the host does not allow it."""

    code = "sandbox_unavailable"


class VerificationFailed(CalotypeError):
    """What was written does not read back as what was given."""

    code = "verification_failed"
    img = "IMG.0014"


# --- buckets ----------------------------------------------------------------------------------------------------------


class BucketNotFound(NotFound):
    code = "bucket_not_found"
    img = "IMG.0069"

    def __init__(self, name: str) -> None:
        super().__init__(f"no bucket {name}")


class BucketExists(Conflict):
    code = "bucket_exists"
    img = "IMG.0038"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} exists")


class TooManyBuckets(TooLarge):
    code = "too_many_buckets"
    img = "IMG.0038"

    def __init__(self, most: int) -> None:
        super().__init__(f"a project has at most {most} buckets; delete one that is not needed")


class BucketMapped(Forbidden):
    """A bucket of the settings, not of the API."""

    code = "bucket_mapped"
    img = "IMG.0038"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is a folder that the operator has mapped; only the settings can remove it")


class BucketNotEmpty(Conflict):
    code = "bucket_not_empty"
    img = "IMG.0038"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is not empty; delete its objects first")


class BucketReadOnly(Forbidden):
    code = "bucket_read_only"
    img = "IMG.0069"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is read-only")


class InvalidBucketName(Invalid):
    code = "invalid_bucket_name"
    img = "IMG.0109"


class EmptyBucketName(Invalid):
    code = "empty_bucket_name"
    img = "IMG.0068"


class InvalidObjectKey(Invalid):
    code = "invalid_object_key"
    img = "IMG.0075"


class ObjectKeyTooLong(InvalidObjectKey):
    code = "object_key_too_long"
    img = "IMG.0074"


class EmptyObjectKey(InvalidObjectKey):
    code = "empty_object_key"
    img = "IMG.0073"


class SpaceInObjectKey(InvalidObjectKey):
    code = "space_in_object_key"
    img = "IMG.0175"


class InvalidObjectAddress(Invalid):
    """Not of the form `bucket:key`."""

    code = "invalid_object_address"
    img = "IMG.0017"


class ObjectNotFound(NotFound):
    code = "object_not_found"
    img = "IMG.0057"

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"object {bucket}:{key} not found")


class ObjectExists(Conflict):
    code = "object_exists"
    img = "IMG.0070"

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"object {bucket}:{key} exists")


class ObjectIsFolder(Conflict):
    """In a bucket that is a folder, `a` and `a/b` cannot both be objects."""

    code = "object_is_folder"
    img = "IMG.0070"

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"{bucket}:{key} cannot be an object: a part of the key is a folder or an object already")


class ObjectChanged(CalotypeError):
    """The source is no longer what it was when the job began."""

    code = "object_changed"
    img = "IMG.0057"


class DigestMismatch(Invalid):
    """The bytes are not those that the caller announced."""

    code = "digest_mismatch"
    img = "IMG.0057"


class UploadCut(Invalid):
    """The client went away, or sent fewer or more bytes than it announced."""

    code = "upload_cut"
    img = "IMG.0057"


# --- jobs -------------------------------------------------------------------------------------------------------------


class JobNotFound(NotFound):
    """Unknown and foreign ids alike, malformed ones too: the answer is the same to the byte."""

    code = "job_not_found"
    img = "IMG.0023"

    def __init__(self) -> None:
        super().__init__("no such job")


class JobFinished(Conflict):
    code = "job_finished"
    img = "IMG.0023"


class JobCancelled(CalotypeError):
    code = "job_cancelled"
    img = "IMG.0061"


class JobInterrupted(CalotypeError):
    """The attempts are used up: workers that had the job died, again and again."""

    code = "job_interrupted"
    img = "IMG.0061"


class TooManyJobs(Throttled):
    code = "too_many_jobs"
    img = "IMG.0060"


class ExportUnsupported(Invalid):
    """The asked format is not one that images are exported to."""

    code = "export_unsupported"
    img = "IMG.0072"


class IsoImage(Invalid):
    code = "iso_image"
    img = "IMG.0167"


class PublicImageExport(Invalid):
    code = "public_image_export"
    img = "IMG.0077"


class ExportRunning(Invalid):
    code = "export_running"
    img = "IMG.0148"


# --- metadata definitions ---------------------------------------------------------------------------------------------


class NamespaceNotFound(NotFound):
    """No such namespace of metadata definitions, or it is another project's."""

    code = "namespace_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no namespace {name[:80]}")


class NamespaceExists(Conflict):
    code = "namespace_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"namespace {name} exists")


class MetadefNotFound(NotFound):
    """The namespace has no such object, property, tag or resource type."""

    code = "metadef_not_found"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        super().__init__(f"namespace {namespace} has no {kind} {name[:80]}")


class MetadefExists(Conflict):
    code = "metadef_exists"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        super().__init__(f"namespace {namespace} has the {kind} {name} already")


class MetadefProtected(Forbidden):
    code = "metadef_protected"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace} is protected: neither it nor what is in it can be deleted")


class TooManyMetadefs(TooLarge):
    code = "too_many_metadefs"


# --- identity ---------------------------------------------------------------------------------------------------------


class IdentityNotFound(NotFound):
    """No such user, project, domain, role or assignment."""

    code = "identity_not_found"


class IdentityConflict(Conflict):
    code = "identity_conflict"


class SignatureRefused(Unauthenticated):
    """A request that was signed with an access key, and not as it must be. Told in the gateway's form by every API."""

    code = "signature_refused"


class TooManyAccessKeys(TooLarge):
    code = "too_many_access_keys"

    def __init__(self, most: int) -> None:
        super().__init__(f"a user has at most {most} access keys; delete one that is not needed")


# --- fetching ---------------------------------------------------------------------------------------------------------


class FetchRefused(Invalid):
    """A URL that nothing is fetched from. The text tells its host and nothing of the network."""

    code = "fetch_refused"
    img = "IMG.0017"

    def __init__(self, reason: str, *, host: str = "") -> None:
        super().__init__(f"the URL does not pass filtering: {f'{host}: ' if host else ''}{reason}")


class FetchFailed(Invalid):
    """The source refuses, or does not answer as it should; trying again does not help. `status`: what it answered."""

    code = "fetch_failed"
    img = "IMG.0057"

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class SourceChanged(FetchFailed):
    """Between two parts of one download."""

    code = "source_changed"


class SourceUnavailable(Unavailable):
    """The source of a fetch is away for now. `retry_after_s`: when it wants to be asked again."""

    code = "source_unavailable"

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
