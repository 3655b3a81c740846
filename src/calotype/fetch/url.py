"""The one reading of a URL from outside. What two parsers could read differently is refused, not guessed."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self
from urllib.parse import quote

from msgspec import Struct

from calotype.errors import FetchRefused

MOST_CHARACTERS: Final = 2048
MOST_HOST_CHARACTERS: Final = 253
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FORM: Final = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,  # without ASCII, the long s would be an s
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[^:]*))?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_SHOWABLE: Final = re.compile(r"[\w.:\[\]-]{1,253}")
# What stays as it is in a path or query. A percent sign too: what is encoded already is not encoded again.
_AS_WRITTEN: Final = "%/?:@!$&'()*+,;=~-._[]"


class Url(Struct, frozen=True, kw_only=True):
    """A URL that was read strictly. Its parts are all that is ever used of it."""

    scheme: str  # http or https
    host: str  # a lower-case ASCII name without a dot at its end, or `str(address)`
    address: Address | None  # where the host is an address
    port: int
    target: str  # path and query as the request line has them
    written_host: str  # as the user wrote it, for messages

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `FetchRefused`. The fragment is dropped."""
        if len(text) > MOST_CHARACTERS:
            raise FetchRefused(f"it is longer than {MOST_CHARACTERS} characters")
        if _FORBIDDEN.search(text):
            raise FetchRefused("it has a space, a control character or a backslash")
        found = _FORM.fullmatch(text)
        if found is None:
            raise FetchRefused("it does not begin with http:// or https://")
        scheme, authority = found["scheme"].lower(), found["authority"]
        if "@" in authority:
            raise FetchRefused("it has a user name or a password before its host")
        # An @ further on may belong to a password that was not encoded: then nothing of the URL is told.
        shown = authority if "@" not in text and _SHOWABLE.fullmatch(authority) else ""
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None or not parts["host"]:
            raise FetchRefused("it has no host that can be read", host=shown)
        host, address = _host(parts["host"], shown)
        return cls(
            scheme=scheme,
            host=host,
            address=address,
            port=DEFAULT_PORTS[scheme] if parts["port"] is None else read_port(parts["port"], shown),
            target=quote((found["path"] or "/") + (found["query"] or ""), safe=_AS_WRITTEN),
            written_host=parts["host"],
        )

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are bound to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """As the `Host` header has it."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def joined(self, location: str) -> "Url":
        """Where the `Location` header of an answer from here leads. Raises `FetchRefused`."""
        base = f"{self.scheme}://{self.authority}"
        path = self.target.partition("?")[0]
        if _SCHEME.match(location):
            return Url.parse(location)
        if location.startswith("//"):
            return Url.parse(f"{self.scheme}:{location}")
        if location.startswith("/"):
            return Url.parse(base + location)
        if location.startswith(("?", "#")) or not location:
            return Url.parse(base + path + location)
        return Url.parse(base + path.rpartition("/")[0] + "/" + location)


def read_host(text: str) -> tuple[str, Address | None]:
    """The normal form of a name or an address (IPv6 in brackets), and the address. Raises `FetchRefused`."""
    return _host(text, "")


def _host(text: str, shown: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        return _address(text[1:-1], IPv6Address, shown)
    name = (text if text.isascii() else _ascii(text)).lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MOST_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise FetchRefused("its host is no name that can be looked up", host=shown)
    if _NUMBER.fullmatch(labels[-1]):  # no top-level domain is a number: it is an address, and only one form is taken
        return _address(name, IPv4Address, shown)
    return name, None


def _address(text: str, kind: type[IPv4Address] | type[IPv6Address], shown: str) -> tuple[str, Address]:
    try:
        address: Address = kind(text.replace("%", "?"))  # a zone is a matter of this host, and refused
    except ValueError:
        raise FetchRefused("its host is no address in the usual form", host=shown) from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # the same place, judged and connected to as what it is
    return str(address), address


def _ascii(name: str) -> str:
    import idna  # its tables take a while to load, and most hosts need none

    try:
        if len(name) > MOST_HOST_CHARACTERS:
            raise idna.IDNAError("too long")
        return idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:
        raise FetchRefused("its host is no international name that can be looked up") from None


def read_port(text: str, shown: str = "") -> int:
    """Raises `FetchRefused`."""
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise FetchRefused("its port is no number from 1 to 65535", host=shown)
    return int(text)


def unmapped(address: str) -> Address:
    """A resolved address; an IPv4 one in IPv6 form is given back as IPv4."""
    read = ip_address(address.partition("%")[0])
    mapped = read.ipv4_mapped if isinstance(read, IPv6Address) else None
    return mapped or read
