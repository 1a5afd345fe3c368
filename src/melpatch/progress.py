"""What a user sees while a command runs: progress bars and notices on stderr, tables on stdout.

A terminal shows live bars. A notebook shows one line that is rewritten in place. Anything else,
such as the log of a job, gets a plain line every half minute. Of a distributed run only rank 0
shows anything.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO, TypeVar, cast

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from melpatch.counted import agreeing, plural
from melpatch.errors import one_line, visible
from melpatch.time_left import RateEstimate, in_words

T = TypeVar("T")
_LOG_SECONDS = 30.0  # between the lines of a log
_NOTEBOOK_SECONDS = 0.5  # between the updates of a notebook's line
_LOG_COLUMNS = 160
_BAR_COLUMNS = 40  # of a bar where there is room
_SHORTEST_BAR = 8
_SHORTEST_DESCRIPTION = 4  # letters that are left of it in a narrow terminal
_CUT = "…"
# The live display, if there is one: a second one would overwrite its lines.
_live: list[Progress] = []


def console() -> Console:
    """Return the console for tables on stdout.

    A file or pipe gets wide lines, unless the environment variable COLUMNS gives a width.
    """
    width = None
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = _LOG_COLUMNS
    return _Console(width=width, markup=False, highlight=False, emoji=False)


class _Console(Console):
    """A console that shows control characters, and lets a reader that has gone be reported."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Return text, such as the cell of a table, without what would control the terminal."""
        return super().render_str(visible(text), **how)

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich would end the process with code 1."""
        raise


def show_text(text: str) -> None:
    """Print lines on stdout as they are, without what would control the terminal."""
    sys.stdout.write(f"{visible(text)}\n")


def show_json(value: Any) -> None:
    """Print a value as JSON, all letters but those of ASCII escaped."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


def notice(text: str) -> None:
    """Show a line on stderr: a warning, or where the results are."""
    if _is_rank_zero():
        _write(f"{one_line(text)}\n")


class Bar:
    """How far a loop has come; this one shows nothing, as is right for all ranks but 0."""

    def __init__(self, total: int | None, description: str, unit: str, done: int) -> None:
        self.total = total
        self.description = one_line(description)
        self.unit = unit
        self.before = done
        self.done = done
        self.fields: dict[str, float | str] = {}
        self.start = time.monotonic()
        self.estimate = RateEstimate(total, done, self.start)

    def advance(self, steps: int = 1, **fields: float | str) -> None:
        """Count steps as done, and show the latest value of each field.

        Args:
            steps: how many.
            fields: numbers, which are shown with their names, as ``loss=0.61``, or texts that say
                what they are, as ``memory="3.1 GiB memory"``.
        """
        self.done += steps
        if steps:
            self.estimate.update(self.done, time.monotonic())
        self.fields |= fields
        self._show()

    def line(self, width: int | None = None) -> str:
        """Return description, count, rate, times and fields as one line of text.

        Such as ``training: 30/100 steps, 3.1 steps/s, 0:00:39 elapsed, about 26 s left``.

        Args:
            width: columns that the line may take. What is less needed gives way first: the time
                that has passed, fields from the last one on, the rate, letters of the description,
                and only then the numbers.
        """
        fields = [_field(name, value) for name, value in self.fields.items()]
        rate, short_rate, elapsed, left = self._rates_and_times()
        versions = [[rate, elapsed, left, *fields], [short_rate, left, *fields]]
        versions += [[short_rate, left, *fields[:count]] for count in range(len(fields) - 1, 0, -1)]
        versions += [[left, *fields[:1]]]
        count = self._count()
        if width is None:
            return f"{self.description}: {_joined(count, versions[0])}"
        for version in versions:
            line = f"{self.description}: {_joined(count, version)}"
            if cell_len(line) <= width:
                return line
        for version in (versions[-1], [left], []):
            figures = _joined(count, version)
            room = width - cell_len(figures) - len(f"{_CUT}: ")
            if room >= _SHORTEST_DESCRIPTION:
                return f"{set_cell_size(self.description, room).rstrip()}{_CUT}: {figures}"
        return set_cell_size(count, width)

    def per_second(self) -> float | None:
        """Return the steps per second: after the warm-up or, while it lasts, so far."""
        elapsed = time.monotonic() - self.start
        rate = self.estimate.per_second()
        if rate is None and self.done > self.before and elapsed:
            return (self.done - self.before) / elapsed
        return rate

    def _count(self) -> str:
        if self.total is None:
            return f"{self.done} {agreeing(self.done, self.unit, plural(self.unit))}"
        return f"{self.done}/{self.total} {agreeing(self.total, self.unit, plural(self.unit))}"

    def _rates_and_times(self) -> tuple[str, str, str, str]:
        """Return the rate, the rate in short, the time that has passed and that which is left.

        Those that are not known are empty.
        """
        elapsed = time.monotonic() - self.start
        shown_elapsed = f"{timedelta(seconds=round(elapsed))} elapsed"
        left = self.estimate.seconds_left()
        shown_left = "" if left is None else f"{in_words(left)} left"
        rate = self.per_second()
        if rate is None:
            return "", "", shown_elapsed, shown_left
        if rate >= 1:
            return f"{rate:.1f} {plural(self.unit)}/s", f"{rate:.1f}/s", shown_elapsed, shown_left
        each = f"{1 / rate:.1f} s each"
        return each, each, shown_elapsed, shown_left

    def _show(self) -> None: ...


