"""What the commands print: data to stdout as a table or JSON, talk and progress to stderr.

Text that comes from the service is shown with its control characters made visible: a name is no terminal command.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from calotype.cli.failure import Failure

LINE_EVERY_S: Final = 5.0  # of progress, where there is no terminal
WIDE: Final = 100_000  # columns, where there is no terminal: nothing is cut


def printable(value: object) -> str:
    """One line of text in which nothing can steer a terminal."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def document(value: Any) -> None:
    """JSON on stdout."""
    print(json.dumps(value, indent=2), flush=True)  # noqa: T201 - printing is what this module is for


def line(text: str) -> None:
    """One line of data, on stdout."""
    print(printable(text), flush=True)  # noqa: T201


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(text, file=sys.stderr)  # noqa: T201


def failure(told: Failure) -> None:
    say(f"error: {printable(told.message)} [{printable(told.code)}]")
    if told.next_step:
        say(f"next: {told.next_step}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(Text(column), overflow="fold", justify="right" if column in RIGHT else "left")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    _print(grid)


RIGHT: Final = frozenset({"SIZE", "PERCENT"})


def facts(pairs: Mapping[str, object]) -> None:
    """A record, one line a field; None is left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            grid.add_row(Text(printable(name)), Text(printable(value)))
    _print(grid)


def _print(grid: Any) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip(), flush=True)  # noqa: T201


def size(count: float | None) -> str:
    """Bytes for a person: 61.3 MiB."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float | None) -> str:
    """42 s, 3 min 5 s, 2 h 3 min."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Meter:
    """Progress of one long thing, told as a percentage and a few words.

    `tell(percent, words)` is called by whoever does the work, as often as it likes; percent is None when unknown.
    """

    def __init__(self, shown: Callable[[float | None, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown
        self._clock = clock
        self._begun: float | None = None
        self._before = 0

    def tell(self, percent: float | None, words: str) -> None:
        self._shown(percent, words)

    def bytes(self, done: int, total: int | None) -> None:
        """Progress of a transfer. Rate and remaining time are those since the first call, whose bytes came before."""
        now = self._clock()
        if self._begun is None:
            self._begun, self._before = now, done
        elapsed = now - self._begun
        rate = (done - self._before) / elapsed if elapsed > 0 else 0.0
        left = (total - done) / rate if total is not None and rate > 0 else None
        self.tell(100 * done / total if total else None, words_of(done, total, rate, left))


def words_of(done: int | None, total: int | None, rate: float | None, left: float | None) -> str:
    """40.0 MiB of 61.3 MiB, 150.2 MiB/s, 3 s left."""
    parts = []
    if done is not None:
        parts.append(f"{size(done)} of {size(total)}" if total else size(done))
    if rate:
        parts.append(f"{size(rate)}/s")
    if left is not None and not (total is not None and done == total):
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


@contextmanager
def progress(label: str) -> Iterator[Meter]:
    """A bar on stderr, or plain lines where stderr is no terminal."""
    label = printable(label)
    if sys.stderr.isatty():
        with _bar(label) as meter:
            yield meter
        return
    lines = Lines(label, say)
    yield Meter(lines.show)
    lines.end()


class Lines:
    """Progress for logs: a line at the beginning, then at most one each `LINE_EVERY_S` seconds, and the last one."""

    def __init__(self, label: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._write = write
        self._clock = clock
        self._last: float | None = None
        self._held: str | None = None

    def show(self, percent: float | None, words: str) -> None:
        text = ", ".join(part for part in ("" if percent is None else f"{percent:.0f} %", printable(words)) if part)
        now = self._clock()
        if self._last is None or now - self._last >= LINE_EVERY_S:
            self._write(f"{self._label}: {text}")
            self._last, self._held = now, None
        else:
            self._held = text

    def end(self) -> None:
        if self._held is not None:
            self._write(f"{self._label}: {self._held}")


@contextmanager
def _bar(label: str) -> Iterator[Meter]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(escape(label), total=None, words="")

        def show(percent: float | None, words: str) -> None:
            total = None if percent is None else 100.0
            bars.update(task, total=total, completed=percent or 0.0, words=printable(words))

        yield Meter(show)
