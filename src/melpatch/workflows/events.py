"""Events of a table of predictions: found, written for CSV, Raven or Audacity, and scored."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.table import Table

from melpatch.atomic import written_aside
from melpatch.data.answers import BACKGROUND, Labelled
from melpatch.data.manifest import load_corpus
from melpatch.data.row import EVENT_COLUMNS
from melpatch.inference.events import Event, EventRule, find_events
from melpatch.search.exchange import write_for
from melpatch.unchanged import note_digest
from melpatch.workflows.frames import frames_in

Program = Literal["csv", "raven", "audacity"]
"""What events are written for."""


def events_in(
    table: Path,
    labels: Sequence[str],
    thresholds: Float[np.ndarray, " label"],
    hop: float,
    rule: EventRule,
) -> dict[str, list[Event]]:
    """Return the events of each recording of a table that ``melpatch predict --hop`` wrote.

    Args:
        table: see :func:`melpatch.workflows.frames.frames_in`.
        labels: the classes.
        thresholds: what the score of an event reaches, for each label.
        hop: the hop that it was written with.
        rule: what makes an event.

    Raises:
        CheckpointError: the table is damaged.
    """
    events: dict[str, list[Event]] = {}
    for path, frames in frames_in(table, labels, hop):
        events.setdefault(path, []).extend(find_events(frames, labels, thresholds, rule))
    return events


def write_events(events: dict[str, list[Event]], out: Path, program: Program) -> int:
    """Write events into a CSV file, or into a folder with a file per recording; return how many.

    Raises:
        ConfigError: such a file is in the folder already.
    """
    if program == "csv":
        with written_aside(out) as aside:
            with aside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(EVENT_COLUMNS)
                writer.writerows(_rows(events))
            note_digest(out, aside)
    else:
        stretches = [
            Labelled(path, event.start, event.end, (event.label,), "")
            for path, own in events.items()
            for event in own
        ]
        write_for(program, stretches, out)
    return sum(map(len, events.values()))


def _rows(events: dict[str, list[Event]]) -> Iterator[list[str]]:
    for path, own in events.items():
        for event in own:
            times = [f"{event.start:.3f}", f"{event.end:.3f}"]
            yield [path, *times, event.label, f"{event.score:.6g}"]


def score_events(
    events: dict[str, list[Event]], truth: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Return the event-based scores of what was found against labelled stretches.

    Recordings of which nothing was predicted are not scored.

    Args:
        events: what was found in each recording, by its path.
        truth: tables of labelled stretches, such as CSV files with path, start, end and label.
        labels: the classes; background is not scored.

    Raises:
        DataError: a table cannot be read.
    """
    # Not above: scipy would be imported before every prediction.
    from melpatch.evaluation.event_scores import event_scores

    guessed = {os.path.realpath(path): own for path, own in events.items()}
    true: dict[str, list[Event]] = {}
    for clip in load_corpus(truth).clips:
        path = os.path.realpath(clip.path)
        if path in guessed:
            end = clip.start + clip.duration
            own = [Event(clip.start, end, label, 1.0) for label in clip.labels]
            true.setdefault(path, []).extend(own)
    return event_scores(true, guessed, [label for label in labels if label != BACKGROUND])


def event_table(scores: Mapping[str, Any]) -> Table:
    """Return event-based scores as a table, of each label and of all events."""
    grid = Table("", "true", "found", "right", "precision", "recall", "F1")
    for row in (*scores["per_class"], {"label": "all events", **scores["micro"]}):
        counts = [str(row[name]) for name in ("true", "guessed", "right")]
        rates = ["-" if row[n] is None else f"{row[n]:.3f}" for n in ("precision", "recall", "F1")]
        grid.add_row(row["label"], *counts, *rates)
    interval = scores["micro_f1_interval"]
    if interval is not None:
        low, high = interval
        grid.caption = f"F1 of all events: 95 % interval by recording {low:.3f} to {high:.3f}"
    return grid
