"""What goes wrong with jobs, and what they are not begun for."""

from calotype.errors.disks import DiskRefused
from calotype.errors.families import CalotypeError, Conflict, Invalid, NotFound, Throttled, TooLarge


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


class KeyReused(Invalid):
    """The idempotency key is that of another request."""

    code = "idempotency_key_reused"


class RequestRepeated(Conflict):
    """The request was accepted under the same key a moment ago: its job is what is to be answered with."""

    code = "request_repeated"


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


class DuplicateFile(Invalid):
    code = "duplicate_file"
    img = "IMG.0123"


class TooManyDataImages(Invalid):
    code = "too_many_data_images"
    img = "IMG.0194"


class WholeImageExport(Invalid):
    code = "whole_image_export"
    img = "IMG.0128"


class WholeImageCopy(Invalid):
    code = "whole_image_copy"
    img = "IMG.0130"


class ChargedImage(Invalid):
    code = "charged_image"
    img = "IMG.0079"


class ExportTooLarge(TooLarge):
    code = "export_too_large"
    img = "IMG.0160"


class NotExportable(Invalid):
    code = "not_exportable"
    img = "IMG.0071"


class NotAccepted(Invalid):
    code = "not_accepted"
    img = "IMG.0196"


class BitmapMissing(Invalid):
    code = "bitmap_missing"
    img = "IMG.0057"


class QuickFormat(Invalid):
    code = "quick_format"
    img = "IMG.0072"


class OpaqueFormat(Invalid):
    """An image that is kept unseen: it cannot be converted."""

    code = "opaque_format"
    img = "IMG.0072"


class RegisterFailed(CalotypeError):
    """The file passed the gate, and could not be taken over all the same."""

    code = "register_failed"
    img = "IMG.1075"


class WrongImageType(Invalid):
    code = "wrong_image_type"
    img = "IMG.0024"


class OvaRefused(DiskRefused):
    code = "ova_refused"
    img = "IMG.0057"
