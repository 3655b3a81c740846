"""Signing requests for S3: AWS Signature Version 4, with the digest of the payload signed as well. Pure.

Source: AWS, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)". The secret key goes
into nothing but the keyed hashes.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from msgspec import Struct

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNRESERVED: Final = "-_.~"  # besides letters and digits; what is not percent-encoded
NOTHING: Final = hashlib.sha256(b"").hexdigest()


class Keys(Struct, frozen=True, kw_only=True):
    """What requests are signed with."""

    access_key: str
    secret_key: str
    session_token: str = ""  # of temporary keys

    def __repr__(self) -> str:
        return "Keys(...)"


def encoded_path(path: str) -> str:
    """As it is sent and signed: encoded once, slashes stay."""
    return quote(path, safe=f"/{UNRESERVED}")


def encoded_query(query: Mapping[str, str]) -> str:
    """As it is sent and signed, sorted."""
    pairs = sorted((quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED)) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    payload_sha256: str,
    keys: Keys,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """`headers`, `Host` among them, and those that authenticate the request; names in lower case. `path` and `query`
    are encoded already; `now` is UTC."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    sent = {name.lower(): value.strip() for name, value in headers.items()}
    sent |= {"x-amz-content-sha256": payload_sha256, "x-amz-date": stamp}
    if keys.session_token:
        sent["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_sha256}"
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = _mac(key, part)
    credential = f"Credential={keys.access_key}/{scope}"
    return {
        **sent,
        "authorization": f"{ALGORITHM} {credential},SignedHeaders={names},Signature={_mac(key, to_sign).hex()}",
    }


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
