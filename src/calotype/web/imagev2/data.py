"""The bytes of an image: upload, download, and what is known of them without reading them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calotype.blobs.download import stream
from calotype.blobs.local import BlobReader
from calotype.errors import Forbidden, Invalid, NotFound, UnsupportedMedia, UploadCut
from calotype.images.model import Image
from calotype.images.remote import RemoteReader
from calotype.jobs.kinds.imports import STAGED
from calotype.web import octets
from calotype.web.imagev2 import bodies, digests
from calotype.web.octets import OCTETS
from calotype.web.request import app_of, caller
from calotype.web.route import Parameter, Route

PATH: Final = "/v2/images/{image_id}/file"
MOST_DIGITS: Final = 18
STORE: Final = Parameter(name="x-image-meta-store", where="header", summary="the store that is to hold the bytes")


async def upload(request: Request) -> Response:
    """Nothing of the body is read before everything that can be known without it was checked."""
    app = app_of(request)
    image_id = request.path_params["image_id"]
    await app.images.expects_bytes(caller(request), image_id)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OCTETS:
        raise UnsupportedMedia(f"image data wants the Content-Type {OCTETS}")
    announced = _announced(request)
    store = _store(request)
    expected = digests.content_digest(request.headers.get(digests.CONTENT_DIGEST))
    await app.images.upload(
        caller(request),
        image_id,
        request.stream(),
        announced=announced,
        expected=expected,
        budget=app.budget,
        store=store,
    )
    return Response(status_code=204)


async def stage(request: Request) -> Response:
    """As `upload`, but the bytes wait for the import that is asked for next."""
    app = app_of(request)
    image_id = request.path_params["image_id"]
    if STAGED not in app.imports.methods:
        raise NotFound("the glance-direct method is not offered here")
    await app.images.expects_bytes(caller(request), image_id)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OCTETS:
        raise UnsupportedMedia(f"image data wants the Content-Type {OCTETS}")
    announced = _announced(request)
    expected = digests.content_digest(request.headers.get(digests.CONTENT_DIGEST))
    await app.images.stage(
        caller(request), image_id, request.stream(), announced=announced, expected=expected, budget=app.budget
    )
    return Response(status_code=204)


def _store(request: Request) -> str:
    """The store that is to hold the bytes. Raises `Invalid`."""
    stores = app_of(request).blobs
    name = request.headers.get(STORE.name) or stores.default
    if name not in stores.writable:
        raise Invalid(f"{STORE.name}: wants one of {', '.join(stores.writable)}")
    return name


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
    if reader is None and image.lies_elsewhere:
        reader = await app_of(request).cache.open(image)
    elif reader is None:
        return Response(status_code=204)
    try:
        return await _answer(request, image, reader)
    except BaseException:
        if reader is not None:
            reader.close()
        raise


async def _answer(request: Request, image: Image, reader: BlobReader | None) -> Response:
    """`reader`: None where the bytes lie elsewhere."""
    size = (image.size or 0) if reader is None else reader.size
    part = octets.asked(request, size=size, md5=image.checksum)
    if part.status == 304 or request.method == "HEAD":
        if reader is not None:
            reader.close()
        return Response(status_code=part.status, headers=dict(part.headers), media_type=part.media_type)
    app_of(request).cache.count(image.id)
    if reader is None:
        remote = await app_of(request).locations.open(image, part.first, part.last)
        return _Watched(request, image, remote.stream(), part, remote)
    return _Watched(request, image, stream(reader, part.first, part.length), part)


class _Watched(StreamingResponse):
    """Bytes of an image, as long as the caller may have them; when no longer, the connection is cut."""

    def __init__(
        self,
        request: Request,
        image: Image,
        content: AsyncIterator[bytes],
        part: octets.Part,
        remote: RemoteReader | None = None,
    ) -> None:
        super().__init__(content, part.status, headers=part.headers, media_type=part.media_type)
        self._watched = app_of(request).downloads.watched(caller(request), image.id)
        self._closing = contextlib.nullcontext() if remote is None else contextlib.closing(remote)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with (
            contextlib.suppress(Forbidden),  # the status is sent: a body that ends early tells it
            self._closing,  # also where nothing was read: the client was gone before the first byte
            self._watched,
        ):
            await super().__call__(scope, receive, send)


ROUTES: Final[list[Route]] = [
    Route(
        method="PUT",
        path=PATH,
        handler=upload,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update", "ims:images:upload"),
        summary="Upload image data",
        reads=(*bodies.UPLOADING, STORE, digests.PARAMETER),
        takes=bodies.OCTETS,
        status=204,
    ),
    Route(
        method="PUT",
        path="/v2/images/{image_id}/stage",
        handler=stage,
        family="imagev2",
        permission=("ims:images:get", "ims:images:update", "ims:images:upload"),
        summary="Stage image data",
        reads=(*bodies.UPLOADING, digests.PARAMETER),
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
