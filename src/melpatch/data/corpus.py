"""What a corpus is: clips, their closed set of labels, and the files that it does without."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from melpatch.data.clip import Clip
from melpatch.errors import DataError


@dataclass(frozen=True)
class Rejected:
    """A file that a corpus does without, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Clips and what is known of them together.

    Attributes:
        name: the names of the sources, joined by ``+``.
        clips: in the order of the sources; folders are sorted.
        labels: all labels of all splits, sorted.
        multi_label: whether some clip has more than one label.
        rejected: what was left out.
    """

    name: str
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    multi_label: bool
    rejected: tuple[Rejected, ...] = ()

    @property
    def splits(self) -> dict[str, int]:
        """The number of clips of each split, sorted by its name; ``""`` stands for none."""
        return dict(sorted(Counter(clip.split for clip in self.clips).items()))

    def select(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of some splits; the labels stay those of the whole corpus.

        Raises:
            DataError: no clip stands in one of the splits.
        """
        wanted = self._known(splits)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.split in wanted))

    def without(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of all other splits; the labels stay those of the whole corpus.

        Raises:
            DataError: no clip stands in one of the splits, so that nothing would be held out.
        """
        unwanted = self._known(splits)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.split not in unwanted))

    def _known(self, splits: Iterable[str]) -> set[str]:
        asked = {splits} if isinstance(splits, str) else set(splits)
        unknown = sorted(asked - set(self.splits))
        if unknown:
            there = ", ".join(
                f"{split or '(none)'} ({count} clips)" for split, count in self.splits.items()
            )
            raise DataError(
                f"{self.name}: no split {unknown[0]!r}; there are: {there or 'no clips'}"
            )
        return asked


def label_matrix(clips: Sequence[Clip], labels: Sequence[str]) -> Float[np.ndarray, "clip label"]:
    """Return 1 where a clip has a label and 0 elsewhere, float32.

    Raises:
        DataError: a clip has a label that is not among ``labels``.
    """
    column = {label: index for index, label in enumerate(labels)}
    matrix = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in zip(matrix, clips, strict=True):
        for label in clip.labels:
            if label not in column:
                raise DataError(
                    f"{clip.path}: label {label!r} is not among the {len(labels)} known; see the column 'label'"
                )
            row[column[label]] = 1
    return matrix
