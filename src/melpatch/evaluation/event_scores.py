"""Scores of events: those found against those that are there, matched within a collar.

As in DCASE's challenges (Mesaros, Heittola and Virtanen 2016, "Metrics for polyphonic sound event
detection", Applied Sciences 6, section 3.2): an event is right if its label is and its start is
within the collar of that of a true event, and its end within the collar or a share of the true
event's length, whichever is longer. Each true event is matched once, as many as can be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from melpatch.evaluation.intervals import wilson
from melpatch.inference.events import Event

COLLAR = 0.2
"""Seconds by which start and end may be off."""
LENGTH_SHARE = 0.2
"""Share of a true event's length by which its end may be off."""
_EXACT = 1e-6  # a microsecond, to which times are written


def count_matches(
    true: Sequence[Event], guessed: Sequence[Event], *, collar: float, length_share: float
) -> int:
    """Return how many guessed events of one label and recording can be matched with true ones."""
    if not true or not guessed:
        return 0
    starts = np.array([[event.start for event in true]]).T
    ends = np.array([[event.end for event in true]]).T
    allowed = np.maximum(collar, length_share * (ends - starts)) + _EXACT
    near = np.abs(starts - [event.start for event in guessed]) <= collar + _EXACT
    near &= np.abs(ends - [event.end for event in guessed]) <= allowed
    matched = maximum_bipartite_matching(csr_array(near.astype(np.int8)), perm_type="column")
    return int((matched >= 0).sum())


def event_scores(
    true: Mapping[str, Sequence[Event]],
    guessed: Mapping[str, Sequence[Event]],
    labels: Sequence[str],
    *,
    collar: float = COLLAR,
    length_share: float = LENGTH_SHARE,
) -> dict[str, Any]:
    """Return event-based precision, recall and F1, of all events together and of each label.

    Args:
        true: the events of each recording, by its name.
        guessed: those that were found; recordings are scored that are in either.
        labels: the labels to score.
        collar: seconds by which start and end may be off.
        length_share: share of a true event's length by which its end may be off.

    Returns:
        ``micro`` and, for ``per_class``, each label: ``true``, ``guessed`` and ``right`` events,
        ``precision``, ``recall`` and ``F1`` (None where undefined); ``macro_f1``, the mean F1 of the
        labels that have events; ``recordings``; and ``micro_f1_interval``, see
        :func:`f1_interval`.
    """
    per_class: list[dict[str, Any]] = []
    recordings = [*{**true, **guessed}]
    right = np.zeros(len(recordings))
    both = np.zeros(len(recordings))
    for label in labels:
        counts = {"true": 0, "guessed": 0, "right": 0}
        for number, recording in enumerate(recordings):
            own, other = (
                [event for event in events.get(recording, ()) if event.label == label]
                for events in (true, guessed)
            )
            counts["true"] += len(own)
            counts["guessed"] += len(other)
            matches = count_matches(own, other, collar=collar, length_share=length_share)
            counts["right"] += matches
            right[number] += matches
            both[number] += len(own) + len(other)
        per_class.append({"label": label, **counts, **_rates(counts)})
    total = {name: sum(row[name] for row in per_class) for name in ("true", "guessed", "right")}
    defined = [row["F1"] for row in per_class if row["F1"] is not None]
    return {
        "collar": collar,
        "length_share": length_share,
        "micro": {**total, **_rates(total)},
        "micro_f1_interval": f1_interval(right, both),
        "recordings": len(recordings),
        "macro_f1": float(np.mean(defined)) if defined else None,
        "per_class": per_class,
    }


def f1_interval(
    right: Float[np.ndarray, " recording"], both: Float[np.ndarray, " recording"]
) -> tuple[float, float] | None:
    """Return the 95 % interval of F1 over recordings, which are the independent evidence.

    F1 is the ratio of twice the right events to true and guessed ones. The interval is Wilson's, of
    as many independent events as have the variance of that ratio between recordings (linearised).
    None if fewer than two recordings have events.

    Args:
        right: events of each recording that are right.
        both: its true and guessed events together.
    """
    number = int((both > 0).sum())
    if number < 2:
        return None
    value = float(2 * right.sum() / both.sum())
    independent = float(number)
    if 0 < value < 1:
        deviations = 2 * right - value * both
        variance = number / (number - 1) * float((deviations**2).sum()) / float(both.sum()) ** 2
        most = float(both.sum()) / 2
        independent = min(most, value * (1 - value) / max(variance, 1e-12))
    low, high = wilson(value, independent)
    return low, high


def _rates(counts: Mapping[str, int]) -> dict[str, float | None]:
    true, guessed, right = counts["true"], counts["guessed"], counts["right"]
    return {
        "precision": right / guessed if guessed else None,
        "recall": right / true if true else None,
        "F1": 2 * right / (true + guessed) if true + guessed else None,
    }
