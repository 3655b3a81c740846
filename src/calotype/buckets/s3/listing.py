"""What an S3 server says of objects: pages of a listing, and the headers of one. Pure but for the requests."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from msgspec import Struct

from calotype.buckets.address import object_key
from calotype.buckets.model import ObjectInfo, ObjectKey
from calotype.buckets.s3.wire import Answer, Wire
from calotype.errors import BucketDenied, InvalidObjectKey, Unavailable

MOST_KEYS: Final = 1000  # of one request, as S3 has it


class Entry(Struct, frozen=True, kw_only=True):
    """`info` None: the key is none that the service knows, as of what other programs use for folders."""

    key: str
    info: ObjectInfo | None


def info_of(wire: Wire, key: str, answer: Answer) -> ObjectInfo:
    """From the headers of a HEAD."""
    size, etag = answer.headers.get("content-length", ""), answer.headers.get("etag", "").strip('"')
    if not etag or not size.isascii() or not size.isdigit():
        raise BucketDenied(wire.bucket, "NoETag" if not etag else "NoContentLength")
    try:
        modified_at = int(parsedate_to_datetime(answer.headers.get("last-modified", "")).timestamp()) * 1000
    except (ValueError, TypeError, OverflowError):
        modified_at = 0
    return ObjectInfo(key=ObjectKey(key), size=int(size), modified_at=max(0, modified_at), etag=etag)


def listed(wire: Wire, *, prefix: str, after: str, limit: int) -> tuple[list[Entry], bool]:
    """At most `limit` objects, in the order of their keys' bytes, and whether there are more. Raises as `Wire`."""
    query = {
        "list-type": "2",
        "prefix": wire.prefix + prefix,
        "max-keys": str(min(limit, MOST_KEYS)),
        "encoding-type": "url",
    }
    if after:
        query["start-after"] = wire.prefix + after
    answer = wire.request("GET", None, query=query)
    try:
        root = ElementTree.fromstring(answer.body)  # noqa: S314 - of the operator's server; expat bounds what it grows to
        return _entries(wire, root), _text(root, "IsTruncated") == "true"
    except (ElementTree.ParseError, ValueError) as error:
        raise Unavailable(f"the S3 server of bucket {wire.bucket} does not list objects as S3 does") from error


def _entries(wire: Wire, root: ElementTree.Element) -> list[Entry]:
    is_encoded = _text(root, "EncodingType") == "url"
    found = []
    for content in root:
        if _name(content) != "Contents":
            continue
        key = _text(content, "Key")
        key = (unquote_plus(key, errors="replace") if is_encoded else key).removeprefix(wire.prefix)
        etag, size = _text(content, "ETag").strip('"'), int(_text(content, "Size"))
        try:
            known = object_key(key) if etag else None
        except InvalidObjectKey:
            known = None
        modified_at = _time_ms(_text(content, "LastModified"))
        info = known and ObjectInfo(key=known, size=size, modified_at=modified_at, etag=etag)
        found.append(Entry(key=key, info=info or None))
    return found


def _time_ms(text: str) -> int:
    """Whole seconds, as the headers have them."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return max(0, int(time.replace(tzinfo=time.tzinfo or UTC).timestamp()) * 1000)


def _text(element: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in element if _name(child) == name), "")


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
