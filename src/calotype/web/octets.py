"""What a request for stored bytes is answered with: the whole, a range of it, or that the client has it already."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from starlette.requests import Request

from calotype.blobs.download import parse_range

OCTETS: Final = "application/octet-stream"


class Part(Struct, frozen=True, kw_only=True):
    """`status` 304: no bytes are sent, whatever the method."""

    status: int
    headers: Mapping[str, str]
    first: int = 0  # offset
    last: int = -1

    @property
    def media_type(self) -> str | None:
        return None if self.status == 304 else OCTETS

    @property
    def length(self) -> int:
        return self.last + 1 - self.first


def asked(request: Request, *, size: int, md5: str | None) -> Part:
    """`md5`: of the whole, in hex; None where it is not known. Raises `RangeNotSatisfiable`. RFC 9110, 13 and 14."""
    etag = f'"{md5}"' if md5 else ""
    headers = {"Accept-Ranges": "bytes", **({"ETag": etag} if etag else {})}
    if etag and _names(request.headers.get("if-none-match"), etag):
        return Part(status=304, headers=headers)
    whole = request.headers.get("if-range", etag) != etag
    wanted = None if whole else parse_range(request.headers.get("range"), size)
    first, last = wanted or (0, size - 1)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    elif md5:
        headers["Content-MD5"] = md5  # in hex, as upstream has it
    headers["Content-Length"] = str(last - first + 1)
    return Part(status=200 if wanted is None else 206, headers=headers, first=first, last=last)


def _names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the entity tag; compared weakly, as RFC 9110 wants."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}
