"""The lowest probability at which a label is given, for each class, by a stated rule."""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from melpatch.config import check

NEVER = 2.0
"""A threshold that no probability reaches: the label is never given."""
_UNKNOWN = 0.5
"""Threshold of a class that no validation clip of it could be given, by the rule ``f1``."""
_MOST_CELLS = 1 << 24  # clips times classes that are sorted at a time


@dataclass(frozen=True)
class ThresholdRule:
    """How thresholds are chosen: see :meth:`parse`.

    Attributes:
        kind: ``none``, ``f1`` or ``precision``.
        precision: what the labels that are given reach at least.
    """

    kind: str
    precision: float = 0.0

    @staticmethod
    def parse(text: str, multi_label: bool = False) -> "ThresholdRule":
        """Return the rule of a spelling.

        ``none``: no thresholds; a clip has its most probable label, or where it may have several
        those of 0.5 or more. ``f1``: the best F1 of each class. ``precision=0.9``: as many labels
        as can be given while 0.9 of a class's are right. ``auto``: ``f1`` where a clip may have
        several labels, else ``none``.

        Raises:
            SettingError: there is no such rule.
        """
        allowed = "auto, none, f1, or precision=P with P above 0 and at most 1"
        if text == "auto":
            return ThresholdRule("f1" if multi_label else "none")
        if text in ("none", "f1"):
            return ThresholdRule(text)
        match = re.fullmatch(r"precision=(0?\.\d+|1(\.0*)?)", text)
        precision = float(match[1]) if match else 0.0
        check(precision > 0, "thresholds", text, allowed)
        return ThresholdRule("precision", precision)

    def __str__(self) -> str:
        if self.kind == "precision":
            return f"precision={self.precision:g}"
        return self.kind


def choose_thresholds(
    probabilities: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    rule: ThresholdRule,
    multi_label: bool,
) -> Float[np.ndarray, " label"] | None:
    """Return the threshold of each class; None by the rule ``none``.

    It lies halfway between the least probability with which the label is given to a validation clip
    and the greatest below that. Where a clip has one label, only its most probable one is given.
    A class that cannot reach the precision, or has no validation clip to show it, is never given
    (:data:`NEVER`); where it is given to no clip of it in any case, the rule ``f1`` takes 0.5.

    Args:
        probabilities: of validation clips, calibrated.
        targets: 1 where a clip has the label, else 0.
        rule: how to choose.
        multi_label: whether a clip may have several labels.
    """
    if rule.kind == "none":
        return None
    classes = probabilities.shape[1]
    # In float32, as answers are compared with thresholds; exact in float64.
    given = probabilities.astype(np.float32).astype(np.float64)
    if not multi_label:
        # Below every threshold, since only the most probable label is given.
        best = probabilities.argmax(axis=1)
        given = np.where(np.arange(classes) == best[:, None], given, -1.0)
    step = max(1, _MOST_CELLS // len(given))
    parts = [
        _thresholds(given[:, first : first + step], targets[:, first : first + step] > 0.5, rule)
        for first in range(0, classes, step)
    ]
    return np.concatenate(parts)


def _thresholds(
    given: Float[np.ndarray, "clip label"],
    positive: Bool[np.ndarray, "clip label"],
    rule: ThresholdRule,
) -> Float[np.ndarray, " label"]:
    order = np.argsort(-given, axis=0, kind="stable")
    ranked = np.take_along_axis(given, order, axis=0)
    right = np.take_along_axis(positive, order, axis=0).cumsum(axis=0)
    number = np.arange(1, len(given) + 1)[:, None]
    below = np.concatenate([ranked[1:], np.zeros_like(ranked[:1])])
    # Clips of the same probability get a label together; -1 is never given.
    possible = (ranked > below) & (ranked > 0)
    if rule.kind == "precision":
        fits = possible & (right >= rule.precision * number) & (right > 0)
        # The last that fits gives the label to the most clips.
        cut = len(given) - 1 - fits[::-1].argmax(axis=0)
        found_none = ~fits.any(axis=0)
        otherwise = NEVER
    else:
        score = np.where(possible, 2 * right / (number + positive.sum(axis=0)), -1.0)
        cut = score.argmax(axis=0)
        found_none = ~(positive & (given > 0)).any(axis=0)
        otherwise = _UNKNOWN
    rows = np.arange(given.shape[1])
    least, next_below = ranked[cut, rows], np.maximum(below[cut, rows], 0)
    middle = ((least + next_below) / 2).astype(np.float32)
    # Between two neighbours of float32 there is nothing: rounding must not reach the lower one.
    middle = np.where(middle <= next_below, least.astype(np.float32), middle)
    return np.where(found_none, otherwise, middle).astype(np.float32)
