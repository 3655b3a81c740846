"""AK/SK signatures, `SDK-HMAC-SHA256`: what of a request is signed, and whether a signature is right. Pure.

Two dialects bear the name. Both sign method, path, query, some headers and the body's hash; they differ in how these
are written down, and in the key. `Access=` is that of the vendor's SDKs, `Credential=` that of the Go clients.

Text is what came over the wire, each byte a character (Latin-1), so that no encoding is guessed.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from urllib.parse import quote, quote_plus, unquote_to_bytes

from msgspec import Struct

from calotype.errors import SignatureRefused

ALGORITHM: Final = "SDK-HMAC-SHA256"
DATE: Final = "x-sdk-date"
CONTENT: Final = "x-sdk-content-sha256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"  # in `CONTENT`: the body is not signed
EMPTY: Final = hashlib.sha256().hexdigest()  # of no body
WINDOW_MS: Final = 15 * 60_000  # how far the date of a request may be from now
MOST_CHARACTERS: Final = 8192  # of the header Authorization
MUST_BE_SIGNED: Final = ("host", DATE)

# The tails of refusals that clients of the vendor know.
WRONG: Final = "verify aksk signature fail"

_SIGNED: Final = r"SignedHeaders=(?P<headers>[!#$%&'*+.^_`|~0-9A-Za-z;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
_ACCESS: Final = re.compile(rf"{ALGORITHM} +Access=(?P<access>[0-9A-Za-z_-]{{1,128}}),\s*{_SIGNED}", re.ASCII)
_CREDENTIAL: Final = re.compile(
    rf"{ALGORITHM} +Credential=(?P<access>[0-9A-Za-z_-]{{1,128}})"
    rf"/(?P<scope>[0-9]{{8}}/[^/,\s]*/[^/,\s]*/sdk_request),\s*{_SIGNED}",
    re.ASCII,
)
_MOMENT: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
_OURS: Final = re.compile(r"(SDK|V[0-9]+)-[A-Z0-9-]+ ", re.ASCII)
_BLANKS: Final = re.compile(r"[\t\n\f\r ]+")


class Dialect(StrEnum):
    ACCESS = "Access"  # A in the vendor's documents
    CREDENTIAL = "Credential"  # B


class Message(Struct, frozen=True, kw_only=True):
    """A request without its body. Path and query are not decoded; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """Raises `SignatureRefused` when it is there twice: which of them was signed, nobody could say."""
        found = [value for known, value in self.headers if known == name]
        if len(found) > 1:
            raise SignatureRefused(f"the header {name} is there more than once")
        return found[0].strip(" \t") if found else None


class Authorization(Struct, frozen=True, kw_only=True):
    """What the header of this name says. `scope` is empty in the dialect `Access`."""

    dialect: Dialect
    access: str
    scope: str  # yyyymmdd/region/service/sdk_request
    signed: tuple[str, ...]  # names of headers, as they were given
    signature: str
    date: str  # X-Sdk-Date


def is_signed(authorization: str) -> bool:
    """Whether the header is that of a signature, of an algorithm that is known here or not."""
    return _OURS.match(authorization) is not None


def authorization(message: Message, now: int) -> Authorization:
    """What the signed request says of its signature. Raises `SignatureRefused` unless all of it is as it must be."""
    text = message.header("authorization") or ""
    if not text.startswith(f"{ALGORITHM} "):
        raise SignatureRefused(f"the algorithm of the signature is not {ALGORITHM}")
    found = None if len(text) > MOST_CHARACTERS else (_ACCESS.fullmatch(text) or _CREDENTIAL.fullmatch(text))
    if found is None:
        raise SignatureRefused("the header Authorization is not as documented")
    parts = found.groupdict()
    signed = tuple(parts["headers"].split(";"))
    names = {name.lower() for name in signed}
    for name in MUST_BE_SIGNED:
        if name not in names:
            raise SignatureRefused(f"the header {name} is not signed")
    for name in names:
        if message.header(name) is None:
            raise SignatureRefused(f"the header {name[:64]} is signed and was not sent")
    scope, date = parts.get("scope") or "", message.header(DATE) or ""
    _in_time(date, now)
    if scope and not date.startswith(scope[:8]):
        raise SignatureRefused("the date of the credential is not that of X-Sdk-Date")
    return Authorization(
        dialect=Dialect.CREDENTIAL if scope else Dialect.ACCESS,
        access=parts["access"],
        scope=scope,
        signed=signed,
        signature=parts["signature"],
        date=date,
    )


def _in_time(date: str, now: int) -> None:
    moment = _moment(date)
    if moment is None:
        raise SignatureRefused("X-Sdk-Date wants the form 20260102T030405Z")
    if abs(moment - now) > WINDOW_MS:
        raise SignatureRefused("X-Sdk-Date is more than 15 minutes away from the time of the service")


