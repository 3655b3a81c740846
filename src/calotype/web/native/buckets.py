"""`/calotype/v1/buckets`: buckets, and the objects in them as streams."""

from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from calotype.blobs.download import parse_range, stream
from calotype.buckets.model import Bucket, ObjectInfo
from calotype.buckets.service import md5_of_header
from calotype.errors import BadFilter, ImageTooLarge, Invalid, RangeNotSatisfiable
from calotype.jobs.view import iso_ms
from calotype.web.request import app_of, caller, json
from calotype.web.route import Media, Parameter, Route

READ: Final = "calotype:buckets:get"
WRITE: Final = "calotype:buckets:write"
DEFAULT_LIMIT: Final = 100
MOST_LIMIT: Final = 1000  # a larger one is taken for this


class BucketView(Struct, frozen=True, kw_only=True):
    name: str
    created_at: str | None  # null: mapped by the operator
    mapped: bool
    read_only: bool


class BucketsView(Struct, frozen=True, kw_only=True):
    buckets: list[BucketView]


class ObjectView(Struct, frozen=True, kw_only=True):
    key: str
    size: int
    modified_at: str
    etag: str


class ObjectsView(Struct, frozen=True, kw_only=True):
    objects: list[ObjectView]
    next_marker: str | None


async def list_buckets(request: Request) -> Response:
    found = await app_of(request).buckets.list(caller(request))
    return json(BucketsView(buckets=[_bucket(bucket) for bucket in found]))


async def create_bucket(request: Request) -> Response:
    made = await app_of(request).buckets.create(caller(request), request.path_params["bucket"])
    return json(_bucket(made), status=HTTPStatus.CREATED)


async def show_bucket(request: Request) -> Response:
    return json(_bucket(await app_of(request).buckets.get(caller(request), request.path_params["bucket"])))


async def delete_bucket(request: Request) -> Response:
    await app_of(request).buckets.delete(caller(request), request.path_params["bucket"])
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def list_objects(request: Request) -> Response:
    query = request.query_params
    page = await app_of(request).buckets.objects(
        caller(request),
        request.path_params["bucket"],
        prefix=query.get("prefix", ""),
        limit=_limit(query.get("limit")),
        marker=query.get("marker", ""),
    )
    return json(ObjectsView(objects=[_object(info) for info in page.objects], next_marker=page.next_marker))


async def put_object(request: Request) -> Response:
    """`If-None-Match: *`: refuse (409) rather than replace. `Content-MD5`: refuse bytes that are not those."""
    app = app_of(request)
    announced = _announced(request)
    condition = request.headers.get("if-none-match")
    if condition not in (None, "*"):
        raise Invalid("If-None-Match can only be * here: do not replace an object")
    # As large as the largest file that an import takes.
    most = max(app.settings.image.file_bytes, app.settings.image.quick_bytes)
    if announced is not None and announced > most:
        raise ImageTooLarge(f"an object has at most {most} bytes; {announced} are announced")
    made = await app.buckets.put(
        caller(request),
        request.path_params["bucket"],
        request.path_params["key"],
        request.stream(),
        budget=app.budget,
        most_bytes=most,
        overwrite=condition is None,
        announced=announced,
        expected_md5=md5_of_header(request.headers.get("content-md5")),
    )
    return json(_object(made), status=HTTPStatus.CREATED, headers={"ETag": f'"{made.etag}"'})


async def get_object(request: Request) -> Response:
    """The bytes, or a range of them; 304 where the client has this version."""
    buckets = app_of(request).buckets
    info, reader = await buckets.read(caller(request), request.path_params["bucket"], request.path_params["key"])
    headers = _headers(info)
    try:
        part = _part(request, info, headers["ETag"])
    except RangeNotSatisfiable:
        reader.close()
        raise
    if _has_this(request, info):
        reader.close()
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    start, end = part or (0, info.size - 1)
    headers["Content-Length"] = str(end + 1 - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end}/{info.size}"
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    return StreamingResponse(stream(reader, start, end + 1 - start), status, headers, "application/octet-stream")


async def head_object(request: Request) -> Response:
    buckets = app_of(request).buckets
    info = await buckets.stat(caller(request), request.path_params["bucket"], request.path_params["key"])
    headers = _headers(info)
    if _has_this(request, info):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers["Content-Length"] = str(info.size)
    return Response(headers=headers, media_type="application/octet-stream")


