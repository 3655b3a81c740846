"""What is wrong with the content of a disk image, and with working on it."""

from calotype.errors.families import CalotypeError, Invalid, Unavailable


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
