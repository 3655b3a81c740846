"""One reading of a URL: what could be read in two ways is refused."""

from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import FetchRefused
from calotype.fetch.url import MOST_CHARACTERS, Url

PIECES = st.sampled_from(
    [
        "http",
        "HTTPS",
        "\u017f",
        ":",
        "//",
        "/",
        "\\",
        "@",
        "a.example",
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[",
        "]",
        "%",
        "%2f",
        "%25eth0",
        "?",
        "#",
        ".",
        "..",
        ":80",
        ":99999",
        ":",
        "\t",
        "\r\n",
        "\0",
        " ",
        "1",
        "xn--",
        "①",
        "。",
        "ü.example",
        "ß",
        "\u202e",
        "\ud800",
        "user:secret",
        "2130706433",
        "q=1&r=2",
        "-",
        "_",
    ]
)


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://127.0.0.0x1/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.0.0.1.5/",
        "http://127.0.0.256/",
        "http://1/",
        "http://0/",
        "http://0x/",
        "http://a.example.1/",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[127.0.0.1]/",
        "http://[::1/",
        "http://::1/",
        "http://[]/",
        "http://user@a.example/",
        "http://user:secret@a.example/",
        "http://a.example@127.0.0.1/",
        "http://127.0.0.1:80@a.example/",
        "http://@a.example/",
        "http://a.example\\@127.0.0.1/",
        "http:\\\\a.example/",
        "http://a.example\t/",
        "ht\ttp://a.example/",
        "http://a.example/\r\nX-Header: 1",
        "http://a.example/\n",
        "http://a.example/\0",
        "http://a.example/a b",
        " http://a.example/",
        "http://a.example/ ",
        "http://a.example\x7f/",
        "http://a.example\x85/",
        "http://\ud800.example/",
        "http:///path",
        "http://",
        "http:a.example",
        "http:/a.example",
        "//a.example/",
        "a.example",
        "",
        "file:///etc/passwd",
        "gopher://a.example/",
        "ftp://a.example/",
        "http\u017f://a.example/",
        "javascript:alert(1)",
        "http+unix://a.example/",
        "http://a.example:/",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example:-1/",
        "http://a.example:+80/",
        "http://a.example:8 0/",
        "http://a.example:٨٠/",
        "http://a.example:80:80/",
        "http://a.example:http/",
        "http://a..example/",
        "http://.a.example/",
        "http://a.example../",
        "http://./",
        "http://-a.example/",
        "http://a%2eexample/",
        "http://%31%32%37.0.0.1/",
        "http://a,example/",
        "http://a!example/",
        "http://a.example%00.b.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
        "http://a.example/" + "a" * MOST_CHARACTERS,
        "http://a\u202e.example/",
        "http://xn--\u00fc.example/",
        "http://①②⑦.1/",
        "http://\uff11\uff12\uff17。\uff11/",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(FetchRefused, match="does not pass filtering"):
        Url.parse(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("http://a.example", "a.example", 80, "/"),
        ("HTTPS://A.Example/", "a.example", 443, "/"),
        ("http://a.example:8080/x?y=z", "a.example", 8080, "/x?y=z"),
        ("http://a.example./x", "a.example", 80, "/x"),
        ("http://a_b.example?q", "a_b.example", 80, "/?q"),
        ("http://a.example/x#fragment", "a.example", 80, "/x"),
        ("http://127.0.0.1./", "127.0.0.1", 80, "/"),
        ("http://①②⑦.0.0.1/", "127.0.0.1", 80, "/"),
        ("http://\uff11\uff12\uff17。\uff10。\uff10。\uff11/", "127.0.0.1", 80, "/"),
        ("http://[::1]:81/", "::1", 81, "/"),
        ("http://[0:0::0001]/", "::1", 80, "/"),
        ("http://[::ffff:127.0.0.1]/", "127.0.0.1", 80, "/"),
        ("http://[::ffff:7f00:1]/", "127.0.0.1", 80, "/"),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "/"),
        ("http://straße.example/", "xn--strae-oqa.example", 80, "/"),
        ("http://a.example/ü", "a.example", 80, "/%C3%BC"),
        ("http://a.example/%C3%BC%2f?a=%26", "a.example", 80, "/%C3%BC%2f?a=%26"),
        ('http://a.example/"<>|^`{}', "a.example", 80, "/%22%3C%3E%7C%5E%60%7B%7D"),
        ("http://a.example/u@b:c;d,e", "a.example", 80, "/u@b:c;d,e"),
    ],
)
def test_a_plain_url_is_brought_into_its_normal_form(url: str, host: str, port: int, target: str) -> None:
    read = Url.parse(url)

    assert (read.host, read.port, read.target) == (host, port, target)


def test_the_host_is_told_as_it_was_written() -> None:
    assert Url.parse("http://Bücher.Example:81/").written_host == "Bücher.Example"


def test_a_refusal_tells_the_host_and_nothing_else_of_the_url() -> None:
    with pytest.raises(FetchRefused) as refused:
        Url.parse("http://2130706433/secret?token=secret")

    assert "2130706433" in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@a.example/",
        "http://user:secret/@a.example/",
        "http://user:secret?@a.example/",
        "http://user:secret#@a.example/",
        "http://secret:user/x@a.example/",
        "secret://user:secret@a.example/",
        "http://127.1/?token=secret",
    ],
)
def test_a_refusal_tells_no_secret(url: str) -> None:
    with pytest.raises(FetchRefused) as refused:
        Url.parse(url)

    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://b.example/y", ("https", "b.example", 443, "/y")),
        ("//b.example/y", ("http", "b.example", 80, "/y")),
        ("/y?z", ("http", "a.example", 81, "/y?z")),
        ("y", ("http", "a.example", 81, "/d/y")),
        ("?z", ("http", "a.example", 81, "/d/x?z")),
        ("", ("http", "a.example", 81, "/d/x")),
        ("#part", ("http", "a.example", 81, "/d/x")),
        ("./y:z", ("http", "a.example", 81, "/d/./y:z")),
    ],
)
def test_a_location_is_read_from_where_it_was_sent(location: str, leads_to: tuple[str, str, int, str]) -> None:
    target = Url.parse("http://a.example:81/d/x?q").joined(location)

    assert (target.scheme, target.host, target.port, target.target) == leads_to


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://b.example/", "\\\\b.example/", "//u@b.example/"])
def test_a_location_is_read_as_strictly_as_a_url(location: str) -> None:
    with pytest.raises(FetchRefused):
        Url.parse("http://a.example/").joined(location)


@given(
    st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(lambda parts: "http://" + "".join(parts)))
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(FetchRefused):
        read = Url.parse(text)

        assert read.scheme in {"http", "https"}
        assert read.host
        assert f"{read.host}{read.target}".isascii()
        assert 1 <= read.port <= 65535


@given(st.lists(PIECES).map(lambda parts: "http://" + "".join(parts)))
def test_what_was_read_reads_the_same_again(text: str) -> None:
    with suppress(FetchRefused):
        read = Url.parse(text)

        again = Url.parse(f"{read.scheme}://{read.authority}{read.target}")

        assert again.origin == read.origin
        assert again.target == read.target


@given(st.lists(PIECES).map(lambda parts: "http://" + "".join(parts)))
def test_another_parser_sees_the_same_host_in_what_was_read(text: str) -> None:
    with suppress(FetchRefused):
        read = Url.parse(text)

        seen = urlsplit(f"{read.scheme}://{read.authority}{read.target}")

        assert seen.hostname == read.host
        assert (seen.port or 80) == read.port
        assert seen.username is None
