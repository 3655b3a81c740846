"""A file from a source that breaks off, lies or changes: whole and right, or an error and nothing left."""

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from calotype.errors import (
    CalotypeError,
    FetchFailed,
    FetchRefused,
    ImageTooLarge,
    JobCancelled,
    SourceChanged,
    SourceUnavailable,
    StorageQuotaExceeded,
    Unavailable,
)
from calotype.fetch.download import GREW_BYTES, PROGRESS_BYTES, RETRIES
from tests.contract.source import Answer, Asked, Names, Pauses, Source, fetcher_for, head, in_turn, redirect, whole

MIB = 1024 * 1024
BODY = b"".join((bytes(MIB), os.urandom(MIB), bytes(100_001), os.urandom(12_345)))  # zeros too: they become holes
MOST = 1 << 40


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def cut_at(size: int, body: bytes = BODY, **headers: object) -> Answer:
    """Breaks off after `size` bytes of the whole."""

    def answer(asked: Asked) -> Iterator[bytes]:
        told, *rest = whole(body, **headers)(asked)
        yield told
        for data in rest:
            yield data[: max(size - asked.start, 0)]

    return answer


def busy(status: int = 503, **headers: object) -> Answer:
    return lambda _: [head(status, Content_Length=0, **headers)]


def endless(_: Asked) -> Iterable[bytes]:
    return itertools.chain([head()], itertools.repeat(bytes(64 * 1024)))


# --- whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, b"", b"x", bytes(5 * MIB)])
def test_the_file_is_what_the_source_has(target: Path, body: bytes) -> None:
    with Source(whole(body)) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=MOST) == len(body)

    assert target.read_bytes() == body
    assert target.stat().st_mode & 0o077 == 0


def test_an_old_file_is_overwritten(target: Path) -> None:
    target.write_bytes(BODY * 2)

    with Source(whole(b"new")) as source:
        fetcher_for(source).download(source.url(), target, most_bytes=MOST)

    assert target.read_bytes() == b"new"


def test_a_link_in_the_place_of_the_file_is_not_followed(target: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"old")
    target.symlink_to(tmp_path / "other")

    with Source(whole(BODY)) as source, pytest.raises(Unavailable):
        fetcher_for(source).download(source.url(), target, most_bytes=MOST)

    assert (tmp_path / "other").read_bytes() == b"old"


@pytest.mark.parametrize("validator", [{"ETag": '"1"'}, {"Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_download_goes_on_where_it_was_cut(target: Path, validator: dict[str, Any]) -> None:
    answers = (cut_at(PROGRESS_BYTES, **validator), cut_at(PROGRESS_BYTES + 7, **validator), whole(BODY, **validator))

    with Source(in_turn(*answers)) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=MOST) == len(BODY)

    assert target.read_bytes() == BODY
    assert [asked.start for asked in source.asked] == [0, PROGRESS_BYTES, PROGRESS_BYTES + 7]
    assert [asked.headers.get("if-range") for asked in source.asked[1:]] == [*validator.values()] * 2


def test_a_download_goes_on_where_it_was_cut_behind_a_redirect(target: Path) -> None:
    with (
        Source(in_turn(cut_at(5000, ETag='"1"'), whole(BODY, ETag='"1"'))) as source,
        Source(redirect(source.url())) as first,
    ):
        fetcher_for(source, first).download(first.url(), target, most_bytes=MOST)

    assert target.read_bytes() == BODY
    assert [asked.start for asked in source.asked] == [0, 5000]


def test_a_source_that_ignores_ranges_is_read_again_up_to_where_it_was_cut(target: Path) -> None:
    def no_ranges(_: Asked) -> Iterable[bytes]:
        return [head(Content_Length=len(BODY), ETag='"1"'), BODY]

    with Source(in_turn(cut_at(5000, ETag='"1"'), no_ranges)) as source:
        fetcher_for(source).download(source.url(), target, most_bytes=MOST)

    assert target.read_bytes() == BODY


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_a_source_that_does_not_say_which_bytes_it_has_is_read_anew(target: Path, headers: dict[str, Any]) -> None:
    other = bytes(reversed(BODY))

    with Source(in_turn(cut_at(MIB + 5000, **headers), whole(other, **headers))) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=MOST) == len(BODY)

    assert target.read_bytes() == other
    assert [asked.start for asked in source.asked] == [0, 0]


def test_a_body_in_chunks_that_was_cut_is_read_on(target: Path) -> None:
    def cut(_: Asked) -> Iterable[bytes]:
        return [head(Transfer_Encoding="chunked", ETag='"1"'), b"5\r\nabcde\r\n"]

    def rest(asked: Asked) -> Iterable[bytes]:
        told = head(206, Transfer_Encoding="chunked", Content_Range=f"bytes {asked.start}-9/*", ETag='"1"')
        return [told, b"5\r\nfghij\r\n0\r\n\r\n"]

    with Source(in_turn(cut, rest)) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=MOST) == 10

    assert target.read_bytes() == b"abcdefghij"


