"""Tokens, failed logins, the catalog and clouds.yaml: what needs no database."""

import base64
import json
import stat
from contextlib import suppress
from pathlib import Path

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import CalotypeError, Invalid, MalformedBody, Unauthenticated
from calotype.identity import clouds
from calotype.identity.catalog import catalog
from calotype.identity.model import Named, PasswordLogin, ProjectScope, Target, TargetKind, TokenLogin, Unscoped
from calotype.identity.passwords import (
    FAILURES,
    HASHER,
    MOST_REMEMBERED,
    NOBODY,
    REFUSED_FOR_S,
    WITHIN_S,
    Attempts,
    matches,
)
from calotype.identity.revocations import Revocation, Revocations
from calotype.identity.tokens import (
    KEY_SETTLES_MS,
    MOST_TOKEN_CHARACTERS,
    Ref,
    SigningKey,
    Subject,
    Token,
    signed,
    signing_key,
    verified,
)
from calotype.settings import Http, Settings
from calotype.web.identity.tokens import AuthBody, login_of, scope_of
from calotype.web.request import decoded

KEY = SigningKey(id="a" * 32, secret=b"k" * 32, created_at=0)
OTHER = SigningKey(id="b" * 32, secret=b"o" * 32, created_at=0)
KEYS = {KEY.id: KEY}
TOKEN = Token(
    user=Ref("1" * 32, "ann"),
    user_domain=Ref("default", "Default"),
    project=Ref("2" * 32, "films"),
    project_domain=Ref("3" * 32, "Studio"),
    roles=(Ref("4" * 32, "member"), Ref("5" * 32, "reader")),
    methods=("password",),
    audit_ids=("A" * 22,),
    issued_at=1_000_000,
    expires_at=2_000_000,
)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_says_what_was_signed() -> None:
    assert verified(signed(TOKEN, KEY), KEYS) == TOKEN


def test_a_token_names_its_caller() -> None:
    caller = TOKEN.caller()

    assert (caller.user_id, caller.user_name, caller.user_domain_id) == ("1" * 32, "ann", "default")
    assert (caller.project_id, caller.project_name, caller.domain_id) == ("2" * 32, "films", None)
    assert caller.roles == {"member", "reader"}
    assert not caller.is_admin


@pytest.mark.parametrize("place", [0, 40, 200, -1])
def test_a_token_with_one_changed_character_is_refused(place: int) -> None:
    wire = signed(TOKEN, KEY)
    # Not the last bits of a part: base64 ignores those of its last character.
    changed = list(wire)
    at = place if place >= 0 else wire.rindex(".") + 1
    changed[at] = "B" if changed[at] == "A" else "A"

    with pytest.raises(Unauthenticated):
        verified("".join(changed), KEYS)


def test_a_token_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        verified(signed(TOKEN, OTHER), KEYS)


def test_a_token_signed_with_another_secret_under_a_known_key_id_is_refused() -> None:
    forged = signed(TOKEN, SigningKey(id=KEY.id, secret=b"x" * 32, created_at=0))

    with pytest.raises(Unauthenticated):
        verified(forged, KEYS)


def _with_header(header: dict[str, object], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), msgspec.json.encode(TOKEN), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "RS256", "", None, 7])
def test_no_other_algorithm_is_let_in_by_the_header(algorithm: object) -> None:
    for signature in (b"", b"x" * 32):
        with pytest.raises(Unauthenticated):
            verified(_with_header({"alg": algorithm, "kid": KEY.id, "typ": "JWT"}, signature), KEYS)


def test_hs512_with_the_right_key_is_refused() -> None:
    wire = jwt.PyJWS(algorithms=["HS512"]).encode(
        msgspec.json.encode(TOKEN), KEY.secret + KEY.secret, algorithm="HS512", headers={"kid": KEY.id}
    )

    with pytest.raises(Unauthenticated):
        verified(wire, {KEY.id: SigningKey(id=KEY.id, secret=KEY.secret + KEY.secret, created_at=0)})


