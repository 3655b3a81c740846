"""What goes wrong with buckets, their objects, and addresses of both."""

from calotype.errors.families import CalotypeError, Conflict, Forbidden, Invalid, NotFound, TooLarge


class BucketNotFound(NotFound):
    code = "bucket_not_found"
    img = "IMG.0069"

    def __init__(self, name: str) -> None:
        super().__init__(f"no bucket {name}")


class BucketExists(Conflict):
    code = "bucket_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} exists")


class TooManyBuckets(TooLarge):
    code = "too_many_buckets"

    def __init__(self, most: int) -> None:
        super().__init__(f"a project has at most {most} buckets; delete one that is not needed")


class BucketMapped(Forbidden):
    """A bucket of the settings, not of the API."""

    code = "bucket_mapped"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is one that the operator has mapped; only the settings can remove it")


class BucketNotEmpty(Conflict):
    code = "bucket_not_empty"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is not empty; delete its objects first")


class BucketReadOnly(Forbidden):
    code = "bucket_read_only"
    img = "IMG.0069"

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name} is read-only")


class BucketDenied(Forbidden):
    """The S3 server of a bucket does not let the service do what it has to: for the operator to mend."""

    code = "bucket_denied"
    img = "IMG.0069"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"the S3 server of bucket {name} refuses the service ({reason}); an operator has to look at the bucket's "
            "settings, its keys and what they may do"
        )


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


class ContentDigestMismatch(Invalid):
    """What came of an upload is not what its header Content-Digest says."""

    code = "content_digest_mismatch"
    img = "IMG.0057"


class UploadCut(Invalid):
    """The client went away, or sent fewer or more bytes than it announced."""

    code = "upload_cut"
    img = "IMG.0057"
