"""The root of all errors, and their families: what a program can do about one. `web/problems.py` maps them to the
wire."""

from typing import ClassVar


class CalotypeError(Exception):
    """The root. Anything raised to a caller that is not of this kind is a bug."""

    code: ClassVar[str] = "error"
    img: ClassVar[str] = "IMG.0061"

    @property
    def message(self) -> str:
        return str(self)


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