@pytest.mark.parametrize("kid", [None, 7, ["a"], {"a": 1}, "", "../../etc/passwd"])
def test_a_key_id_that_is_none_is_refused(kid: object) -> None:
    with pytest.raises(Unauthenticated):
        verified(_with_header({"alg": "HS256", "kid": kid}), KEYS)


def test_a_signed_document_that_is_no_token_is_refused() -> None:
    for document in (b"{}", b"[]", b"null", b"nonsense", b'{"user": 1}'):
        wire = jwt.PyJWS().encode(document, KEY.secret, algorithm="HS256", headers={"kid": KEY.id})
        with pytest.raises(Unauthenticated):
            verified(wire, KEYS)


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}"))
def test_anything_else_is_refused_and_never_a_crash(wire: str) -> None:
    with pytest.raises(Unauthenticated):
        verified(wire, KEYS)


def test_a_token_of_endless_length_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(Unauthenticated):
        verified("a" * MOST_TOKEN_CHARACTERS + ".b.c", KEYS)


def test_the_error_names_no_token() -> None:
    wire = signed(TOKEN, OTHER)

    with pytest.raises(Unauthenticated) as caught:
        verified(wire, KEYS)

    assert wire not in repr(caught.value)


def test_a_new_key_signs_only_when_every_process_had_time_to_read_it() -> None:
    old = SigningKey(id="old", secret=b"", created_at=1_000)
    new = SigningKey(id="new", secret=b"", created_at=500_000)
    keys = {key.id: key for key in (new, old)}

    assert signing_key(keys, 500_000 + KEY_SETTLES_MS - 1) is old
    assert signing_key(keys, 500_000 + KEY_SETTLES_MS) is new
    assert signing_key({new.id: new}, 500_000) is new


def test_secrets_are_not_in_the_text_of_values() -> None:
    login = PasswordLogin(user=Named(id="u"), password="hunter2-canary")

    assert "hunter2-canary" not in repr(login)
    assert "wire-canary" not in repr(TokenLogin(token="wire-canary"))
    assert "kkkk" not in repr(KEY)


# --- revocations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject",
    [
        TOKEN.itself,
        Subject("user", "1" * 32),
        Subject.user_on("1" * 32, Target(TargetKind.PROJECT, "2" * 32)),
        Subject("project", "2" * 32),
        Subject("domain", "3" * 32),
        Subject("domain", "default"),
    ],
)
def test_a_token_is_void_by_each_of_its_subjects(subject: Subject) -> None:
    known = Revocations()

    known.learn([Revocation(subject=subject, before=TOKEN.issued_at + 1, expires_at=9_000_000)])

    assert known.void(TOKEN)


def test_a_revocation_does_not_reach_tokens_issued_after_it_or_of_others() -> None:
    known = Revocations()

    known.learn([Revocation(subject=Subject("user", "1" * 32), before=TOKEN.issued_at, expires_at=9_000_000)])
    known.learn([Revocation(subject=Subject("user", "9" * 32), before=9_000_000, expires_at=9_000_000)])
    elsewhere = Subject.user_on("1" * 32, Target(TargetKind.PROJECT, "9" * 32))
    known.learn([Revocation(subject=elsewhere, before=9_000_000, expires_at=9_000_000)])
    known.learn([Revocation(subject=Subject("project", "1" * 32), before=9_000_000, expires_at=9_000_000)])

    assert not known.void(TOKEN)


def test_what_was_learned_while_the_database_was_read_is_not_forgotten() -> None:
    known = Revocations()

    known.about_to_read()
    known.learn([Revocation(subject=TOKEN.itself, before=9_000_000, expires_at=9_000_000)])
    known.replace(((0, "0"), {}))

    assert known.void(TOKEN)


def test_an_older_revocation_does_not_undo_a_newer_one() -> None:
    known = Revocations()

    known.learn([Revocation(subject=TOKEN.itself, before=9_000_000, expires_at=9_000_000)])
    known.learn([Revocation(subject=TOKEN.itself, before=5, expires_at=9_000_000)])

    assert known.void(TOKEN)