def test_a_source_that_is_busy_is_asked_again_when_it_says(target: Path) -> None:
    pauses = Pauses()

    with Source(in_turn(busy(Retry_After="7"), busy(429), whole(BODY))) as source:
        fetcher_for(source, pauses=pauses).download(source.url(), target, most_bytes=MOST)

    assert target.read_bytes() == BODY
    assert pauses.seconds == [7.0, 1.0]


def test_progress_is_told_in_bytes(target: Path) -> None:
    told: list[tuple[int, int | None]] = []

    with Source(whole(BODY)) as source:
        fetcher_for(source).download(
            source.url(), target, most_bytes=MOST, progress=lambda done, size: told.append((done, size))
        )

    assert told == sorted(told)
    assert told[-1] == (len(BODY), len(BODY))


def test_no_more_is_written_than_was_told_to_grow_to(target: Path) -> None:
    size = GREW_BYTES + 3 * MIB
    told: list[tuple[int, int]] = []

    def grew(total: int) -> None:
        told.append((total, target.stat().st_size))

    with Source(lambda _: [head(Content_Length=size), *[os.urandom(MIB)] * (size // MIB)]) as source:
        fetcher_for(source).download(source.url(), target, most_bytes=MOST, grew=grew)

    allowed = [GREW_BYTES, *(total + GREW_BYTES for total, _ in told)]
    assert told
    assert all(written <= most for written, most in zip([written for _, written in told], allowed, strict=False))
    assert size <= allowed[-1]


# --- an error, and nothing left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "headers"),
    [
        (whole(BODY, ETag='"2"'), {"ETag": '"1"'}),
        (lambda _: [head(Content_Length=len(BODY), ETag='"2"'), BODY], {"ETag": '"1"'}),
        (whole(BODY + b"more", ETag='"1"'), {"ETag": '"1"'}),
        (whole(BODY), {"ETag": '"1"'}),
        (whole(BODY, Last_Modified="later"), {"Last_Modified": "earlier"}),
    ],
)
def test_a_source_that_changed_in_between_fails(target: Path, second: Answer, headers: dict[str, Any]) -> None:
    with Source(in_turn(cut_at(5000, **headers), second)) as source, pytest.raises(SourceChanged):
        fetcher_for(source).download(source.url(), target, most_bytes=MOST)

    assert not target.exists()


@pytest.mark.parametrize(
    ("answer", "error", "asked"),
    [
        (cut_at(1000, ETag='"1"'), SourceUnavailable, RETRIES + 1),
        (cut_at(1000), SourceUnavailable, RETRIES + 1),
        (busy(), SourceUnavailable, RETRIES + 1),
        (lambda _: [], SourceUnavailable, RETRIES + 1),
        (busy(404), FetchFailed, 1),
        (lambda _: [b"nonsense\r\n\r\n"], FetchFailed, 1),
        (in_turn(cut_at(1000, ETag='"1"'), busy(416)), FetchFailed, 2),
        (in_turn(cut_at(1000, ETag='"1"'), busy(404)), FetchFailed, 2),
        (redirect("http://10.0.0.1/"), FetchRefused, 1),
    ],
)
def test_what_cannot_be_had_leaves_nothing(
    target: Path, answer: Answer, error: type[CalotypeError], asked: int
) -> None:
    with Source(answer) as source, pytest.raises(error):
        fetcher_for(source).download(source.url(), target, most_bytes=MOST)

    assert not target.exists()
    assert len(source.asked) == asked


def test_a_source_that_is_cut_again_and_again_is_read_on_while_it_brings_something(target: Path) -> None:
    body = os.urandom((RETRIES + 3) * PROGRESS_BYTES)

    def cut_soon(asked: Asked) -> Iterator[bytes]:
        return iter(cut_at(asked.start + PROGRESS_BYTES, body, ETag='"1"')(asked))

    with Source(cut_soon) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=MOST) == len(body)

    assert target.read_bytes() == body


def test_each_pause_is_longer_than_the_one_before(target: Path) -> None:
    pauses = Pauses()

    with Source(busy()) as source, pytest.raises(SourceUnavailable):
        fetcher_for(source, pauses=pauses).download(source.url(), target, most_bytes=MOST)

    assert pauses.seconds == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (whole(BODY), len(BODY) - 1),
        (lambda _: [head(Content_Length=1 << 50)], 1000),
        (endless, 3 * MIB),
        (lambda _: itertools.chain([head(Transfer_Encoding="chunked")], itertools.repeat(b"4\r\naaaa\r\n")), 1000),
    ],
)
def test_a_source_that_has_more_than_is_allowed_fails(target: Path, answer: Answer, most: int) -> None:
    largest = 0

    def progress(done: int, _size: int | None) -> None:
        nonlocal largest
        largest = max(largest, done, target.stat().st_size)

    with Source(answer) as source, pytest.raises(ImageTooLarge):
        fetcher_for(source).download(source.url(), target, most_bytes=most, progress=progress)

    assert largest <= most
    assert not target.exists()


