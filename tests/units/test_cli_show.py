"""What the commands print."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.cli import show
from calotype.cli.failure import Failure


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.text())
def test_nothing_that_is_shown_can_steer_a_terminal(text: str) -> None:
    shown = show.printable(text)

    assert shown.isprintable()


def test_an_escape_sequence_in_a_name_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("NAME",), [("\x1b]0;owned\x07[bold]x[/bold]",)])

    assert capsys.readouterr().out.splitlines()[1] == "\\x1b]0;owned\\x07[bold]x[/bold]"


def test_a_table_without_a_terminal_is_never_cut_or_folded(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("ID", "NAME"), [("i" * 300, "n" * 300)])

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["ID", "NAME"], ["i" * 300, "n" * 300]]


def test_facts_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    show.facts({"id": "x", "size": None, "status": "queued"})

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["id", "x"], ["status", "queued"]]


def test_json_is_whole_and_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    show.document({"name": "bücher\x9b"})

    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "bücher\x9b"}
    assert out.isascii()


def test_a_failure_is_told_with_its_code_and_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    show.failure(Failure("bucket_not_found", "no bucket disks"))

    error, step = capsys.readouterr().err.splitlines()
    assert error == "error: no bucket disks [bucket_not_found]"
    assert step.startswith("next: ")
    assert "calotype bucket create" in step


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64_330_752, "61.4 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_told_in_binary_units(count: int, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (7500, "2 h 5 min")])
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


def test_rate_and_remaining_time_count_only_what_came_since_the_transfer_went_on() -> None:
    clock, told = Clock(), list[tuple[float | None, str]]()
    meter = show.Meter(lambda percent, words: told.append((percent, words)), clock)

    meter.bytes(500 * 1024, 1000 * 1024)
    clock.now = 10.0
    meter.bytes(750 * 1024, 1000 * 1024)

    assert told[-1] == (75.0, "750.0 KiB of 1000.0 KiB, 25.0 KiB/s, 10 s left")


def test_an_empty_transfer_has_no_percentage() -> None:
    told = list[tuple[float | None, str]]()

    show.Meter(lambda percent, words: told.append((percent, words))).bytes(0, 0)

    assert told == [(None, "0 B")]


def test_progress_without_a_terminal_is_few_lines_and_always_the_last() -> None:
    clock, written = Clock(), list[str]()
    lines = show.Lines("put x", written.append, clock)

    for percent in range(101):
        clock.now = percent / 10
        lines.show(percent, "words")
    lines.end()

    assert written == ["put x: 0 %, words", "put x: 50 %, words", "put x: 100 %, words"]


def test_progress_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress("put x") as meter:
        meter.bytes(1, 2)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "put x: 50 %, 1 B of 2 B\n"
