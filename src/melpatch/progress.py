"""What a user sees while a command runs: progress bars and notices on stderr, tables on stdout.

A terminal shows live bars. A notebook shows one line that is rewritten in place. Anything else,
such as the log of a job, gets a plain line every half minute. Of a distributed run only rank 0
shows anything.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

T = TypeVar("T")
_LOG_SECONDS = 30.0  # between the lines of a log
_NOTEBOOK_SECONDS = 0.5  # between the updates of a notebook's line
_LOG_COLUMNS = 160
# The live display, if there is one: a second one would overwrite its lines.
_live: list[Progress] = []


def console() -> Console:
    """Return the console for tables on stdout.

    A file or pipe gets wide lines, unless the environment variable COLUMNS gives a width.
    """
    width = None
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = _LOG_COLUMNS
    return Console(width=width, markup=False, highlight=False)


def notice(text: str) -> None:
    """Show a line on stderr: a warning, or where the results are."""
    if _is_rank_zero():
        sys.stderr.write(f"{text}\n")


class Bar:
    """How far a loop has come; this one shows nothing, as is right for all ranks but 0."""

    def __init__(self, total: int | None, description: str, done: int) -> None:
        self.total = total
        self.description = description
        self.before = done
        self.done = done
        self.fields: dict[str, float | str] = {}
        self.start = time.monotonic()

    def advance(self, steps: int = 1, **fields: float | str) -> None:
        """Count steps as done, and show the latest value of each field.

        Args:
            steps: how many.
            fields: values by name, such as ``loss=0.61`` or ``memory="3.1 GiB"``.
        """
        self.done += steps
        self.fields |= fields
        self._show()

    def status(self) -> str:
        """Return rate, times and fields in words: ``3.1/s, 0:00:39 elapsed, 0:26:00 left, loss 0.61``."""
        elapsed = time.monotonic() - self.start
        parts = [f"{timedelta(seconds=round(elapsed))} elapsed"]
        if self.done > self.before and elapsed:
            rate = (self.done - self.before) / elapsed
            parts.insert(0, f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self.total:
                left = max(0, self.total - self.done) / rate
                parts.append(f"{timedelta(seconds=round(left))} left")
        for name, value in self.fields.items():
            shown = value if isinstance(value, str) else f"{value:.4g}"
            parts.append(f"{name} {shown}")
        return ", ".join(parts)

    def line(self) -> str:
        """Return description, count and status as one line of text."""
        count = f"{self.done}/{self.total}" if self.total else f"{self.done}"
        return f"{self.description}: {count}, {self.status()}"

    def _show(self) -> None: ...


class _TerminalBar(Bar):
    """A bar of a live display."""

    def __init__(self, total: int | None, description: str, done: int, progress: Progress) -> None:
        super().__init__(total, description, done)
        self.progress = progress
        self.task = progress.add_task(description, total=total, completed=done, status="")

    def _show(self) -> None:
        self.progress.update(self.task, completed=self.done, status=self.status())


class _TextBar(Bar):
    """Lines of text: one below the other in a log, or one that is rewritten in a notebook."""

    def __init__(self, total: int | None, description: str, done: int, in_place: bool) -> None:
        super().__init__(total, description, done)
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
            sys.stderr.write(f"\r\033[K{self.line()}")
            sys.stderr.flush()
        else:
            sys.stderr.write(f"{self.line()}\n")

    def close(self) -> None:
        """End the line of a notebook, where the next output would otherwise continue it."""
        if self.in_place and self.shown > self.start:
            self.write()
            sys.stderr.write("\n")


@contextmanager
def bar(total: int | None, description: str, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar while the body runs; the body calls its :meth:`Bar.advance`.

    On a terminal, a bar inside the body of another one stands below it and goes when its own body
    ends.

    Args:
        total: number of steps; None if that is not known.
        description: a word or two in front of the bar.
        done: steps that an earlier run has done; they do not count towards the rate.
    """
    if not _is_rank_zero():
        yield Bar(total, description, done)
    elif sys.stderr.isatty():
        with _live_display() as progress:
            shown = _TerminalBar(total, description, done, progress)
            yield shown
            if len(progress.tasks) > 1:
                progress.remove_task(shown.task)
    else:
        text = _TextBar(total, description, done, in_place=_in_notebook())
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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        _live.append(progress)
        try:
            yield progress
        finally:
            _live.clear()


def track(iterable: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield the items of an iterable under a progress bar; see :func:`bar`."""
    with bar(total, description) as shown:
        for item in iterable:
            yield item
            shown.advance()


def _in_notebook() -> bool:
    """Return whether a notebook's kernel runs this process."""
    return "ipykernel" in sys.modules


def _is_rank_zero() -> bool:
    """Return whether this is the only process of a run or, as torchrun numbers them, its first."""
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
