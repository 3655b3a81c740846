"""From where bytes may be fetched: by name before anything is looked up, by address before anything is connected to."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self

from msgspec import Struct

from calotype.errors import FetchRefused
from calotype.fetch.url import Address, Url, read_host, read_port
from calotype.settings import FetchSettings, WrongSetting

Network = IPv4Network | IPv6Network

# Not public, besides what `is_global` says: it has changed between releases of Python, and knows no cloud.
# IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6890 and its updates.
NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "168.63.129.16/32",  # Azure's metadata, in the midst of public addresses
            "2001::/23",  # protocols, among them Teredo
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address of whatever kind
            "3fff::/20",
        ),
    )
)
PUBLIC_V6: Final = IPv6Network("2000::/3")  # all that has ever been given out
NAT64: Final = IPv6Network("64:ff9b::/96")  # public IPv4 addresses as networks with IPv6 only see them
ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
# What even a name of `allow` may not resolve to; an address or network of `allow` has to say it.
NEVER_BY_NAME: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.100.100.200/32",  # metadata of Alibaba Cloud
            "168.63.129.16/32",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/128",
            "fd00:ec2::254/128",  # metadata of Amazon's and Google's clouds
            "fd20:ce::254/128",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)
# Names that are no one's on the internet (RFC 6761, 6762, 8375, ICANN's `internal`): nothing is asked about them.
SPECIAL_NAMES: Final = ("localhost", "local", "internal", "home.arpa", "onion", "invalid", "alt")


class Entry(Struct, frozen=True, kw_only=True):
    """One word of `fetch.allow` or `fetch.deny`: a name or a network, with a port or without."""

    name: str = ""
    below: bool = False  # *.name: every name that ends in it, not itself
    network: Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str, setting: str) -> Self:
        """Raises `WrongSetting`."""
        host, port = _split(text)
        try:
            number = None if port is None else read_port(port)
            network = _network(host)
            if network is not None:
                return cls(network=network, port=number)
            below = host.startswith("*.")
            name, _ = read_host(host.removeprefix("*."))
        except (ValueError, FetchRefused):
            wanted = "host, host:port, *.host, an address or a network such as 10.0.0.0/8"
            raise WrongSetting(f"{setting}: {text!r} is none of {wanted}") from None
        return cls(name=name, below=below, port=number)

    def names(self, host: str) -> bool:
        return bool(self.name) and (host.endswith(f".{self.name}") if self.below else host == self.name)

    def holds(self, address: Address) -> bool:
        return self.network is not None and address.version == self.network.version and address in self.network


class Rules:
    """`trusted` are the operator's own endpoints, "host:port": what `fetch.deny` says does not bar them."""

    def __init__(self, settings: FetchSettings, trusted: frozenset[str]) -> None:
        self.public = settings.public
        self.ports = frozenset(settings.ports)
        self.allow = [Entry.parse(text, "fetch.allow") for text in settings.allow]
        self.deny = [Entry.parse(text, "fetch.deny") for text in settings.deny]
        self.trusted = [Entry.parse(text, "a trusted endpoint") for text in trusted]

    def admit_name(self, url: Url) -> bool:
        """Whether the host may be looked up; of an address, whether it may be connected to."""
        if url.address is not None:
            return self.admit_address(url, url.address)
        if any(entry.names(url.host) and self._on_port(entry, url.port) for entry in self.trusted):
            return True
        if any(entry.names(url.host) and entry.port in {None, url.port} for entry in self.deny):
            return False
        if self._allowed_by_name(url):
            return True
        if not self.public or "." not in url.host:
            return False
        if any(url.host == name or url.host.endswith(f".{name}") for name in SPECIAL_NAMES):
            return False
        return url.port in self.ports or any(entry.network and entry.port == url.port for entry in self.allow)

    def admit_address(self, url: Url, address: Address) -> bool:
        """Whether `address`, which the host of `url` is or was resolved to, may be connected to."""
        for entry in self.trusted:
            if self._on_port(entry, url.port) and (entry.holds(address) or entry.names(url.host)):
                return entry.holds(address) or _nameable(address)
        meant = {address, _behind_nat64(address)}
        if any(entry.holds(one) and entry.port in {None, url.port} for entry in self.deny for one in meant):
            return False
        if any(entry.holds(address) and self._on_port(entry, url.port) for entry in self.allow):
            return True
        if self._allowed_by_name(url):
            return _nameable(address)
        return self.public and url.port in self.ports and is_public(address)

    def _allowed_by_name(self, url: Url) -> bool:
        return any(entry.names(url.host) and self._on_port(entry, url.port) for entry in self.allow)

    def _on_port(self, entry: Entry, port: int) -> bool:
        return port == entry.port if entry.port is not None else port in self.ports


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's. IPv4 addresses inside IPv6 ones are judged too."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(_behind_nat64(address))
        if address not in PUBLIC_V6:
            return False
        if (int(address) >> 32) & 0xFFFFFFFF in ISATAP and not is_public(IPv4Address(int(address) & 0xFFFFFFFF)):
            return False
    return address.is_global and not _within(address, NOT_PUBLIC)


def _behind_nat64(address: Address) -> Address:
    if isinstance(address, IPv6Address) and address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _nameable(address: Address) -> bool:
    if isinstance(address, IPv6Address) and not is_public(address):
        # A private or loopback address is what names are allowed for; one that hides an IPv4 address is not.
        return (address.is_loopback or address in IPv6Network("fc00::/7")) and not _within(address, NEVER_BY_NAME)
    return not _within(address, NEVER_BY_NAME)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _split(text: str) -> tuple[str, str | None]:
    """Host and port; an IPv6 address with a port is in brackets."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text)
    if bracketed is not None:
        return bracketed[1], bracketed[2]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _network(host: str) -> Network | None:
    if not (host[:1].isdigit() or ":" in host):
        return None
    try:
        return ip_network(host, strict="/" not in host)
    except ValueError:
        if "/" in host or ":" in host:
            raise
        return None  # a name that begins with a digit
