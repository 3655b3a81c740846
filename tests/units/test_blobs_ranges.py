"""`Range` headers, by RFC 9110, section 14."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calotype.blobs.download import parse_range
from calotype.errors import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        ("bytes=0-0", 10, (0, 0)),
        ("bytes=0-", 10, (0, 9)),
        ("bytes=3-5", 10, (3, 5)),
        ("bytes=3-99", 10, (3, 9)),
        ("bytes=9-", 10, (9, 9)),
        ("bytes=-1", 10, (9, 9)),
        ("bytes=-4", 10, (6, 9)),
        ("bytes=-99", 10, (0, 9)),
        ("BYTES=1-2", 10, (1, 2)),
        ("bytes= 1-2 ", 10, (1, 2)),
        ("bytes=0000000000000000000000000000001-2", 10, (1, 2)),
        ("bytes=1-" + "9" * 5000, 10, (1, 9)),
        ("bytes=-" + "9" * 5000, 10, (0, 9)),
    ],
)
def test_one_range_is_the_part_that_exists(header: str, size: int, part: tuple[int, int]) -> None:
    assert parse_range(header, size) == part


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-3",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=1-2,",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes =1-2",
        "bytes=1 -2",
        "bytes=1-2;q=1",
        "bytes=\u0661-\u0662",  # digits, but not of ASCII
        "bytes=--1",
        "bytes=\n1-2",
        "lines=1-2",
        "0-5",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_a_range_outside_the_bytes_is_refused_with_their_number(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        parse_range(header, 10)

    assert refused.value.size == 10


def test_of_nothing_no_byte_can_be_asked_for() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=0-", 0)


def test_the_last_bytes_of_nothing_are_the_whole() -> None:
    assert parse_range("bytes=-5", 0) is None


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}(,[0-9]*-[0-9]*)?"), st.integers(0, 10**5))
@example("bytes=0-", 1)
def test_a_part_is_inside_or_refused_and_no_header_crashes(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiable:
        return

    assert part is None or 0 <= part[0] <= part[1] < size


@given(st.integers(1, 1000), st.data())
def test_every_range_that_a_client_can_form_is_answered_exactly(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))

    assert parse_range(f"bytes={first}-{last}", size) == (first, last)
    assert parse_range(f"bytes={first}-", size) == (first, size - 1)
    assert parse_range(f"bytes=-{size - first}", size) == (first, size - 1)