# --- failed logins ----------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_too_many_failures_refuse_for_a_while() -> None:
    clock = Clock()
    attempts = Attempts(clock)

    for _ in range(FAILURES - 1):
        attempts.failed("ann")
    refused_before = attempts.refused("ann")
    attempts.failed("ann")

    assert not refused_before
    assert attempts.refused("ann")
    assert not attempts.refused("bob")
    clock.now += REFUSED_FOR_S
    assert not attempts.refused("ann")


def test_failures_of_long_ago_and_before_a_success_do_not_count() -> None:
    clock = Clock()
    attempts = Attempts(clock)

    for _ in range(FAILURES - 1):
        attempts.failed("ann")
        attempts.failed("bob")
    clock.now += WITHIN_S
    attempts.failed("ann")
    attempts.succeeded("bob")
    attempts.failed("bob")

    assert not attempts.refused("ann")
    assert not attempts.refused("bob")


def test_failures_of_endless_names_take_bounded_memory() -> None:
    attempts = Attempts(Clock())

    for number in range(MOST_REMEMBERED + 100):
        attempts.failed(f"name-{number}")

    assert len(attempts._failures) == MOST_REMEMBERED


def test_a_password_is_checked_against_nobodys_hash_in_the_same_way() -> None:
    mine = HASHER.hash("right")

    assert matches(mine, "right")
    assert not matches(mine, "wrong")
    assert not matches(None, "right")
    assert not matches("not a hash", "right")
    assert not matches(mine, "half of a surrogate \ud800")
    assert not HASHER.check_needs_rehash(NOBODY), "nobody's hash must cost what a real one costs"


# --- the body of a login ----------------------------------------------------------------------------------------------

NAMES = ["auth", "identity", "methods", "password", "token", "user", "id", "name", "domain", "scope", "project"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@given(JSON | st.builds(lambda inner: {"auth": {"identity": inner, "scope": inner}}, JSON))
def test_any_json_as_a_login_is_understood_or_refused_as_malformed(document: object) -> None:
    raw = json.dumps(document).encode()

    with suppress(Invalid, Unauthenticated):
        auth = decoded(raw, AuthBody).auth
        assert isinstance(login_of(auth.identity), PasswordLogin | TokenLogin)
        scope_of(auth.scope)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_login_are_refused(raw: bytes) -> None:
    with pytest.raises(CalotypeError):
        decoded(raw, AuthBody)


def _scope(scope: object) -> object:
    identity = {"methods": ["token"], "token": {"id": "t"}}
    return scope_of(decoded(json.dumps({"auth": {"identity": identity, "scope": scope}}).encode(), AuthBody).auth.scope)


def test_the_scopes_that_clients_send_are_understood() -> None:
    assert _scope(None) is None
    assert _scope("unscoped") == Unscoped()
    assert _scope({"unscoped": {}}) == Unscoped()
    project = _scope({"project": {"name": "films", "domain": {"name": "Default"}}})
    assert isinstance(project, ProjectScope)
    assert (project.project.name, project.project.domain and project.project.domain.name) == ("films", "Default")


@pytest.mark.parametrize(
    "scope",
    [
        {},
        "everything",
        7,
        [],
        {"project": {}},
        {"project": {"name": "films"}},
        {"project": {"name": "films", "domain": {}}},
        {"project": {"id": 7}},
        {"domain": {}},
        {"project": {"id": "a"}, "domain": {"id": "b"}},
        {"system": {"all": True}},
        {"OS-TRUST:trust": {"id": "a"}},
    ],
)
def test_a_scope_that_says_nothing_or_too_much_is_refused(scope: object) -> None:
    with pytest.raises(CalotypeError) as caught:
        _scope(scope)

    assert not isinstance(caught.value, Unauthenticated)


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"methods": []},
        {"methods": ["password"]},
        {"methods": ["token"]},
        {"methods": "password", "password": {"user": {"id": "u", "password": "p"}}},
        {"methods": ["password", "token"], "password": {"user": {"id": "u", "password": "p"}}, "token": {"id": "t"}},
        {"methods": ["password"], "password": {"user": {"password": "p"}}},
        {"methods": ["password"], "password": {"user": {"name": "u", "password": "p"}}},
        {"methods": ["password"], "password": {"user": {"name": "u", "domain": {}, "password": "p"}}},
        {"methods": ["password"], "password": {"user": {"id": "u"}}},
        {"methods": ["password"], "password": {"user": {"id": "u", "password": 7}}},
    ],
)
def test_a_login_that_is_not_whole_is_refused_as_malformed(identity: object) -> None:
    with pytest.raises(CalotypeError) as caught:
        login_of(decoded(json.dumps({"auth": {"identity": identity}}).encode(), AuthBody).auth.identity)

    assert not isinstance(caught.value, Unauthenticated)


