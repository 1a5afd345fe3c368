"""Events along a recording: from the probabilities of windows to stretches with a label and a score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from melpatch.config import check
from melpatch.data.answers import BACKGROUND

_ROUNDING = 1e-3
"""By how much of a frame the times of windows may be off, which are written to a microsecond."""


class Event(NamedTuple):
    """A stretch of a recording in which a label holds."""

    start: float
    """Seconds from the start of the file."""
    end: float
    """Seconds from the start of the file."""
    label: str
    score: float
    """The largest score of a frame in it."""


class FrameScores(NamedTuple):
    """Scores along a recording at the hop, each frame beginning where the one before ends."""

    start: Float[np.ndarray, " frame"]
    """Seconds from the start of the file."""
    end: Float[np.ndarray, " frame"]
    """Seconds from the start of the file."""
    scores: Float[np.ndarray, "frame label"]


@dataclass(frozen=True, kw_only=True)
class EventRule:
    """What makes an event of scores."""

    release: float = 0.9
    """Share of a label's threshold that the score of an event must keep: it begins and ends where
    the score crosses that, and reaches the threshold in between."""
    shortest: float = 0.0
    """Seconds that an event lasts at least, after merging."""
    gap: float = 0.0
    """Seconds between two events of a label up to which they are merged."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(0 < self.release <= 1, "release", self.release, "above 0, at most 1")
        for name in ("shortest", "gap"):
            value = getattr(self, name)
            check(0 <= value < float("inf"), name, value, "seconds, 0 or more")


def frame_scores(
    start: Float[np.ndarray, " window"],
    end: Float[np.ndarray, " window"],
    scores: Float[np.ndarray, "window label"],
    hop: float,
) -> FrameScores:
    """Return the score of each frame of length ``hop``: the mean over all windows that cover it.

    A single window tells only that the sound is somewhere in it; the windows that overlap tell
    where.

    Args:
        start: seconds at which the windows start, each a hop after the one before.
        end: seconds at which they end.
        scores: of each label.
        hop: seconds.
    """
    base = float(start[0])
    first = np.round((start - base) / hop).astype(int)
    last = np.maximum(np.ceil((end - base) / hop - _ROUNDING).astype(int), first + 1)
    # A window adds its scores to the frames from its first to before its last: the sum of
    # differences is that for all windows at once.
    frames = int(last.max())
    sums = np.zeros((frames + 1, scores.shape[1]))
    counts = np.zeros(frames + 1)
    np.add.at(sums, first, scores)
    np.add.at(sums, last, -scores)
    np.add.at(counts, first, 1.0)
    np.add.at(counts, last, -1.0)
    covering = np.cumsum(counts)[:-1, None]
    means = np.cumsum(sums, axis=0)[:-1] / np.maximum(covering, 1.0)
    begins = base + hop * np.arange(frames)
    return FrameScores(begins, np.minimum(begins + hop, float(end.max())), means.clip(0.0, 1.0))


def find_events(
    frames: FrameScores,
    labels: Sequence[str],
    thresholds: Float[np.ndarray, " label"],
    rule: EventRule,
) -> list[Event]:
    """Return the events of all labels in order of their start.

    An event is a run of frames that keep ``release`` times the threshold, of which one reaches it
    (hysteresis). Events of a label with a short gap between them are merged; then those that are
    too short are dropped. Background, which is what has none of the labels, is no event.

    Args:
        frames: scores along the recording.
        labels: names of the columns.
        thresholds: what the score of an event reaches, for each label.
        rule: the other settings.
    """
    events = []
    for column, label in enumerate(labels):
        if label == BACKGROUND:
            continue
        scores = frames.scores[:, column]
        merged: list[tuple[int, int]] = []
        for first, last in _runs(scores >= rule.release * thresholds[column]):
            if scores[first : last + 1].max() < thresholds[column]:
                continue
            pause = frames.start[first] - frames.end[merged[-1][1]] if merged else np.inf
            if pause <= rule.gap + _ROUNDING * 1e-3:
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        for first, last in merged:
            begin, end = float(frames.start[first]), float(frames.end[last])
            if end - begin >= rule.shortest - _ROUNDING * 1e-3:
                events.append(Event(begin, end, label, float(scores[first : last + 1].max())))
    return sorted(events)


def _runs(active: Bool[np.ndarray, " frame"]) -> list[tuple[int, int]]:
    """Return the first and the last frame of each run of active frames."""
    changes = np.diff(np.concatenate(([0], active.astype(int), [0])))
    begins, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    return [*zip(begins.tolist(), (ends - 1).tolist(), strict=True)]
