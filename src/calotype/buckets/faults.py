"""What the operating system says about a bucket's folder, in the service's own errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from calotype.blobs.faults import storage_fault
from calotype.errors import BucketNotFound, CalotypeError, ObjectIsFolder, ObjectKeyTooLong

log = structlog.get_logger()

IN_THE_WAY: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY})
NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def told(root: Path, bucket: str, key: str, denied: CalotypeError) -> Iterator[None]:
    """`denied` is raised where the operator's permissions do not let the service. What lacks below an existing root is
    for the caller to judge: `FileNotFoundError` passes."""
    try:
        yield
    except FileNotFoundError as error:
        if not root.is_dir():
            raise BucketNotFound(bucket) from error
        raise
    except OSError as error:
        if error.errno in IN_THE_WAY:
            raise ObjectIsFolder(bucket, key) from error
        if error.errno == errno.ENAMETOOLONG:
            raise ObjectKeyTooLong("a part of the key is longer than the file system of the bucket allows") from error
        if error.errno in NOT_ALLOWED:
            log.warning("bucket_not_permitted", bucket=bucket, reason=error.strerror)
            raise denied from error
        raise storage_fault(error) from error
