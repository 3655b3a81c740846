"""Signatures: the published vectors of both dialects, what a real client signs, and that nothing signed can change."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from calotype.errors import SignatureRefused
from calotype.identity import signatures
from calotype.identity.signatures import EMPTY, UNSIGNED, Authorization, Dialect, Message

DATA: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("signature_vectors.json").read_text())
VECTORS: Final[list[dict[str, Any]]] = DATA["vectors"]
SECRET: Final[str] = DATA["secret_key"]
NOW: Final = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * 1000)
NAMES: Final = [vector["name"] for vector in VECTORS]


def message_of(vector: dict[str, Any]) -> Message:
    path, _, query = vector["uri"].partition("?")
    headers = {**vector["headers"], **vector.get("unsigned_headers_added_later", {})}
    return Message(
        method=vector["method"],
        path=path,
        query=query,
        headers=[(name.lower(), value) for name, value in headers.items()],
    )


def hash_of(vector: dict[str, Any]) -> str:
    told: str | None = vector["headers"].get("X-Sdk-Content-Sha256")
    return told or hashlib.sha256(vector["body"].encode()).hexdigest()


def is_right(message: Message, hashed: str, secret: str = SECRET) -> bool:
    """False also where the signature could not be looked at."""
    try:
        found = signatures.authorization(message, NOW)
    except SignatureRefused:
        return False
    return signatures.is_right(secret, found, message, hashed)


def with_header(message: Message, name: str, value: str | None) -> Message:
    rest = [(known, old) for known, old in message.headers if known != name]
    return structs.replace(message, headers=rest if value is None else [*rest, (name, value)])


def signed(message: Message, body: bytes = b"", **changed: Any) -> Message:
    """As a client of the dialect A signs: every header it has."""
    headers = [("host", "ims.test"), ("x-sdk-date", "20260102T030405Z"), *message.headers]
    names = ";".join(sorted(name for name, _ in headers))
    unsigned = structs.replace(message, headers=headers)
    given_ = Authorization(
        dialect=Dialect.ACCESS,
        access="AK",
        scope="",
        signed=tuple(names.split(";")),
        signature="",
        date="20260102T030405Z",
    )
    text = next(signatures.canonical_requests(given_, unsigned, hashlib.sha256(body).hexdigest()))
    made = hmac.new(SECRET.encode(), signatures.string_to_sign(given_, text).encode(), hashlib.sha256).hexdigest()
    parts: dict[str, str] = {"access": "AK", "names": names, "signature": made} | changed
    text = f"SDK-HMAC-SHA256 Access={parts['access']}, SignedHeaders={parts['names']}, Signature={parts['signature']}"
    return structs.replace(unsigned, headers=[*headers, ("authorization", text)])


# --- the vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_vector_is_written_down_as_published_and_its_signature_is_right(vector: dict[str, Any]) -> None:
    message = message_of(vector)

    found = signatures.authorization(message, NOW)
    text = next(signatures.canonical_requests(found, message, hash_of(vector)))

    assert text == vector["canonical"]
    assert signatures.string_to_sign(found, text) == vector["string_to_sign"]
    assert found.access == DATA["access_key"]
    assert signatures.is_right(SECRET, found, message, hash_of(vector))


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_what_stands_for_the_body_is_known_before_it_or_is_its_hash(vector: dict[str, Any]) -> None:
    message = message_of(vector)
    found = signatures.authorization(message, NOW)

    known = signatures.hashes_before_body(found, message, empty=vector["body"] == "")

    assert known == ((hash_of(vector),) if vector["body"] == "" or hash_of(vector) == UNSIGNED else ())


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_another_secret_signs_nothing(vector: dict[str, Any]) -> None:
    assert not is_right(message_of(vector), hash_of(vector), SECRET + "x")


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_no_part_of_a_signed_request_can_be_changed(vector: dict[str, Any]) -> None:
    message, hashed = message_of(vector), hash_of(vector)
    text = dict(message.headers)["authorization"]
    scope = "20260102///sdk_request"
    changed = [
        structs.replace(message, method="DELETE"),
        structs.replace(message, path=message.path + "x"),
        structs.replace(message, path="/" + message.path),
        structs.replace(message, query=message.query + "&limit=3" if message.query else "limit=3"),
        structs.replace(message, query=message.query.replace("2", "1")) if message.query else None,
        *(
            with_header(message, name, dict(message.headers)[name] + "x")
            for name in signatures.authorization(message, NOW).signed
        ),
        with_header(message, "authorization", text[:-1] + ("0" if text[-1] != "0" else "1")),
        with_header(message, "authorization", text.replace("host;", "")),
        with_header(message, "authorization", text.replace(scope, scope.replace("//", "/eu/")))
        if scope in text
        else None,
    ]
    if vector["variant"] == "B" and "?" in vector["uri"]:
        changed[3] = structs.replace(message, query=message.query + "&marker=3")

    assert is_right(message, hashed)
    assert [one for one in changed if one is not None and is_right(one, hashed)] == []
    assert not is_right(message, hashlib.sha256(b"another body").hexdigest())


@given(st.sampled_from(VECTORS), st.integers(0, 400), st.characters(max_codepoint=255))
def test_no_character_of_an_authorization_can_be_another(vector: dict[str, Any], at: int, character: str) -> None:
    message = message_of(vector)
    text = dict(message.headers)["authorization"]
    changed = text[: at % len(text)] + character + text[at % len(text) + 1 :]
    of_another_key = DATA["access_key"] not in changed  # whose it is is looked up, not signed

    right = is_right(with_header(message, "authorization", changed), hash_of(vector))

    assert not right or changed.strip() == text or of_another_key or changed.split() == text.split()


# --- how requests are written down ------------------------------------------------------------------------------------

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_a_query_and_the_way_it_is_encoded_do_not_matter(pairs: list[tuple[str, str]], order: Any) -> None:
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    message = signed(Message(method="GET", path="/v2/cloudimages", query=query, headers=[]))
    mixed = order.sample(pairs, len(pairs))
    other = "&".join(f"{quote(name, safe='/:')}={quote(value, safe=' ').replace(' ', '+')}" for name, value in mixed)

    assert is_right(message, EMPTY)
    assert is_right(structs.replace(message, query=other), EMPTY)


@given(st.lists(TEXT, min_size=1, max_size=4), st.binary(max_size=20))
def test_any_path_and_any_body_can_be_signed(parts: list[str], body: bytes) -> None:
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    message = signed(Message(method="put", path=path, query="", headers=[]), body)

    assert is_right(message, hashlib.sha256(body).hexdigest())
    assert is_right(structs.replace(message, method="PUT"), hashlib.sha256(body).hexdigest())
    assert not is_right(message, hashlib.sha256(body + b"x").hexdigest())


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_request_is_looked_at_or_refused(text: str, value: str) -> None:
    headers = [("authorization", text), ("host", value), ("x-sdk-date", value), ("x-sdk-content-sha256", value)]
    message = Message(method="GET", path=text, query=value, headers=headers)

    assert not is_right(message, EMPTY)


def test_in_dialect_b_a_run_of_blanks_in_a_header_is_one() -> None:
    vector = VECTORS[NAMES.index("B1 job query")]
    message = with_header(message_of(vector), "accept", "application/json ")
    spaced = with_header(message, "user-agent", "golangsdk/2.0.0 \t x")
    found = signatures.authorization(spaced, NOW)

    assert is_right(message, EMPTY)
    assert "user-agent:golangsdk/2.0.0 x\n" in next(signatures.canonical_requests(found, spaced, EMPTY))


def go_signed(method: str, path: str, query: str, signed_query: str, body_hash: str) -> Message:
    """As a Go client signs, where the query that is sent is not the one in what it signs."""
    date, scope = "20260102T030405Z", "20260102///sdk_request"
    headers = "host:ims.test\nx-sdk-date:20260102T030405Z\n"
    text = f"{method}\n{path}/\n{signed_query}\n{headers}\nhost;x-sdk-date\n{body_hash}"
    key = f"SDK{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    to_sign = f"SDK-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(text.encode()).hexdigest()}"
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    told = f"SDK-HMAC-SHA256 Credential=AK/{scope}, SignedHeaders=host;x-sdk-date, Signature={signature}"
    return Message(
        method=method,
        path=path,
        query=query,
        headers=[("host", "ims.test"), ("x-sdk-date", date), ("authorization", told)],
    )


def test_in_dialect_b_a_post_without_a_body_signs_its_query_in_place_of_it() -> None:
    query = "b=x%20y&a=~1&a=2"
    as_form = hashlib.sha256(b"a=~1&a=2&b=x+y").hexdigest()
    message = go_signed("POST", "/v1/x", query, "", as_form)

    assert is_right(message, EMPTY)
    assert not is_right(structs.replace(message, query="b=x%20y&a=~1&a=3"), EMPTY)


def test_in_dialect_b_an_empty_body_of_a_post_may_be_signed_as_any_other() -> None:
    message = go_signed("POST", "/v1/x", "a=1", "a=1", EMPTY)

    assert is_right(message, EMPTY)
    assert not is_right(structs.replace(message, query="a=2"), EMPTY)


def test_in_dialect_b_names_are_in_order_without_regard_to_case_and_a_name_counts_once() -> None:
    message = go_signed("GET", "/v1/x", "Zone=1&limit=2&limit=3&a_b=4", "a_b=4&limit=2&Zone=1", EMPTY)

    assert is_right(message, EMPTY)
    assert not is_right(structs.replace(message, query="Zone=1&limit=3&limit=2&a_b=4"), EMPTY)


@pytest.mark.parametrize("in_what_is_signed", ["/v2/images/a/tags/x%2Fy/", "/v2/images/a/tags/x/y/"])
def test_an_encoded_slash_may_be_signed_encoded_or_as_a_slash(in_what_is_signed: str) -> None:
    message = go_signed("PUT", in_what_is_signed.rstrip("/"), "", "", EMPTY)

    assert is_right(structs.replace(message, path="/v2/images/a/tags/x%2fy"), EMPTY)


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(message: Message, now: int = NOW) -> str:
    with pytest.raises(SignatureRefused) as refused:
        signatures.authorization(message, now)
    return refused.value.message


PLAIN: Final = Message(method="GET", path="/v2/images", query="", headers=[])


@pytest.mark.parametrize(
    "text",
    [
        "V11-HMAC-SHA256 Credential=AK/20260102/eu/ims, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64,
        "SDK-HMAC-SM3 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64,
        "SDK-ECDSA-P256-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64,
        "SDK-SM2-SM3 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64,
    ],
)
def test_another_algorithm_is_refused_by_name(text: str) -> None:
    assert signatures.is_signed(text)
    assert "SDK-HMAC-SHA256" in refusal(structs.replace(PLAIN, headers=[("authorization", text)]))


@pytest.mark.parametrize("text", ["Bearer abc", "Basic YTpi", "", "AWS4-HMAC-SHA256 Credential=a", "SDK-"])
def test_other_authorizations_are_no_signatures(text: str) -> None:
    assert not signatures.is_signed(text)


@pytest.mark.parametrize("minutes", [-15, 0, 15])
def test_a_clock_may_be_a_quarter_of_an_hour_off(minutes: int) -> None:
    signatures.authorization(signed(PLAIN), NOW + minutes * 60_000)


@pytest.mark.parametrize("ms", [-900_001, 900_001, 86_400_000])
def test_an_older_or_newer_date_is_refused(ms: int) -> None:
    assert "15 minutes" in refusal(signed(PLAIN), NOW + ms)


@pytest.mark.parametrize(
    "date", ["", "20260102T030405", "2026-01-02T03:04:05Z", "20261302T030405Z", "20260102T030499Z"]
)
def test_a_date_of_another_form_is_refused(date: str) -> None:
    assert "X-Sdk-Date" in refusal(with_header(signed(PLAIN), "x-sdk-date", date))


def test_the_date_of_a_credential_is_that_of_the_request() -> None:
    message = message_of(VECTORS[NAMES.index("B1 job query")])
    text = dict(message.headers)["authorization"].replace("20260102/", "20260101/")

    assert "date" in refusal(with_header(message, "authorization", text))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"names": "x-sdk-date"}, "host is not signed"),
        ({"names": "host"}, "x-sdk-date is not signed"),
        ({"names": "host;x-sdk-date;x-other"}, "x-other is signed and was not sent"),
        ({"names": ""}, "not as documented"),
        ({"signature": "0" * 63}, "not as documented"),
        ({"access": "a b"}, "not as documented"),
        ({"access": "A" * 129}, "not as documented"),
        ({"names": "host;x-sdk-date;" + "x" * 9000}, "not as documented"),
    ],
)
def test_an_authorization_that_is_not_as_documented_is_refused(changed: dict[str, Any], told: str) -> None:
    assert told in refusal(signed(PLAIN, **changed))


@pytest.mark.parametrize("name", ["host", "x-sdk-date", "authorization"])
def test_a_header_that_is_there_twice_is_refused(name: str) -> None:
    message = signed(PLAIN)
    twice = structs.replace(message, headers=[*message.headers, (name, dict(message.headers)[name])])

    assert "more than once" in refusal(twice)


@pytest.mark.parametrize("told", ["", "unsigned-payload", "0" * 63, "g" * 64])
def test_a_told_hash_is_one_or_says_that_there_is_none(told: str) -> None:
    with pytest.raises(SignatureRefused):
        signatures.told_hash(structs.replace(PLAIN, headers=[("x-sdk-content-sha256", told)]))


@pytest.mark.parametrize(
    ("dialect", "empty", "hashes"),
    [
        (Dialect.ACCESS, True, (EMPTY,)),
        (Dialect.ACCESS, False, (UNSIGNED,)),
        (Dialect.ACCESS, None, (UNSIGNED, EMPTY)),
        (Dialect.CREDENTIAL, True, (UNSIGNED,)),
        (Dialect.CREDENTIAL, None, (UNSIGNED,)),
    ],
)
def test_a_told_hash_counts_where_there_is_a_body(
    dialect: Dialect, empty: bool | None, hashes: tuple[str, ...]
) -> None:
    message = with_header(signed(PLAIN), "x-sdk-content-sha256", UNSIGNED)
    found = structs.replace(signatures.authorization(message, NOW), dialect=dialect)

    assert signatures.hashes_before_body(found, message, empty=empty) == hashes