async def delete_object(request: Request) -> Response:
    buckets = app_of(request).buckets
    await buckets.delete_object(caller(request), request.path_params["bucket"], request.path_params["key"])
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _bucket(bucket: Bucket) -> BucketView:
    return BucketView(
        name=bucket.name, created_at=iso_ms(bucket.created_at), mapped=bucket.mapped, read_only=bucket.read_only
    )


def _object(info: ObjectInfo) -> ObjectView:
    return ObjectView(key=info.key, size=info.size, modified_at=iso_ms(info.modified_at) or "", etag=info.etag)


def _headers(info: ObjectInfo) -> dict[str, str]:
    modified = datetime.fromtimestamp(info.modified_at // 1000, UTC)
    return {
        "ETag": f'"{info.etag}"',
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }


def _part(request: Request, info: ObjectInfo, etag: str) -> tuple[int, int] | None:
    """The first and last offset that are asked for; None: the whole. Raises `RangeNotSatisfiable`."""
    if request.headers.get("if-range", etag) != etag or _has_this(request, info):
        return None
    return parse_range(request.headers.get("range"), info.size)


def _has_this(request: Request, info: ObjectInfo) -> bool:
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return "*" in tags or f'"{info.etag}"' in tags


def _announced(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Invalid("Content-Length wants a number of bytes")
    return int(text)


def _limit(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not text.strip("0"):
        raise BadFilter(f"limit: wants a whole number above 0, not {text[:40]!r}")
    return MOST_LIMIT if len(text) > 9 else min(int(text), MOST_LIMIT)


BUCKET: Final = "/calotype/v1/buckets/{bucket}"
OBJECT: Final = BUCKET + "/objects/{key:path}"
OCTETS: Final = Media(types=("application/octet-stream",))
ANY_BYTES: Final = Media(types=("*/*",), required=False)
LISTING: Final = (
    Parameter(name="prefix"),
    Parameter(name="limit", schema={"type": "integer", "minimum": 1}),
    Parameter(name="marker"),
)
READING: Final = tuple(Parameter(name=name, where="header") for name in ("Range", "If-Range", "If-None-Match"))
WRITING: Final = (
    Parameter(name="If-None-Match", where="header", schema={"const": "*"}),
    Parameter(name="Content-MD5", where="header"),
)


ROUTES: Final = [
    Route(
        method="GET",
        path="/calotype/v1/buckets",
        handler=list_buckets,
        family="native",
        permission=READ,
        summary="List the buckets of the project",
        gives=BucketsView,
    ),
    Route(
        method="PUT",
        path=BUCKET,
        handler=create_bucket,
        family="native",
        permission=WRITE,
        summary="Create a bucket",
        gives=BucketView,
        status=201,
    ),
    Route(
        method="GET",
        path=BUCKET,
        handler=show_bucket,
        family="native",
        permission=READ,
        summary="Show a bucket",
        gives=BucketView,
    ),
    Route(
        method="DELETE",
        path=BUCKET,
        handler=delete_bucket,
        family="native",
        permission=WRITE,
        summary="Delete an empty bucket",
        status=204,
    ),
    Route(
        method="GET",
        path=BUCKET + "/objects",
        handler=list_objects,
        family="native",
        permission=READ,
        summary="List objects by prefix, in the order of their keys",
        reads=LISTING,
        gives=ObjectsView,
    ),
    Route(
        method="PUT",
        path=OBJECT,
        handler=put_object,
        family="native",
        permission=WRITE,
        summary="Store an object",
        reads=WRITING,
        takes=ANY_BYTES,
        gives=ObjectView,
        status=201,
    ),
    Route(
        method="GET",
        path=OBJECT,
        handler=get_object,
        family="native",
        permission=READ,
        summary="Download an object, or a range of it",
        reads=READING,
        gives=OCTETS,
        also=(206, 304, 416),
    ),
    Route(
        method="HEAD",
        path=OBJECT,
        handler=head_object,
        family="native",
        permission=READ,
        summary="Size and version of an object",
        reads=READING[2:],
        also=(304,),
    ),
    Route(
        method="DELETE",
        path=OBJECT,
        handler=delete_object,
        family="native",
        permission=WRITE,
        summary="Delete an object",
        status=204,
    ),
]
