"""https: the certificate is always looked at, and a cut never passes for the end."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from calotype.errors import FetchFailed, FetchRefused, SourceUnavailable
from calotype.settings import WrongSetting
from tests.contract.source import Answer, Asked, Names, Source, fetcher_for, head, redirect, whole

BODY = b"disk" * 1000
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of the tests")])
        certificate = (
            self._begun(self._name, self._key, until=NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, until: datetime.datetime = NOW + DAY) -> ssl.SSLContext:
        """What a source needs that has a certificate for `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        told = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        certificate = (
            self._begun(x509.Name([]), key, until=until)
            .add_extension(x509.SubjectAlternativeName(told), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, until: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 2 * DAY)
            .not_valid_after(until)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("name", ["127.0.0.1", "files.example"])
def test_a_certificate_of_an_own_authority_is_taken(authority: Authority, name: str) -> None:
    with Source(whole(BODY), tls=authority.server(name)) as source:
        fetcher = fetcher_for(
            names=Names(files_example=[["127.0.0.1"]]),
            allow=(source.place, f"files.example:{source.port}"),
            ca_file=str(authority.file),
        )
        with fetcher.open(source.url(host=name)) as answer:
            assert b"".join(answer.chunks()) == BODY


@pytest.mark.parametrize(
    ("name", "until", "trusted"),
    [
        ("127.0.0.1", NOW + DAY, False),
        ("127.0.0.2", NOW + DAY, True),
        ("other.example", NOW + DAY, True),
        ("127.0.0.1", NOW - DAY, True),
    ],
)
def test_a_certificate_that_does_not_hold_fails(
    authority: Authority, name: str, until: datetime.datetime, trusted: bool
) -> None:
    with Source(whole(BODY), tls=authority.server(name, until=until)) as source:
        fetcher = fetcher_for(source, ca_file=str(authority.file) if trusted else "")

        with pytest.raises(FetchFailed, match=r"certificate of 127\.0\.0\.1 is not valid"):
            fetcher.open(source.url())

    assert source.asked == []


def test_a_source_that_speaks_no_tls_fails() -> None:
    with (
        Source(lambda _: [b"220 welcome\r\n"], speaks_first=True) as source,
        pytest.raises(FetchFailed, match=r"127\.0\.0\.1 does not speak TLS"),
    ):
        fetcher_for(source).open(source.url().replace("http:", "https:"))


def test_a_redirect_from_https_to_http_is_refused(authority: Authority) -> None:
    with (
        Source(whole(BODY)) as plain,
        Source(redirect(plain.url()), tls=authority.server("127.0.0.1")) as source,
        pytest.raises(FetchRefused, match="redirects"),
    ):
        fetcher_for(plain, source, ca_file=str(authority.file)).open(source.url())

    assert plain.connections == 0


def test_a_redirect_from_http_to_https_is_followed_without_the_headers(authority: Authority) -> None:
    with (
        Source(whole(BODY), tls=authority.server("127.0.0.1")) as secure,
        Source(redirect(secure.url())) as source,
        fetcher_for(secure, source, ca_file=str(authority.file)).open(
            source.url(), headers={"X-Auth-Token": "secret"}
        ) as answer,
    ):
        assert b"".join(answer.chunks()) == BODY

    assert "secret" not in str(secure.asked)


def cut_after(data: bytes) -> Answer:
    """The connection ends without TLS's own word that it does."""

    def answer(_: Asked) -> Iterable[bytes]:
        yield data
        raise ConnectionAbortedError

    return answer


def test_a_body_without_a_length_that_is_cut_is_not_taken_for_whole(authority: Authority) -> None:
    with (
        Source(cut_after(head() + BODY), tls=authority.server("127.0.0.1")) as source,
        fetcher_for(source, ca_file=str(authority.file)).open(source.url()) as answer,
        pytest.raises(SourceUnavailable),
    ):
        list(answer.chunks())


def test_a_file_that_holds_no_certificates_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing of the kind")

    with pytest.raises(WrongSetting, match=r"fetch\.ca_file"):
        fetcher_for(ca_file=str(tmp_path / "ca.pem"))
