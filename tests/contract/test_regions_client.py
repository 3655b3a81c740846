"""The client of another region, against services that answer badly."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from calotype.errors import CalotypeError, RegionFailed, RegionUnavailable
from calotype.regions.client import Region, Regions
from calotype.regions.destination import Destination
from calotype.regions.wire import MOST_ANSWER_BYTES
from calotype.settings import RegionSettings, Settings
from tests.contract.source import Answer, Asked, Source, head, redirect
from tests.contract.test_fetch_tls import Authority

IMAGE: Final = "/v2/images/9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"
ID: Final = IMAGE.rpartition("/")[2]
SECRET: Final = "hush-hush"


@contextlib.asynccontextmanager
async def region(source: Source, **settings: Any) -> AsyncIterator[Region]:
    given = {"user": "mover", "password": SECRET, "timeout_s": 5.0, "patience_s": 0.2, **settings}
    url = source.url("", host=given.pop("host", None))
    regions = Regions(Settings(regions={"west": RegionSettings(url=url, projects=("landing",), **given)}))
    async with regions.opened(Destination(region="west", project="landing")) as opened:
        yield opened


def document(value: Any, status: int = 200, **headers: Any) -> list[bytes]:
    body = msgspec.json.encode(value)
    return [head(status, Content_Length=len(body), Connection="close", **headers) + body]


def logged_in(answer: Answer) -> Answer:
    """`answer` to all but the login."""

    def answering(asked: Asked) -> Iterable[bytes]:
        if asked.target.endswith("/auth/tokens"):
            return document({"token": {}}, 201, X_Subject_Token="token")
        return answer(asked)

    return answering


async def piece(data: bytes = b"x" * 100, times: int = 1) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield data


async def error_of(answer: Answer, **settings: Any) -> CalotypeError:
    with Source(logged_in(answer)) as source:
        async with region(source, **settings) as opened:
            with pytest.raises(CalotypeError) as raised:
                await opened.show(ID)
    assert SECRET not in raised.value.message
    return raised.value


async def test_an_image_is_shown_and_one_that_is_gone_is_none() -> None:
    def answer(asked: Asked) -> Iterable[bytes]:
        assert asked.headers["x-auth-token"] == "token"
        return document({"id": ID}) if asked.target == IMAGE else document({}, 404)

    with Source(logged_in(answer)) as source:
        async with region(source) as opened:
            found, missing = await opened.show(ID), await opened.show("another")

    assert (found, missing) == ({"id": ID}, None)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (redirect("http://127.0.0.1:1/elsewhere"), "redirects are not followed"),
        (lambda _: [head(200, Content_Length=5) + b"hello"], "does not answer as an image service does"),
        (lambda _: document([1]), "does not answer as an image service does"),
        (lambda _: document({"error": {"message": "no\r\nway", "detail": "x" * 999}}, 403), "403 Forbidden: no  way x"),
        (lambda _: document({"error_msg": "no way"}, 400), "400 Bad Request: no way"),
        (lambda _: [head(200, Content_Length=2 * MOST_ANSWER_BYTES) + bytes(2 * MOST_ANSWER_BYTES)], "more than"),
        (lambda _: document({}, 401), "401 Unauthorized"),
    ],
    ids=["redirect", "text", "array", "long-words", "gateway", "endless", "token-refused"],
)
async def test_what_trying_again_does_not_help_is_final(answer: Answer, says: str) -> None:
    error = await error_of(answer)

    assert type(error) is RegionFailed
    assert says in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: document({}, 503),
        lambda _: document({}, 429),
        lambda _: [],
        lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"],
    ],
    ids=["503", "429", "silence", "cut"],
)
async def test_what_may_pass_is_told_apart(answer: Answer) -> None:
    assert isinstance(await error_of(answer), RegionUnavailable)


async def test_a_region_that_never_answers_is_given_up_after_its_time() -> None:
    def answer(_: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        source.closing.wait(timeout=30)

    with Source(logged_in(answer)) as source:
        async with region(source, timeout_s=0.3) as opened:
            with pytest.raises(RegionUnavailable, match="in time"):
                await opened.show(ID)


async def test_a_call_is_tried_again_while_the_region_is_away_and_no_longer() -> None:
    answers = iter([document({}, 503)])

    def answer(_: Asked) -> Iterable[bytes]:
        return next(answers, document({"id": ID}))

    with Source(logged_in(answer)) as source:
        async with region(source, patience_s=30.0) as opened:
            assert await opened.patiently(lambda: opened.show(ID)) == {"id": ID}

    with Source(logged_in(lambda _: document({}, 503))) as source:
        async with region(source) as opened:
            with pytest.raises(RegionFailed, match=r"503 .* tried again for 0\.2 seconds") as raised:
                await opened.patiently(lambda: opened.show(ID))
    assert not isinstance(raised.value, RegionUnavailable)


async def test_a_token_that_is_no_longer_taken_is_renewed_once() -> None:
    tokens = iter(["old", "new"])

    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.target.endswith("/auth/tokens"):
            return document({"token": {}}, 201, X_Subject_Token=next(tokens))
        return document({"id": ID}) if asked.headers["x-auth-token"] == "new" else document({}, 401)

    with Source(answer) as source:
        async with region(source) as opened:
            assert await opened.show(ID) == {"id": ID}


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_login_that_is_refused_is_told_without_its_secret(status: int) -> None:
    with Source(lambda _: document({"error": {"message": "no"}}, status)) as source:
        async with region(source) as opened:
            with pytest.raises(RegionFailed, match=f"log.*{status}") as raised:
                await opened.show(ID)

            assert not opened.asked
    assert SECRET not in raised.value.message


async def test_an_access_key_of_no_such_project_is_refused() -> None:
    with Source(lambda _: document({"projects": []})) as source:
        async with region(source, user="", password="", access_key="AK", secret_key=SECRET) as opened:
            with pytest.raises(RegionFailed, match="no project landing"):
                await opened.show(ID)
        authorization = source.asked[0].headers["authorization"]

    assert source.asked[0].target == "/identity/v3/projects?name=landing"
    assert authorization.startswith("SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=")
    assert SECRET not in authorization


async def test_a_certificate_is_looked_at_and_an_authority_of_ones_own_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    with Source(logged_in(lambda _: document({"id": ID})), tls=authority.server("localhost")) as source:
        async with region(source, host="localhost") as opened:
            with pytest.raises(RegionFailed, match="certificate of region west is not valid") as raised:
                await opened.show(ID)
            assert not isinstance(raised.value, RegionUnavailable)
        async with region(source, host="localhost", ca_file=str(authority.file)) as opened:
            assert await opened.show(ID) == {"id": ID}
            await opened.upload(ID, piece(), 100, {})
        async with region(source, ca_file=str(authority.file)) as opened:  # by its address
            with pytest.raises(RegionFailed, match="certificate of region west is not valid"):
                await opened.show(ID)


# --- uploads ----------------------------------------------------------------------------------------------------------


async def test_an_upload_says_what_it_sends() -> None:
    with Source(logged_in(lambda _: [head(204)])) as source:
        async with region(source) as opened:
            await opened.upload(ID, piece(), 100, {"md5": "00" * 16})
        asked = source.asked[-1]

    assert (asked.method, asked.target) == ("PUT", f"{IMAGE}/file")
    expected = {
        "content-type": "application/octet-stream",
        "content-length": "100",
        "content-digest": "md5=:AAAAAAAAAAAAAAAAAAAAAA==:",
        "x-auth-token": "token",
        "host": source.place,
        "connection": "close",
    }
    assert {name: asked.headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda _: document({"error": {"message": "too much"}}, 413), RegionFailed, "413 .*: too much"),
        (lambda _: document({"error": {"message": "digest"}}, 400), RegionFailed, "400 .*: digest"),
        (lambda _: document({}, 409), RegionUnavailable, "409"),
        (lambda _: document({}, 404), RegionUnavailable, "404"),
        (lambda _: document({}, 503), RegionUnavailable, "503"),
        (lambda _: document({}, 401), RegionUnavailable, "token"),
        (lambda _: [], RegionUnavailable, "broke"),
        (lambda _: [b"nonsense\r\n\r\n"], RegionUnavailable, "broke"),
        (redirect("http://127.0.0.1:1/"), RegionFailed, "redirects"),
    ],
    ids=["quota", "digest", "conflict", "gone", "away", "token", "silence", "nonsense", "redirect"],
)
async def test_an_upload_that_fails_tells_why_and_whether_it_may_pass(
    answer: Answer, error: type[CalotypeError], says: str
) -> None:
    with Source(logged_in(answer)) as source:
        async with region(source) as opened:
            with pytest.raises(error, match=says) as raised:
                await opened.upload(ID, piece(), 100, {})

    assert type(raised.value) is error


async def test_a_refusal_is_seen_before_all_is_sent() -> None:
    """The source answers at once and reads nothing more; there is far more to send than fits between the two."""
    sent = 0

    async def much() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            yield bytes(1024 * 1024)
            sent += 1

    with Source(logged_in(lambda _: document({"error": {"message": "too much"}}, 413))) as source:
        async with region(source) as opened:
            with pytest.raises(RegionFailed, match="413"):
                await opened.upload(ID, much(), 1000 * 1024 * 1024, {})

    assert sent < 100


async def test_success_that_is_told_before_all_is_sent_is_none() -> None:
    with Source(logged_in(lambda _: [head(204)])) as source:
        async with region(source) as opened:
            with pytest.raises(RegionUnavailable, match="broke"):
                await opened.upload(ID, piece(bytes(1024 * 1024), 64), 64 * 1024 * 1024, {})


async def test_an_upload_that_nobody_reads_is_given_up() -> None:
    def answer(_: Asked) -> Iterator[bytes]:
        source.closing.wait(timeout=30)
        yield b""

    with Source(logged_in(answer)) as source:
        async with region(source, timeout_s=0.5) as opened:
            with pytest.raises(RegionUnavailable, match="in time"):
                await opened.upload(ID, piece(bytes(1024 * 1024), 64), 64 * 1024 * 1024, {})


async def test_what_reads_the_bytes_fails_with_its_own_error() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError

    def answer(_: Asked) -> Iterator[bytes]:
        source.closing.wait(timeout=30)
        yield head(204)

    with Source(logged_in(answer)) as source:
        async with region(source) as opened:
            with pytest.raises(LookupError):
                await opened.upload(ID, broken(), 100, {})


async def test_deleting_what_is_gone_or_busy() -> None:
    answers = iter([document({}, 404), document({}, 409), document({}, 403)])
    with Source(logged_in(lambda _: next(answers))) as source:
        async with region(source) as opened:
            await opened.delete(ID)
            with pytest.raises(RegionUnavailable, match="409"):
                await opened.delete(ID)
            with pytest.raises(RegionFailed, match="403"):
                await opened.delete(ID)


async def test_a_project_that_is_no_longer_set_up_is_told() -> None:
    settings = Settings(regions={"west": RegionSettings(url="http://127.0.0.1:1", projects=("landing",))})

    for where in (Destination(region="west", project="gone"), Destination(region="gone", project="landing")):
        with pytest.raises(RegionFailed, match="no longer set up"):
            async with Regions(settings).opened(where):
                pass
