"""What a person at the terminal sees: progress bars and warnings on stderr, tables on stdout.

Where stderr is not a terminal (a job's log), a bar becomes a plain line every half minute. Of a run of several
processes only the first one shows anything.
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
_LOG_SECONDS, _LOG_COLUMNS = 30.0, 160
_on_screen: list[
    Progress
] = []  # of which there is one at most; the lines of two would overwrite each other


def console() -> Console:
    """Return the console for tables on stdout; one that is not a terminal gets wide lines, so that little is folded."""
    return Console(
        width=None if sys.stdout.isatty() else _LOG_COLUMNS, markup=False, highlight=False
    )


def notice(text: str) -> None:
    """Show a line on stderr: a warning, or where the results are."""
    if _first_process():
        sys.stderr.write(f"{text}\n")


class Bar:
    """How far a loop has come; shows nothing itself, as is right for all processes but the first."""

    def __init__(self, total: int | None, description: str, done: int) -> None:
        self.total, self.description = total, description
        self.before = self.done = done
        self.fields: dict[str, float | str] = {}
        self.start = time.monotonic()

    def advance(self, steps: int = 1, **fields: float | str) -> None:
        """Count steps as done, and show the latest value of each field (``loss=0.61``, ``memory="3.1 GiB"``)."""
        self.done += steps
        self.fields |= fields
        self._show()

    def status(self) -> str:
        """Return the rate, the times and the fields in words: ``3.1/s, 0:00:39 elapsed, 0:26:00 left, loss 0.61``."""
        elapsed = time.monotonic() - self.start
        parts = [f"{timedelta(seconds=round(elapsed))} elapsed"]
        if self.done > self.before and elapsed:
            rate = (self.done - self.before) / elapsed
            parts.insert(0, f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self.total:
                parts.append(
                    f"{timedelta(seconds=round(max(0, self.total - self.done) / rate))} left"
                )
        values = {
            name: value if isinstance(value, str) else f"{value:.4g}"
            for name, value in self.fields.items()
        }
        return ", ".join([*parts, *(f"{name} {value}" for name, value in values.items())])

    def _show(self) -> None: ...


class _TerminalBar(Bar):
    def __init__(self, total: int | None, description: str, done: int, progress: Progress) -> None:
        super().__init__(total, description, done)
        self.progress = progress
        self.task = progress.add_task(description, total=total, completed=done, status="")

    def _show(self) -> None:
        self.progress.update(self.task, completed=self.done, status=self.status())


class _LogBar(Bar):
    def __init__(self, total: int | None, description: str, done: int) -> None:
        super().__init__(total, description, done)
        self.shown = self.start

    def _show(self) -> None:
        if time.monotonic() - self.shown >= _LOG_SECONDS:
            self.shown = time.monotonic()
            count = f"{self.done}/{self.total}" if self.total else f"{self.done}"
            sys.stderr.write(f"{self.description}: {count}, {self.status()}\n")


@contextmanager
def bar(total: int | None, description: str, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar while the body runs; the body calls its :meth:`Bar.advance`. A bar within the body of another
    stands below it, and goes when its own body ends.

    Args:
        total: how many steps there will be; None if that is not known.
        description: a word or two in front of the bar.
        done: steps that an earlier run has done already; they do not count towards the rate.
    """
    if not _first_process():
        yield Bar(total, description, done)
    elif sys.stderr.isatty():
        with _screen() as progress:
            shown = _TerminalBar(total, description, done, progress)
            yield shown
            if len(progress.tasks) > 1:
                progress.remove_task(shown.task)
    else:
        yield _LogBar(total, description, done)


@contextmanager
def _screen() -> Iterator[Progress]:
    """Give the bars that are on the screen, or a screen without any."""
    if _on_screen:
        yield _on_screen[0]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        _on_screen.append(progress)
        try:
            yield progress
        finally:
            _on_screen.clear()


def track(iterable: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield the items of an iterable under a progress bar; see :func:`bar`."""
    with bar(total, description) as shown:
        for item in iterable:
            yield item
            shown.advance()


def _first_process() -> bool:
    """Return whether this is the only process of a run or, as torchrun numbers them, its first."""
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
