"""The header Content-Digest of an upload (RFC 9530): what the bytes must be, as their sender knows them."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from calotype.errors import Invalid
from calotype.web.route import Parameter

CONTENT_DIGEST: Final = "content-digest"
MOST_CHARACTERS: Final = 1024
# As the header calls them -> as they are called here, and how many bytes they have.
ALGORITHMS: Final[Mapping[str, tuple[str, int]]] = {
    "sha-512": ("sha512", 64),
    "sha-256": ("sha256", 32),
    "md5": ("md5", 16),
}
_ENTRY: Final = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):", re.ASCII)
PARAMETER: Final = Parameter(
    name="Content-Digest",
    where="header",
    summary="an upload with other bytes is refused: sha-512, sha-256, md5",
)


def content_digest(header: str | None) -> dict[str, str]:
    """Algorithm -> hexadecimal digest. Algorithms that are not known are left out, as the RFC has it.

    Raises `Invalid` for a header that is none, or a digest of a wrong length.
    """
    if header is None:
        return {}
    found = {}
    for entry in header[:MOST_CHARACTERS].split(","):
        parts = _ENTRY.fullmatch(entry.strip(" \t"))
        if parts is None:
            raise Invalid("content-digest: wants ALGORITHM=:BASE64:, several of them with commas")
        if parts[1] not in ALGORITHMS:
            continue
        name, length = ALGORITHMS[parts[1]]
        try:
            value = base64.b64decode(parts[2], validate=True)
        except binascii.Error:
            value = b""
        if len(value) != length:
            raise Invalid(f"content-digest: a {parts[1]} has {length} bytes")
        found[name] = value.hex()
    return found