def test_exactly_as_much_as_is_allowed_is_taken(target: Path) -> None:
    with Source(lambda _: [head(), BODY]) as source:
        assert fetcher_for(source).download(source.url(), target, most_bytes=len(BODY)) == len(BODY)


def test_a_quota_that_is_used_up_ends_the_download(target: Path) -> None:
    def full(_total: int) -> None:
        raise StorageQuotaExceeded("full")

    with Source(endless) as source, pytest.raises(StorageQuotaExceeded):
        fetcher_for(source).download(source.url(), target, most_bytes=MOST, grew=full)

    assert not target.exists()


def test_a_cancelled_download_ends_while_bytes_come(target: Path) -> None:
    cancelled = threading.Event()

    with Source(endless) as source, pytest.raises(JobCancelled):
        fetcher_for(source).download(
            source.url(), target, most_bytes=MOST, progress=lambda *_: cancelled.set(), cancelled=cancelled
        )

    assert not target.exists()


def test_a_cancelled_download_ends_while_the_source_is_silent(target: Path) -> None:
    cancelled = threading.Event()

    def silent(_: Asked) -> Iterable[bytes]:
        yield head(Content_Length=10)
        cancelled.set()
        source.closing.wait(30)

    with Source(silent) as source, pytest.raises(JobCancelled):
        fetcher_for(source, read_timeout_s=60.0).download(source.url(), target, most_bytes=MOST, cancelled=cancelled)

    assert not target.exists()


def test_a_cancelled_download_ends_while_it_waits_to_ask_again(target: Path) -> None:
    cancelled = threading.Event()

    def wait(event: threading.Event, _seconds: float) -> None:
        event.set()

    with Source(busy()) as source, pytest.raises(JobCancelled):
        fetcher_for(source, pauses=wait).download(source.url(), target, most_bytes=MOST, cancelled=cancelled)

    assert len(source.asked) == 1


def test_a_download_that_is_cancelled_already_sends_nothing(target: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with Source(whole(BODY)) as source, pytest.raises(JobCancelled):
        fetcher_for(source).download(source.url(), target, most_bytes=MOST, cancelled=cancelled)

    assert source.connections == 0


def test_a_refused_url_leaves_no_file_and_sends_nothing(target: Path) -> None:
    names = Names()

    with pytest.raises(FetchRefused):
        fetcher_for(names=names).download("http://localhost/", target, most_bytes=MOST)

    assert not target.exists()
    assert names.looked_up == []


def test_a_folder_that_is_not_there_is_the_services_fault(tmp_path: Path) -> None:
    with Source(whole(BODY)) as source, pytest.raises(Unavailable, match="storage"):
        fetcher_for(source).download(source.url(), tmp_path / "nowhere" / "disk", most_bytes=MOST)


def test_credentials_are_sent_with_every_part(target: Path) -> None:
    with Source(in_turn(cut_at(5000, ETag='"1"'), whole(BODY, ETag='"1"'))) as source:
        fetcher_for(source).download(source.url(), target, most_bytes=MOST, headers={"X-Auth-Token": "secret"})

    assert [asked.headers["x-auth-token"] for asked in source.asked] == ["secret", "secret"]


def test_no_secret_of_a_url_is_in_the_log_of_a_download_that_was_interrupted(target: Path) -> None:
    with Source(in_turn(busy(), whole(BODY))) as source, capture_logs() as events:
        fetcher_for(source).download(source.url("/disk?token=secret"), target, most_bytes=MOST)

    assert [event["event"] for event in events] == ["fetch_interrupted"]
    assert "secret" not in str(events)
