"""What is wrong with a request itself: its fields, their form, who is named in it."""

from calotype.errors.families import Invalid


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


class EncryptedBms(Invalid):
    code = "encrypted_bms"
    img = "IMG.0118"


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