def test_an_error_about_a_login_does_not_repeat_the_password() -> None:
    user = {"id": 7, "password": "hunter2-canary"}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}

    with pytest.raises(MalformedBody) as caught:
        decoded(json.dumps(body).encode(), AuthBody)

    assert "hunter2-canary" not in str(caught.value)


# --- catalog and clouds.yaml ------------------------------------------------------------------------------------------


def test_the_catalog_has_the_unversioned_root_for_images() -> None:
    found = catalog(Settings(region="Studio", http=Http(url="https://images.example.test/")))

    urls = {service.type: {endpoint.url for endpoint in service.endpoints} for service in found}
    assert urls == {
        "identity": {"https://images.example.test/identity/v3"},
        "image": {"https://images.example.test"},
        "ims": {"https://images.example.test"},
    }
    for service in found:
        assert [endpoint.interface for endpoint in service.endpoints] == ["public", "internal", "admin"]
        assert {endpoint.region for endpoint in service.endpoints} == {"Studio"}


def test_ids_of_the_catalog_are_the_same_after_every_start() -> None:
    assert catalog(Settings()) == catalog(Settings())


def test_clouds_are_written_for_the_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / "data"))

    clouds.write(settings, {}, {"demo": "pass: word # with 'yaml' \"in\" it"})

    path = clouds.clouds_file(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = clouds.read(path)
    assert document is not None
    assert clouds.known_password(document, "demo") == "pass: word # with 'yaml' \"in\" it"
    assert [entry.name for entry in path.parent.iterdir()] == ["clouds.yaml"]


def test_clouds_follow_the_settings_and_keep_what_an_admin_added(tmp_path: Path) -> None:
    before = Settings(data_dir=str(tmp_path))
    after = Settings(data_dir=str(tmp_path), region="Studio", http=Http(url="https://images.example.test"))
    clouds.write(before, {"clouds": {"other": {"auth": {}}}, "cache": {"expiration": 1}}, {"demo": "secret"})
    document = clouds.read(clouds.clouds_file(before))
    assert document is not None
    document["clouds"]["calotype-demo"]["verify"] = False

    clouds.write(after, document, {"demo": "secret"})

    now = clouds.read(clouds.clouds_file(after))
    assert now is not None
    assert now["cache"] == {"expiration": 1}
    assert now["clouds"]["other"] == {"auth": {}}
    mine = now["clouds"]["calotype-demo"]
    assert mine["verify"] is False
    assert mine["region_name"] == "Studio"
    assert mine["auth"]["auth_url"] == "https://images.example.test/identity/v3"
    assert mine["auth"]["password"] == "secret"


def test_clouds_that_are_right_are_not_written_again(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    clouds.write(settings, {}, {"demo": "secret"})
    document = clouds.read(clouds.clouds_file(settings))
    assert document is not None

    assert not clouds.write(settings, document, {"demo": "secret"})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"- a list", b"clouds: 7", b"clouds: [", b"7"])
def test_a_file_that_is_no_clouds_file_is_not_ours_to_change(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_bytes(content)

    assert clouds.read(path) is None
