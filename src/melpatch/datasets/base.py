"""What every dataset file offers: a card to read before use, and the list of its clips."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One row of a manifest: a clip's path below the dataset's folder, its label and its split; both may be empty."""

    path: str
    label: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """What one should know of a dataset before using it, and the way to its clips."""

    name: str
    """The name under which it is found, that of its file."""
    summary: str
    """What is heard in it, in one sentence."""
    licence: str
    """SPDX name of the licence of the recordings."""
    size: str
    """How many clips of what length, and how much disk space."""
    metric: str
    """What its scores are given in, such as accuracy or mAP."""
    splits: tuple[str, ...]
    """Its splits, or its folds."""
    labels: tuple[str, ...]
    """Its closed set of labels, sorted."""
    clips: Callable[[Path], list[Entry]]
    """Lists what lies in a folder that holds the dataset, in a fixed order."""