def _field(name: str, value: float | str) -> str:
    return one_line(value) if isinstance(value, str) else f"{name} {value:.4g}"


def _joined(count: str, parts: Sequence[str]) -> str:
    return ", ".join([count, *filter(None, parts)])


class _TerminalBar(Bar):
    """A bar of a live display, redrawn to the width that the terminal has."""

    def __init__(
        self, total: int | None, description: str, unit: str, done: int, progress: Progress
    ) -> None:
        super().__init__(total, description, unit, done)
        self.progress = progress
        self.task = progress.add_task(description, total=total, completed=done, bar=self)

    def _show(self) -> None:
        self.progress.update(self.task, completed=self.done)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Draw the line, with a bar in front of it where there is room."""
        line = self.line(options.max_width)
        room = min(_BAR_COLUMNS, options.max_width - cell_len(line) - 1)
        if room < _SHORTEST_BAR or not self.total:
            yield Text(line, no_wrap=True, overflow="crop")
            return
        drawn = Table.grid(padding=(0, 1))
        drawn.add_row(
            ProgressBar(total=self.total, completed=self.done, width=room),
            Text(line, no_wrap=True, overflow="crop"),
        )
        yield drawn


class _Stderr:
    """Stderr, written to as long as it is there."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write; a terminal that was closed takes nothing."""
        with suppress(OSError):
            return int(self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush; a terminal that was closed is not an error."""
        with suppress(OSError):
            self._stream.flush()


class _Display(Progress):
    """A live display of one line per bar."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars."""
        for task in self.tasks:
            yield task.fields["bar"]


class _TextBar(Bar):
    """Lines of text: one below the other in a log, or one that is rewritten in a notebook."""

    def __init__(
        self, total: int | None, description: str, unit: str, done: int, in_place: bool
    ) -> None:
        super().__init__(total, description, unit, done)
        self.in_place = in_place
        self.interval = _NOTEBOOK_SECONDS if in_place else _LOG_SECONDS
        self.shown = self.start

    def _show(self) -> None:
        if time.monotonic() - self.shown >= self.interval:
            self.write()

    def write(self) -> None:
        """Show where the loop is now."""
        self.shown = time.monotonic()
        if self.in_place:
            # Erase the line, and write it again.
            _write(f"\r\033[K{self.line()}")
        else:
            _write(f"{self.line()}\n")

    def close(self) -> None:
        """End the line of a notebook, where the next output would otherwise continue it."""
        if self.in_place and self.shown > self.start:
            self.write()
            _write("\n")


@contextmanager
def bar(total: int | None, description: str, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar while the body runs; the body calls its :meth:`Bar.advance`.

    On a terminal, a bar inside the body of another one stands below it and goes when its own body
    ends. Nothing is shown of a loop without steps.

    Args:
        total: number of steps; None if that is not known.
        description: a word or two in front of the bar.
        unit: what is counted, in the singular, such as ``clip``.
        done: steps that an earlier run has done; they do not count towards the rate.
    """
    if total == 0 or not _is_rank_zero():
        yield Bar(total, description, unit, done)
    elif _is_terminal():
        with _live_display() as progress:
            shown = _TerminalBar(total, description, unit, done, progress)
            yield shown
            if len(progress.tasks) > 1:
                progress.remove_task(shown.task)
    else:
        text = _TextBar(total, description, unit, done, in_place=_in_notebook())
        try:
            yield text
        finally:
            text.close()


@contextmanager
def _live_display() -> Iterator[Progress]:
    """Yield the live display: the one that is shown already, or a new one."""
    if _live:
        yield _live[0]
        return
    with _Display(console=Console(file=cast(TextIO, _Stderr(sys.stderr)))) as progress:
        _live.append(progress)
        try:
            yield progress
        finally:
            _live.clear()


def track(iterable: Iterable[T], total: int | None, description: str, unit: str) -> Iterator[T]:
    """Yield the items of an iterable under a progress bar; see :func:`bar`."""
    with bar(total, description, unit) as shown:
        for item in iterable:
            yield item
            shown.advance()


def _write(text: str) -> None:
    """Write to stderr, as long as there is one."""
    # Work goes on if the terminal is closed, or whoever read these lines has ended.
    with suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def _in_notebook() -> bool:
    """Return whether a notebook's kernel runs this process."""
    return "ipykernel" in sys.modules


def _is_rank_zero() -> bool:
    """Return whether this is the only process of a run or, as torchrun numbers them, its first."""
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
