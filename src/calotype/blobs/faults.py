"""What the operating system says about a disk, in the service's own errors."""

import errno
from typing import Final

import structlog

from calotype.errors import CalotypeError, ImageTooLarge, NoSpace, Unavailable

log = structlog.get_logger()

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_fault(error: OSError) -> CalotypeError:
    """The error to raise `from error`. What only an operator can mend goes to the log with its number."""
    if error.errno in FULL:
        return NoSpace("the disk of the service is full; free space and try again")
    if error.errno == errno.EFBIG:
        return ImageTooLarge("the file is larger than the disk of the service can hold in one file")
    log.error("storage_failed", errno=errno.errorcode.get(error.errno or 0, "?"), reason=error.strerror)
    return Unavailable("the storage of the service failed; its log has the details")
