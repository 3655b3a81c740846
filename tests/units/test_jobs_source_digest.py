"""The digest that a source must have: its form, and what is found."""

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import DigestMismatch, JobCancelled, MalformedBody
from calotype.jobs.kinds.source_digest import check, checked, source_digest

algorithms = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


@algorithms
@given(content=st.binary(max_size=100))
def test_a_digest_is_read_in_either_case(algorithm: str, content: bytes) -> None:
    value = hashlib.new(algorithm, content).hexdigest()

    assert source_digest(f"{algorithm}:{value}") == f"{algorithm}:{value}"
    assert source_digest(f"{algorithm}:{value.upper()}") == f"{algorithm}:{value}"


@given(text=st.one_of(st.text(max_size=140), st.from_regex(r"(sha1|md5|sha256|sha512|SHA256):[0-9a-fg]{30,130}\n?")))
def test_what_is_no_digest_is_refused(text: str) -> None:
    algorithm, _, value = text.partition(":")
    is_one = {"sha256": 64, "sha512": 128}.get(algorithm) == len(value) and set(value) <= set("0123456789abcdefABCDEF")

    if is_one:
        assert source_digest(text) == text.lower()
    else:
        with pytest.raises(MalformedBody):
            source_digest(text)


@algorithms
def test_a_file_has_its_digest_and_no_other(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes " * 1000)
    digest = f"{algorithm}:{hashlib.new(algorithm, file.read_bytes()).hexdigest()}"

    check(file, digest, cancelled=threading.Event())
    file.write_bytes(b"Bytes " * 1000)
    with pytest.raises(DigestMismatch, match=digest):
        check(file, digest, cancelled=threading.Event())


def test_reading_ends_when_the_job_is_cancelled(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(JobCancelled):
        check(file, "sha256:" + "0" * 64, cancelled=cancelled)


async def test_what_goes_wrong_meanwhile_is_what_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")

    with pytest.raises(ZeroDivisionError):
        async with checked(file, "sha256:" + "0" * 64):
            raise ZeroDivisionError


async def test_what_was_done_meanwhile_does_not_count_with_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")

    with pytest.raises(DigestMismatch):
        async with checked(file, "sha256:" + "0" * 64):
            pass