def _moment(date: str) -> int | None:
    """Milliseconds since 1970; None where the text names no moment."""
    if _MOMENT.fullmatch(date) is None:
        return None
    try:
        return int(datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None


def told_hash(message: Message) -> str | None:
    """What the client itself says of its body: a SHA-256 in hex, `UNSIGNED`, or None. Raises `SignatureRefused`."""
    told = message.header(CONTENT)
    if told is not None and told != UNSIGNED and _SHA256.fullmatch(told) is None:
        raise SignatureRefused(f"X-Sdk-Content-Sha256 wants a SHA-256 in hex, or {UNSIGNED}")
    return told


def hashes_before_body(given: Authorization, message: Message, *, empty: bool | None) -> tuple[str, ...]:
    """What may stand for the body in what was signed, as far as it is known without it; nothing: its hash alone.

    `empty`: whether there is no body; None: that is not known yet.
    """
    told = told_hash(message)
    if given.dialect is Dialect.CREDENTIAL:
        return (told,) if told is not None else ((EMPTY,) if empty else ())
    if empty:  # a told hash does not count then
        return (EMPTY,)
    if told is None:
        return ()
    return (told,) if empty is False else (told, EMPTY)


def is_right(secret: str, given: Authorization, message: Message, hashed: str) -> bool:
    """Whether the signature was made with `secret`, where `hashed` stands for the body: its SHA-256 in hex, or what
    the client told. In constant time for each way to write the request down."""
    key = signing_key(secret, given)
    right = False
    for text in canonical_requests(given, message, hashed):
        made = hmac.new(key, string_to_sign(given, text).encode(), hashlib.sha256).hexdigest()
        right |= hmac.compare_digest(made, given.signature)
    return right


def signing_key(secret: str, given: Authorization) -> bytes:
    if given.dialect is Dialect.ACCESS:
        return secret.encode()
    key = f"SDK{secret}".encode()
    for part in given.scope.split("/"):
        key = hmac.digest(key, part.encode("latin-1"), hashlib.sha256)
    return key


def string_to_sign(given: Authorization, canonical: str) -> str:
    hashed = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    scope = (given.scope,) if given.dialect is Dialect.CREDENTIAL else ()
    return "\n".join((ALGORITHM, given.date, *scope, hashed))


def canonical_requests(given: Authorization, message: Message, hashed: str) -> Iterator[str]:
    """The request as it is written down to be signed; in several ways where clients differ."""
    access = given.dialect is Dialect.ACCESS
    method = message.method.upper() if access else message.method
    headers = "".join(f"{name}:{_value(given, message, name)}\n" for name in given.signed)
    names = ";".join(given.signed)
    query = _all_pairs(message.query) if access else _first_pairs(message.query)
    ways = [(query, hashed)]
    if not access and message.method == "POST" and hashed == EMPTY:
        # Without a body the query is signed in its place. A client that sends an empty one signs it as ever.
        ways.insert(0, ("", told_hash(message) or hashlib.sha256(_as_form(message.query)).hexdigest()))
    # An encoded slash: the document has it encoded, the clients have a slash.
    paths = dict.fromkeys((_segments(message.path), _encoded(unquote_to_bytes(message.path.encode("latin-1")), "/")))
    for path in paths:
        for query, body in ways:
            yield "\n".join((method, path if path.endswith("/") else f"{path}/", query, headers, names, body))


def _value(given: Authorization, message: Message, name: str) -> str:
    value = message.header(name.lower()) or ""
    return value if given.dialect is Dialect.ACCESS else _BLANKS.sub(" ", value)


def _segments(path: str) -> str:
    return "/".join(_encoded(unquote_to_bytes(segment.encode("latin-1"))) for segment in path.split("/"))


def _encoded(raw: bytes, safe: str = "") -> str:
    return quote(raw, safe=f"{safe}~")


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    """Decoded, in the order in which they came."""
    split = [pair.partition("=") for pair in query.split("&") if pair]
    return [(_decoded(name), _decoded(value)) for name, _, value in split]


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1"))


def _all_pairs(query: str) -> str:
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(_pairs(query)))


def _first_pairs(query: str) -> str:
    """Only the first value of each name, in the order of the encoded names without regard to case."""
    first: dict[str, str] = {}
    for name, value in _pairs(query):
        first.setdefault(_encoded(name), _encoded(value))
    return "&".join(f"{name}={first[name]}" for name in sorted(first, key=lambda name: (name.lower(), name)))


def _as_form(query: str) -> bytes:
    """All pairs by name, as a form has them: space is `+`."""
    pairs = sorted(_pairs(query), key=lambda pair: pair[0])
    return "&".join(f"{quote_plus(name, safe='~')}={quote_plus(value, safe='~')}" for name, value in pairs).encode()
