"""From where bytes may be fetched, name by name and address by address."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.fetch.rules import Rules, is_public
from calotype.fetch.url import Url
from calotype.settings import FetchSettings, WrongSetting, load

PUBLIC = ["93.184.215.14", "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "64:ff9b::1.1.1.1"]
NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fd00::1", "fc00::1"],
    "link-local": ["169.254.0.1", "fe80::1"],
    "cloud metadata": ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"],
    "shared by carriers": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - refused, not bound
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "fec0::1", "100::1", "5f00::1"],
    "of documents": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "of benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "IPv4 in IPv6": ["::127.0.0.1", "::ffff:0:127.0.0.1", "::1.1.1.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:101:101::1", "192.88.99.1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1.1.1.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ISATAP": ["2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "fe80::5efe:1.1.1.1"],
}


def rules(*, trusted: frozenset[str] = frozenset(), **settings: object) -> Rules:
    return Rules(FetchSettings(**settings), trusted)  # type: ignore[arg-type]  # each test gives what the fields want


def admits(made: Rules, url: str, address: str | None = None) -> bool:
    """Whether name and address both pass."""
    read = Url.parse(url)
    return made.admit_name(read) and (address is None or made.admit_address(read, ip_address(address)))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fetched_from(address: str) -> None:
    assert admits(rules(), "http://a.example/", address)


@pytest.mark.parametrize("address", [address for kind in NOT_PUBLIC.values() for address in kind])
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not admits(rules(), "http://a.example/", address)
    assert not admits(rules(), f"http://[{address}]/" if ":" in address else f"http://{address}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://router.home.arpa/",
        "http://intranet/",
        "http://a.example:22/",
        "http://a.example:8080/",
    ],
)
def test_a_name_or_port_that_is_not_the_internets_is_refused_before_any_look_up(url: str) -> None:
    assert not admits(rules(), url)


@pytest.mark.parametrize(
    ("entry", "url", "address"),
    [
        ("files", "http://files/", "10.0.0.1"),
        ("files.example", "https://FILES.example./", "10.0.0.1"),
        ("files.example", "http://files.example/", "127.0.0.1"),
        ("files.example", "http://files.example/", "fd00::1"),
        ("files.example", "http://files.example/", "100.64.0.1"),
        ("files.example", "http://files.example/", "1.1.1.1"),
        ("files.example:8080", "http://files.example:8080/", "10.0.0.1"),
        ("*.files.example", "http://a.b.files.example/", "10.0.0.1"),
        ("*.files.example:81", "http://a.files.example:81/", "10.0.0.1"),
        ("bücher.example", "http://xn--bcher-kva.example/", "10.0.0.1"),
        ("127.0.0.1", "http://127.0.0.1/", "127.0.0.1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/", "127.0.0.1"),
        ("127.0.0.1:8080", "http://[::ffff:127.0.0.1]:8080/", "127.0.0.1"),
        ("::1", "http://[::1]/", "::1"),
        ("[::1]", "http://[::1]/", "::1"),
        ("[::1]:8080", "http://[::1]:8080/", "::1"),
        ("fd00::/8", "http://[fd00::1]/", "fd00::1"),
        ("169.254.169.254", "http://169.254.169.254/", "169.254.169.254"),
    ],
)
@pytest.mark.parametrize("public", [True, False])
def test_what_is_allowed_is_fetched_from(entry: str, url: str, address: str, public: bool) -> None:
    assert admits(rules(allow=(entry,), public=public), url, address)


@pytest.mark.parametrize(
    ("entry", "url", "address"),
    [
        ("10.0.0.0/8", "http://a.example/", "10.0.0.1"),
        ("10.0.0.0/8:8080", "http://a.example:8080/", "10.0.0.1"),
        ("fd00::/8", "http://a.example/", "fd00::1"),
        ("169.254.169.254", "http://a.example/", "169.254.169.254"),
    ],
)
def test_a_name_of_the_internet_may_lead_into_a_network_that_is_allowed(entry: str, url: str, address: str) -> None:
    assert admits(rules(allow=(entry,)), url, address)
    assert not admits(rules(), url, address)


@pytest.mark.parametrize(
    ("entry", "url", "address"),
    [
        ("files.example", "http://other.example/", "10.0.0.1"),
        ("files.example", "http://a.files.example/", "10.0.0.1"),
        ("files.example", "http://files.example.evil.example/", "10.0.0.1"),
        ("files.example", "http://xfiles.example/", "10.0.0.1"),
        ("files.example", "http://files.example:8080/", "10.0.0.1"),
        ("files.example:8080", "http://files.example/", "10.0.0.1"),
        ("files.example:8080", "http://files.example:8081/", "10.0.0.1"),
        ("*.files.example", "http://files.example/", "10.0.0.1"),
        ("*.files.example", "http://xfiles.example/", "10.0.0.1"),
        ("10.0.0.0/8", "http://a.example/", "172.16.0.1"),
        ("10.0.0.0/8", "http://a.example:8080/", "10.0.0.1"),
        ("10.0.0.0/8:8080", "http://a.example:8080/", "1.1.1.1"),
        ("127.0.0.1:8080", "http://127.0.0.1/", "127.0.0.1"),
        ("127.0.0.1:8080", "http://127.0.0.2:8080/", "127.0.0.2"),
        ("files.example", "http://files.example/", "169.254.169.254"),
        ("files.example", "http://files.example/", "100.100.100.200"),
        ("files.example", "http://files.example/", "fd00:ec2::254"),
        ("files.example", "http://files.example/", "0.0.0.0"),  # noqa: S104 - refused, not bound
        ("files.example", "http://files.example/", "::"),
        ("files.example", "http://files.example/", "224.0.0.1"),
        ("files.example", "http://files.example/", "fe80::1"),
        ("files.example", "http://files.example/", "::127.0.0.1"),
        ("files.example", "http://files.example/", "64:ff9b::169.254.169.254"),
        ("files.example", "http://files.example/", "2002:a9fe:a9fe::"),
    ],
)
def test_an_entry_allows_no_more_than_it_says(entry: str, url: str, address: str) -> None:
    assert not admits(rules(allow=(entry,)), url, address)


@pytest.mark.parametrize(
    ("entry", "url", "address"),
    [
        ("a.example", "http://a.example/", "1.1.1.1"),
        ("a.example", "http://a.example:443/", "1.1.1.1"),
        ("a.example:80", "http://a.example/", "1.1.1.1"),
        ("*.example", "http://a.example/", "1.1.1.1"),
        ("1.0.0.0/8", "http://a.example/", "1.1.1.1"),
        ("1.1.1.1:80", "http://a.example/", "1.1.1.1"),
        ("1.1.1.1", "http://1.1.1.1/", "1.1.1.1"),
        ("1.1.1.1", "http://a.example/", "64:ff9b::1.1.1.1"),
    ],
)
def test_what_is_denied_is_refused_also_where_it_is_allowed(entry: str, url: str, address: str) -> None:
    allow = ("a.example", "a.example:443", "1.1.1.1")

    assert admits(rules(allow=allow), url, address)
    assert not admits(rules(allow=allow, deny=(entry,)), url, address)


def test_without_the_public_internet_only_names_that_are_allowed_are_looked_up() -> None:
    made = rules(public=False, allow=("files.example", "10.0.0.0/8"))

    assert not admits(made, "http://a.example/")
    assert not admits(made, "http://1.1.1.1/")
    assert admits(made, "http://files.example/", "10.0.0.1")
    assert admits(made, "http://10.0.0.1/")


def test_the_operators_own_endpoint_is_fetched_from_whatever_is_denied() -> None:
    made = rules(public=False, deny=("10.0.0.0/8", "images.example"), trusted=frozenset({"images.example:9292"}))

    assert admits(made, "http://images.example:9292/", "10.0.0.1")
    assert not admits(made, "http://images.example:9293/", "10.0.0.1")
    assert not admits(made, "http://images.example:9292/", "169.254.169.254")
    assert not admits(made, "http://other.example:9292/", "10.0.0.1")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "a b",
        "a.example:",
        "a.example:0",
        "a.example:http",
        "http://a.example",
        "10.0.0.0/33",
        "10.0.0.256",
        "127.1",
        "[::1",
        "[::1]x",
        "::1:x",
        "a@b",
        "a.example/x",
        "²",
        "a.example:\uff18\uff10",
    ],
)
@pytest.mark.parametrize("setting", ["allow", "deny"])
def test_an_entry_that_is_none_stops_the_start_with_its_name(setting: str, entry: str) -> None:
    values: dict[str, Any] = {setting: (entry,)}

    with pytest.raises(WrongSetting, match=f"fetch.{setting}"):
        rules(**values)


def test_lists_are_written_with_commas_in_the_environment() -> None:
    environment = {"CALOTYPE_FETCH_ALLOW": "127.0.0.1:8080, *.files.example", "CALOTYPE_FETCH_PORTS": "80,8080"}

    settings = load(environment).fetch

    assert (settings.allow, settings.ports) == (("127.0.0.1:8080", "*.files.example"), (80, 8080))


@given(st.ip_addresses(v=4))
def test_what_the_standard_library_takes_for_private_is_never_public(address: IPv4Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast and not address.is_reserved)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_behind_nat64(address: IPv4Address) -> None:
    assert is_public(IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))) is is_public(address)
