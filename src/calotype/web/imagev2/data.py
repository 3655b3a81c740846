"""The bytes of an image: upload, download, and what is known of them without reading them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calotype.blobs.download import parse_range, stream
from calotype.blobs.local import BlobReader
from calotype.errors import Forbidden, Invalid, UnsupportedMedia, UploadCut
from calotype.images.model import Image
from calotype.web.imagev2 import bodies
from calotype.web.request import app_of, caller
from calotype.web.route import Route

OCTETS: Final = "application/octet-stream"
PATH: Final = "/v2/images/{image_id}/file"
MOST_DIGITS: Final = 18


async def upload(request: Request) -> Response:
    """Nothing of the body is read before everything that can be known without it was checked."""
    app = app_of(request)
    image_id = request.path_params["image_id"]
    await app.images.expects_bytes(caller(request), image_id)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OCTETS:
        raise UnsupportedMedia(f"image data wants the Content-Type {OCTETS}")
    announced = _announced(request)
    await app.images.upload(caller(request), image_id, request.stream(), announced=announced, budget=app.budget)
    return Response(status_code=204)


def _announced(request: Request) -> int | None:
    """How many bytes the client says it sends; None when it does not. Raises `Invalid`, `UploadCut`."""
    length, size = (_count(request, name) for name in ("content-length", "x-openstack-image-size"))
    if length is not None and size is not None and length != size:
        raise UploadCut(f"x-openstack-image-size says {size} bytes, and the body is {length} bytes long")
    return size if length is None else length


def _count(request: Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > MOST_DIGITS:
        raise Invalid(f"{header}: wants a number of bytes")
    return int(text)


async def download(request: Request) -> Response:
    image, reader = await app_of(request).images.open(caller(request), request.path_params["image_id"])
    if reader is None:
        return Response(status_code=204)
    try:
        return _answer(request, image, reader)
    except BaseException:
        reader.close()
        raise


def _answer(request: Request, image: Image, reader: BlobReader) -> Response:
    etag = f'"{image.checksum}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes"}
    if _names(request.headers.get("if-none-match"), etag):
        reader.close()
        return Response(status_code=304, headers=headers)
    whole = request.headers.get("if-range", etag) != etag
    asked = None if whole else parse_range(request.headers.get("range"), reader.size)
    first, last = asked or (0, reader.size - 1)
    if asked is None:
        headers["Content-MD5"] = image.checksum or ""  # in hex, as upstream has it
    else:
        headers["Content-Range"] = f"bytes {first}-{last}/{reader.size}"
    headers["Content-Length"] = str(last - first + 1)
    status = 200 if asked is None else 206
    if request.method == "HEAD":
        reader.close()
        return Response(status_code=status, headers=headers, media_type=OCTETS)
    content = stream(reader, first, last - first + 1)
    return _Watched(request, image, content, status, headers)


class _Watched(StreamingResponse):
    """Bytes of an image, as long as the caller may have them; when no longer, the connection is cut."""

    def __init__(
        self, request: Request, image: Image, content: AsyncIterator[bytes], status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(content, status, headers=headers, media_type=OCTETS)
        self._watched = app_of(request).downloads.watched(caller(request), image.id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(Forbidden), self._watched:  # the status is sent: a body that ends early tells it
            await super().__call__(scope, receive, send)


def _names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the entity tag; compared weakly, as RFC 9110 wants."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}


ROUTES: Final[list[Route]] = [
    Route(
        method="PUT",
        path=PATH,
        handler=upload,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update", "ims:images:upload"),
        summary="Upload image data",
        reads=bodies.UPLOADING,
        takes=bodies.OCTETS,
        status=204,
    ),
    Route(
        method="GET",
        path=PATH,
        handler=download,
        family="imagev2",
        permission="ims:images:get",
        summary="Download image data",
        reads=bodies.DOWNLOADING,
        gives=bodies.OCTETS,
        also=(204, 206, 304, 416),
    ),
    Route(
        method="HEAD",
        path=PATH,
        handler=download,
        family="imagev2",
        permission="ims:images:get",
        summary="Show the size and digest of image data",
        reads=bodies.DOWNLOADING,
        also=(204, 206, 304, 416),
    ),
]
