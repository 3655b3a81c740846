"""What goes wrong when an image is copied to another region."""

from calotype.errors.families import CalotypeError, Invalid


class UnknownRegion(Invalid):
    """No such region is in the settings, or it is this one."""

    code = "unknown_region"


class MissingProjectName(Invalid):
    """Images of the region may go to several projects; the request has to say to which."""

    code = "missing_project_name"
    img = "IMG.0104"


class WrongProjectName(Invalid):
    code = "wrong_project_name"
    img = "IMG.0145"


class AgencyRefused(Invalid):
    code = "agency_refused"
    img = "IMG.0179"


class NoVaultThere(Invalid):
    """A full-server image lives on its backups, and those stay in their region."""

    code = "no_vault_there"
    img = "IMG.0189"


class EncryptedImageCopy(Invalid):
    code = "encrypted_image_copy"
    img = "IMG.0197"


class RegionFailed(CalotypeError):
    """The other region refuses, or does not answer as it should; trying again does not help."""

    code = "region_failed"
    img = "IMG.0014"


class RegionUnavailable(RegionFailed):
    """The other region is away for now, or the connection to it broke."""

    code = "region_unavailable"


class LeftInRegion(RegionFailed):
    """A copy failed, and what was made of it in the other region could not be removed."""

    code = "left_in_region"
